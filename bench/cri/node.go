package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/bench/peers"
	"cale/test/images"
)

// node is a runtime that serves the CRI.
type node struct {
	name string
	runtimeapi.RuntimeServiceClient
	images      runtimeapi.ImageServiceClient
	program     string   // of the daemon, by file name
	supervisors []string // programs that a pod keeps running, likewise; pause is always one
	stop        func()
}

// pod is a pod of one container.
type pod struct{ id, container string }

// daemon starts a program and gives what ends it.
func daemon(ctx context.Context, log string, env []string, argv ...string) (stop func(), err error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), f, f
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}, nil
}

// serveImages starts a registry of ours with the images, and gives the name of the one that containers run.
func serveImages(ctx context.Context, bin string) (image string, stop func(), err error) {
	const addr = "127.0.0.1:5000"
	dir := filepath.Join(peers.Dir, "registry")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, err
	}
	stop, err = daemon(ctx, dir+".log", nil, filepath.Join(bin, "caled"), "--root", filepath.Join(dir, "root"), "--run", filepath.Join(dir, "run"), "--registry", addr, "--registry-open")
	if err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	if err := eventually(func() error { _, err := net.Dial("tcp", addr); return err }); err != nil {
		return "", nil, err
	}
	busybox, err := images.Busybox()
	if err != nil {
		return "", nil, err
	}
	pause, err := images.New(images.Spec{Layers: [][]images.File{{{Name: "pause", Mode: 0o755, Data: peers.Pause()}}}, Run: images.Run{Entrypoint: []string{"/pause"}}})
	if err != nil {
		return "", nil, err
	}
	if err := busybox.Push(ctx, addr, "busybox:latest"); err != nil {
		return "", nil, err
	}
	return addr + "/busybox:latest", stop, pause.Push(ctx, addr, "pause:latest")
}

func eventually(try func() error) (err error) {
	for range 200 {
		if err = try(); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

// network writes the CNI configuration of one runtime, and gives its directory.
func network(name string, third int) (string, error) {
	dir := filepath.Join(peers.Dir, name, "net.d")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	conf := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "plugins": [{"type": "bridge", "bridge": "bench%d", "isGateway": true,
		"ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.88.%d.0/24"}]]}}]}`, name, third, filepath.Join(peers.Dir, name, "leases"), third)
	return dir, os.WriteFile(filepath.Join(dir, "10.conflist"), []byte(conf), 0o600)
}

const plugins = "/usr/lib/cni"

func startCale(ctx context.Context, bin, _ string) (*node, error) {
	conf, err := network("cale", 1)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(peers.Dir, "cale")
	stop, err := daemon(ctx, filepath.Join(dir, "log"), []string{"PATH=" + bin + ":" + os.Getenv("PATH")}, filepath.Join(bin, "cale-cri"), "--cri",
		"--root", filepath.Join(dir, "root"), "--run", filepath.Join(dir, "run"), "--config-dir", filepath.Join(dir, "etc"), "--cni-conf", conf, "--cni-bin", plugins)
	if err != nil {
		return nil, err
	}
	return connect(ctx, &node{name: "cale", program: "cale-cri", supervisors: []string{"cale-shim"}, stop: stop}, filepath.Join(dir, "run", "cri.sock"))
}

func startContainerd(ctx context.Context, _, image string) (*node, error) {
	version, err := exec.CommandContext(ctx, "containerd", "--version").Output()
	if err != nil {
		return nil, errors.New("containerd is not here: nothing to compare with")
	}
	if f := strings.Fields(string(version)); len(f) < 3 || !strings.HasPrefix(strings.TrimPrefix(f[2], "v"), "2.") {
		return nil, fmt.Errorf("containerd in $PATH is %s: the comparison wants version 2", strings.TrimSpace(string(version)))
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		return nil, err
	}
	conf, err := network("containerd", 2)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(peers.Dir, "containerd")
	registry, _, _ := strings.Cut(image, "/")
	config := fmt.Sprintf(`version = 3
root = "%[1]s/root"
state = "%[1]s/state"
[grpc]
  address = "%[1]s/sock"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "%[2]s/pause:latest"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "%[3]s"
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["%[4]s"]
  conf_dir = "%[5]s"
`, dir, registry, runc, plugins, conf)
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	stop, err := daemon(ctx, filepath.Join(dir, "log"), nil, "containerd", "-c", filepath.Join(dir, "config.toml"))
	if err != nil {
		return nil, err
	}
	n, err := connect(ctx, &node{name: "containerd", program: "containerd", supervisors: []string{"containerd-shim-runc-v2"}, stop: stop}, filepath.Join(dir, "sock"))
	if err == nil {
		err = n.pull(ctx, registry+"/pause:latest")
	}
	return n, err
}

func connect(ctx context.Context, n *node, socket string) (*node, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		return nil, err
	}
	n.RuntimeServiceClient, n.images = runtimeapi.NewRuntimeServiceClient(conn), runtimeapi.NewImageServiceClient(conn)
	err = eventually(func() error {
		st, err := n.Status(ctx, &runtimeapi.StatusRequest{})
		for _, c := range st.GetStatus().GetConditions() {
			if !c.Status && (c.Type == runtimeapi.RuntimeReady || c.Type == runtimeapi.NetworkReady) {
				return errors.New(c.Message)
			}
		}
		return err
	})
	if err != nil {
		n.stop()
		return nil, fmt.Errorf("%s does not get ready: %w", n.name, err)
	}
	return n, nil
}

func (n *node) pull(ctx context.Context, image string) error {
	_, err := n.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	return err
}

// make makes a pod of one container, up to that being started.
func (n *node) make(ctx context.Context, name, image string) (p pod, err error) {
	config := &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Uid: name, Namespace: "bench"},
		Hostname: name, LogDirectory: filepath.Join(peers.Dir, n.name, "logs", name), Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}}}}
	if err := os.MkdirAll(config.LogDirectory, 0o755); err != nil {
		return p, err
	}
	r, err := n.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		return p, err
	}
	c, err := n.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: r.PodSandboxId, SandboxConfig: config, Config: &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: image}, Command: []string{"sleep", "100000"}, LogPath: "c.log",
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: config.Linux.SecurityContext.NamespaceOptions}}}})
	if err != nil {
		return p, err
	}
	_, err = n.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: c.ContainerId})
	return pod{r.PodSandboxId, c.ContainerId}, err
}

// remove stops a pod at once and removes it.
func (n *node) remove(ctx context.Context, p pod) error {
	if _, err := n.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: p.container}); err != nil {
		return err
	}
	if _, err := n.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		return err
	}
	_, err := n.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.id})
	return err
}

// clear removes all pods that are left.
func (n *node) clear(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	list, err := n.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	for _, p := range list.GetItems() {
		_, err1 := n.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: p.Id})
		_, err2 := n.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.Id})
		err = errors.Join(err, err1, err2)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: pods are left: %v\n", n.name, err)
	}
}

func (n *node) exec(ctx context.Context, p pod) error {
	r, err := n.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: p.container, Cmd: []string{"true"}, Timeout: 10})
	if err == nil && r.ExitCode != 0 {
		err = fmt.Errorf("true ended with %d", r.ExitCode)
	}
	return err
}
