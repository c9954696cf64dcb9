package cri

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/engine"
	"cale/test/images"
)

// local is a server in this process, on an engine whose containers are a fake shim's.
type local struct {
	*Server
	dir, pod, container string
}

func newLocal(t testing.TB, o Options) *local {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("namespaces are made")
	}
	dir, err := os.MkdirTemp("/dev/shm", "cale-cri")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("something is still mounted: %v", err)
		}
	})
	l := &local{dir: dir}
	o.Version, o.Root = "test", filepath.Join(dir, "root")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	shim := filepath.Join(dir, fakeShimName)
	if err := os.WriteFile(shim, program, 0o700); err != nil {
		t.Fatal(err)
	}
	// A pod with a network of its own is refused: it would be on a bridge of this machine.
	e, err := engine.Open(t.Context(), engine.Config{Root: filepath.Join(dir, "root"), Run: filepath.Join(dir, "run"), Shim: shim, ConfigDir: filepath.Join(dir, "etc"),
		CDIDirs: []string{filepath.Join(dir, "cdi")}, CNI: engine.CNI{ConfDir: filepath.Join(dir, "net.d"), Required: true}})
	if err != nil {
		t.Fatal(err)
	}
	if l.Server, err = New(e, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.clear(t, "")
		l.Close()
		if err := e.Retire(context.Background()); err != nil {
			t.Error(err)
		}
		e.Close()
	})
	l.image(t)
	config := l.podConfig()
	p, err := l.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	l.pod = p.PodSandboxId
	c, err := l.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: l.pod, Config: l.containerConfig(), SandboxConfig: config})
	if err != nil {
		t.Fatal(err)
	}
	l.container = c.ContainerId
	if _, err := l.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: l.container}); err != nil {
		t.Fatal(err)
	}
	return l
}

// image makes the image that containers run.
func (l *local) image(t testing.TB) {
	t.Helper()
	tar, err := images.Tar([]images.File{{Name: "etc/passwd", Data: []byte("root:x:0:0:root:/:/bin/sh\n")}, {Name: "bin/sh", Mode: 0o755, Data: []byte("#!")}})
	if err == nil {
		_, err = l.engine.Import(context.Background(), bytes.NewReader(tar), engine.ImportOptions{Name: "fuzz/image:latest"})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (l *local) podConfig() *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Uid: "u", Namespace: "n"}, LogDirectory: filepath.Join(l.dir, "logs"),
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE}}}}
}

func (l *local) containerConfig() *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: "fuzz/image:latest"},
		Command: []string{"/bin/sh"}, LogPath: "c.log", Linux: &runtimeapi.LinuxContainerConfig{}}
}

// client is a client of a server in this process, which listens beside the others of the test.
func (l *local) client(t testing.TB, name string, s *grpc.Server) runtimeapi.RuntimeServiceClient {
	t.Helper()
	at := filepath.Join(l.dir, name+".sock")
	socket, err := Listen(at)
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(socket)
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient("unix://"+at, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return runtimeapi.NewRuntimeServiceClient(conn)
}

// clear removes all pods but one.
func (l *local) clear(t testing.TB, but string) {
	t.Helper()
	for _, p := range l.engine.Pods() {
		if p.ID == but {
			continue
		}
		if _, err := l.RemovePodSandbox(context.Background(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: p.ID}); err != nil {
			t.Errorf("what was made can't be removed: %v", err)
		}
	}
}

// tidy brings the server back to one pod with one container that runs.
func (l *local) tidy(t testing.TB) {
	t.Helper()
	l.clear(t, l.pod)
	p, err := l.engine.Pod(l.pod)
	if err != nil || !p.Ready {
		l.clear(t, "")
		r, err := l.RunPodSandbox(context.Background(), &runtimeapi.RunPodSandboxRequest{Config: l.podConfig()})
		if err != nil {
			t.Fatal(err)
		}
		l.pod = r.PodSandboxId
	}
	members, err := l.engine.Members(l.pod)
	if err != nil {
		t.Fatal(err)
	}
	for i := range members {
		if members[i].ID == l.container && members[i].State.Status == engine.Running {
			continue
		}
		if _, err := l.RemoveContainer(context.Background(), &runtimeapi.RemoveContainerRequest{ContainerId: members[i].ID}); err != nil {
			t.Error(err)
		}
	}
	if _, err := l.engine.Inspect(context.Background(), l.container, false); err == nil {
		return
	}
	if _, err := l.engine.Image(context.Background(), "fuzz/image:latest"); err != nil {
		l.image(t)
	}
	c, err := l.CreateContainer(context.Background(), &runtimeapi.CreateContainerRequest{PodSandboxId: l.pod, Config: l.containerConfig(), SandboxConfig: l.podConfig()})
	if err == nil {
		l.container = c.ContainerId
		_, err = l.StartContainer(context.Background(), &runtimeapi.StartContainerRequest{ContainerId: l.container})
	}
	if err != nil {
		t.Fatal(err)
	}
}
