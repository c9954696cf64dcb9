package cri

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/atomicfile"
	"cale/engine"
	"cale/test/stack"
)

// serveEnv makes this test program the daemon: root, run and the shim's path, parted by colons. A process of its own
// can be killed.
const serveEnv = "CALE_TEST_CRI"

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == fakeShimName {
		fakeShim()
	}
	if v := os.Getenv(serveEnv); v != "" {
		if err := serve(strings.Split(v, ":")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func serve(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	e, err := engine.Open(ctx, engine.Config{Root: args[0], Run: args[1], Shim: args[2], ConfigDir: filepath.Join(filepath.Dir(args[0]), "etc"),
		CDIDirs: []string{filepath.Join(filepath.Dir(args[0]), "cdi")},
		CNI:     engine.CNI{ConfDir: filepath.Join(filepath.Dir(args[0]), "net.d"), Bin: []string{filepath.Join(filepath.Dir(args[0]), "cni"), "/usr/lib/cni"}}, Log: func(f string, a ...any) { fmt.Fprintf(os.Stderr, f+"\n", a...) }})
	if err != nil {
		return err
	}
	defer e.Close()
	l, err := Listen(filepath.Join(args[1], "cri.sock"))
	if err != nil {
		return err
	}
	s, err := New(e, Options{Version: "test", Root: args[0], AllowRestore: true})
	if err != nil {
		return err
	}
	go s.Serve(l)
	ask := make(chan os.Signal, 1)
	signal.Notify(ask, syscall.SIGUSR1)
	go func() {
		for range ask {
			_ = atomicfile.Write(filepath.Join(args[1], "goroutines"), fmt.Append(nil, runtime.NumGoroutine()), 0o600, false)
		}
	}()
	<-ctx.Done()
	s.Close()
	return e.Retire(context.Background())
}

// node is a daemon, and a client of it.
type node struct {
	t     *testing.T
	dir   string
	shim  string
	cmd   *exec.Cmd
	log   string
	image string // busybox, in the registry
	conn  *grpc.ClientConn
	runtimeapi.RuntimeServiceClient
	images runtimeapi.ImageServiceClient
	logs   string // the pods' log directory
}

func newNode(t *testing.T) *node {
	t.Helper()
	s := stack.New(t)
	dir, err := os.MkdirTemp("/dev/shm", "cale-cri")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir, shim: filepath.Join(stack.Programs(t), "cale-shim"), image: s.Busybox() + ":latest", logs: filepath.Join(dir, "logs"), log: filepath.Join(dir, "log")}
	t.Cleanup(n.end)
	n.start()
	conn, err := grpc.NewClient("unix://"+filepath.Join(dir, "run", "cri.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		t.Fatal(err)
	}
	n.conn = conn
	n.RuntimeServiceClient, n.images = runtimeapi.NewRuntimeServiceClient(conn), runtimeapi.NewImageServiceClient(conn)
	if _, err := n.images.PullImage(n.ctx(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: n.image}}); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), stack.Patience)
	n.t.Cleanup(cancel)
	return ctx
}

func (n *node) start() {
	n.t.Helper()
	f, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	n.cmd = exec.Command("/proc/self/exe")
	n.cmd.Env = append(os.Environ(), serveEnv+"="+filepath.Join(n.dir, "root")+":"+filepath.Join(n.dir, "run")+":"+n.shim)
	n.cmd.Stderr, n.cmd.Stdout = f, f
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
}

// goroutines counts those of the daemon.
func (n *node) goroutines() int {
	n.t.Helper()
	file := filepath.Join(n.dir, "run", "goroutines")
	os.Remove(file)
	count := 0
	stack.Until(n.t, "the daemon counts its goroutines", func() bool {
		n.cmd.Process.Signal(syscall.SIGUSR1)
		raw, err := os.ReadFile(file)
		if err == nil {
			count, err = strconv.Atoi(string(raw))
		}
		return err == nil
	})
	return count
}

// crash ends the daemon as a crash would, and starts another one.
func (n *node) crash() {
	n.t.Helper()
	n.cmd.Process.Kill()
	n.cmd.Wait()
	n.start()
	// The connection to the one that died may be noticed by the next call only.
	stack.Until(n.t, "the next daemon answers", func() bool {
		_, err := n.Version(n.ctx(), &runtimeapi.VersionRequest{})
		return err == nil
	})
}

func (n *node) end() {
	if n.RuntimeServiceClient != nil {
		if list, err := n.ListPodSandbox(n.ctx(), &runtimeapi.ListPodSandboxRequest{}); err == nil {
			for _, p := range list.Items {
				if _, err := n.RemovePodSandbox(n.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.Id}); err != nil {
					n.t.Error(err)
				}
			}
		}
	}
	if n.conn != nil {
		n.conn.Close()
	}
	n.cmd.Process.Signal(syscall.SIGTERM)
	n.cmd.Wait()
	if n.t.Failed() {
		raw, _ := os.ReadFile(n.log)
		n.t.Logf("the daemon's log:\n%s", raw)
	}
	if err := os.RemoveAll(n.dir); err != nil {
		n.t.Errorf("something is still mounted: %v", err)
	}
}

func (n *node) podConfig(name string) *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Uid: name + "-uid", Namespace: "default"},
		LogDirectory: n.logs, Hostname: name, Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}}}}
}

func (n *node) pod(c *runtimeapi.PodSandboxConfig) string {
	n.t.Helper()
	r, err := n.RunPodSandbox(n.ctx(), &runtimeapi.RunPodSandboxRequest{Config: c})
	if err != nil {
		n.t.Fatal(err)
	}
	return r.PodSandboxId
}

func (n *node) config(name string, cmd ...string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: &runtimeapi.ImageSpec{Image: n.image}, Command: cmd, LogPath: name + ".log"}
}

func (n *node) run(pod string, p *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) string {
	n.t.Helper()
	r, err := n.CreateContainer(n.ctx(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: c, SandboxConfig: p})
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.StartContainer(n.ctx(), &runtimeapi.StartContainerRequest{ContainerId: r.ContainerId}); err != nil {
		n.t.Fatal(err)
	}
	return r.ContainerId
}

func (n *node) status(id string) *runtimeapi.ContainerStatus {
	n.t.Helper()
	r, err := n.ContainerStatus(n.ctx(), &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		n.t.Fatal(err)
	}
	return r.Status
}

// sh runs a command in a container and gives what it wrote.
func (n *node) sh(id, script string) string {
	n.t.Helper()
	r, err := n.ExecSync(n.ctx(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"/bin/sh", "-c", script}, Timeout: 30})
	if err != nil {
		n.t.Fatal(err)
	}
	if r.ExitCode != 0 {
		n.t.Fatalf("%s: ended with %d: %s", script, r.ExitCode, r.Stderr)
	}
	return strings.TrimSpace(string(r.Stdout))
}

func (n *node) exited(id string) *runtimeapi.ContainerStatus {
	n.t.Helper()
	stack.Until(n.t, "container has ended", func() bool { return n.status(id).State == runtimeapi.ContainerState_CONTAINER_EXITED })
	return n.status(id)
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	c := http.Client{Timeout: 10 * time.Second}
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	return r.StatusCode, string(b)
}
