package shim_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"cale/logfile"
	"cale/shim"
	"cale/shim/stdio"
)

// patience is generous: the machine may be busy.
const patience = 30 * time.Second

var (
	shimBinary string
	busybox    string
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("/dev/shm", "cale-shim-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	shimBinary = filepath.Join(os.Getenv("CALE_BIN"), "cale-shim")
	if os.Getenv("CALE_BIN") == "" {
		shimBinary = filepath.Join(dir, "cale-shim")
		cmd := exec.Command("go", "build", "-o", shimBinary, "cale/cmd/cale-shim")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build cale-shim: %v\n%s", err, out)
			return 1
		}
	}
	busybox, _ = exec.LookPath("busybox")
	return m.Run()
}

// box is one container under test.
type box struct {
	t      *testing.T
	id     string
	bundle string
	c      *shim.Client
	uri    stdio.URI
	cgroup string
}

// each runs the test with our runtime, with a foreign one and behind a foreign shim.
func each(t *testing.T, test func(t *testing.T, runtime string)) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if busybox == "" {
		t.Skip("needs busybox")
	}
	t.Run("own", func(t *testing.T) { test(t, "") })
	for _, name := range []string{"runc", "containerd-shim-runc-v2"} {
		if path, err := exec.LookPath(name); err == nil {
			t.Run(name, func(t *testing.T) { test(t, path) })
		}
	}
}

func newBox(t *testing.T, args []string, change func(*specs.Spec)) *box {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "cale-shim-test-")
	if err != nil {
		t.Fatal(err)
	}
	var r [6]byte
	rand.Read(r[:])
	b := &box{t: t, bundle: dir, id: "t" + hex.EncodeToString(r[:])}
	b.cgroup = "/cale-shim-test-" + b.id
	b.uri = stdio.URI{Log: filepath.Join(dir, "output"), Attach: filepath.Join(dir, "attach.sock")}
	makeRootfs(t, filepath.Join(dir, "rootfs"))
	s := spec(args, b.cgroup)
	if change != nil {
		change(s)
	}
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b.c, err = shim.Start(t.Context(), shim.Launch{Binary: shimBinary, Namespace: "test", ID: b.id, Bundle: dir})
	if err != nil {
		t.Fatal(err)
	}
	pid, err := b.c.Pid(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// CVE-2019-5736: what a container reaches by a process of the shim's is not to be written to, in use or not.
	if err := syscall.Access(fmt.Sprintf("/proc/%d/exe", pid), 2); err != syscall.EROFS {
		t.Errorf("write to the shim's program: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		b.c.Kill(ctx, b.id, "", uint32(syscall.SIGKILL), true)
		b.c.Wait(ctx, b.id, "")
		b.c.Delete(ctx, b.id, "")
		b.c.Shutdown(ctx)
		b.c.Close()
		for deadline := time.Now().Add(patience); syscall.Kill(pid, 0) == nil; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				syscall.Kill(pid, syscall.SIGKILL)
				t.Error("the shim did not end after its shutdown")
				break
			}
		}
		if m, err := os.ReadFile("/proc/self/mountinfo"); err == nil && bytes.Contains(m, []byte(dir)) {
			t.Error("a mount is left in the bundle")
		}
	})
	return b
}

func makeRootfs(t *testing.T, dir string) {
	t.Helper()
	for _, d := range []string{"bin", "proc", "dev", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	in, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), in, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "cat", "echo", "sleep", "stty", "true", "kill", "seq", "dd", "head"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
}

func process(args []string) *specs.Process {
	return &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}}
}

func spec(args []string, cgroup string) *specs.Spec {
	return &specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: "rootfs"},
		Process: process(args),
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: cgroup,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
			},
		},
	}
}

// create creates the container with all streams going to the test's URI.
func (b *box) create(runtime string, terminal bool) {
	b.t.Helper()
	r := shim.CreateRequest{ID: b.id, Bundle: b.bundle, Terminal: terminal, Runtime: runtime, Stdout: b.uri.String()}
	if !terminal {
		r.Stderr = r.Stdout
	}
	if b.uri.Stdin {
		r.Stdin = r.Stdout
	}
	if _, err := b.c.Create(b.ctx(), r); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) ctx() context.Context {
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	b.t.Cleanup(cancel)
	return ctx
}

func (b *box) start(exec string) {
	b.t.Helper()
	if _, err := b.c.Start(b.ctx(), b.id, exec); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) wait(exec string) shim.Exit {
	b.t.Helper()
	e, err := b.c.Wait(b.ctx(), b.id, exec)
	if err != nil {
		b.t.Fatal(err)
	}
	return e
}

func (b *box) exec(id string, terminal, stdin bool, args ...string) {
	b.t.Helper()
	raw, _ := json.Marshal(process(args))
	u := stdio.URI{Attach: b.uri.Attach, Stdin: stdin, StdinOnce: stdin}.String()
	r := shim.ExecRequest{ID: b.id, ExecID: id, Terminal: terminal, Stdout: u, Spec: raw}
	if !terminal {
		r.Stderr = u
	}
	if stdin {
		r.Stdin = u
	}
	if err := b.c.Exec(b.ctx(), r); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) attach(exec string, stdin bool) *stdio.Conn {
	b.t.Helper()
	c, err := stdio.Dial(b.ctx(), b.uri.Attach, stdio.Hello{Exec: exec, Stdin: stdin, Stdout: true, Stderr: true})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	return c
}

// output reads an attachment to its end.
func output(t *testing.T, c *stdio.Conn) (stdout, stderr string) {
	t.Helper()
	var out [3]strings.Builder
	for {
		s, p, err := c.Next()
		if err == io.EOF {
			return out[1].String(), out[2].String()
		}
		if err != nil {
			t.Fatal(err)
		}
		out[s].Write(p)
	}
}

func (b *box) log() string {
	b.t.Helper()
	var s strings.Builder
	err := logfile.Read(b.ctx(), logfile.ReadOptions{Path: b.uri.Log, Stdout: true, Stderr: true, Tail: -1},
		func(e *logfile.Entry) error { s.Write(e.Line); return nil })
	if err != nil {
		b.t.Fatal(err)
	}
	return s.String()
}

// files counts the shim's open descriptors.
func (b *box) files() int {
	b.t.Helper()
	pid, err := b.c.Pid(b.ctx())
	if err != nil {
		b.t.Fatal(err)
	}
	d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		b.t.Fatal(err)
	}
	return len(d)
}

// noMoreFiles sees that n execs left no descriptors open: a few may be the last
// one's, about to be closed.
func (b *box) noMoreFiles(before, n int) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		now := b.files()
		if now <= before+2 {
			return
		}
		if time.Now().After(deadline) {
			b.t.Errorf("the shim has %d files open, %d before %d execs", now, before, n)
			return
		}
	}
}
