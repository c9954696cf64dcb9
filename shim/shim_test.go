package shim_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	shimBinary = filepath.Join(dir, "cale-shim")
	cmd := exec.Command("go", "build", "-o", shimBinary, "cale/cmd/cale-shim")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build cale-shim: %v\n%s", err, out)
		return 1
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

// each runs the test with our runtime and with a foreign one.
func each(t *testing.T, test func(t *testing.T, runtime string)) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if busybox == "" {
		t.Skip("needs busybox")
	}
	t.Run("own", func(t *testing.T) { test(t, "") })
	for _, name := range []string{"runc"} {
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
	b.uri = stdio.URI{Log: filepath.Join(dir, "log"), Attach: filepath.Join(dir, "attach.sock")}
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

func TestRunLogsAndExit(t *testing.T) {
	each(t, func(t *testing.T, runtime string) {
		b := newBox(t, []string{"sh", "-c", "echo out; echo err >&2; exit 7"}, nil)
		b.create(runtime, false)
		if st, err := b.c.State(b.ctx(), b.id, ""); err != nil || st.Status != shim.StatusCreated {
			t.Errorf("state %+v, %v", st, err)
		}
		a := b.attach("", false)
		b.start("")
		if e := b.wait(""); e.Status != 7 || e.At.IsZero() {
			t.Errorf("exit %+v", e)
		}
		if log := b.log(); !strings.Contains(log, "out\n") || !strings.Contains(log, "err\n") {
			t.Errorf("log %q", log)
		}
		if out, errs := output(t, a); out != "out\n" || errs != "err\n" {
			t.Errorf("attached: %q %q", out, errs)
		}
		if e, err := shim.ReadExit(b.bundle, b.id); err != nil || e.Status != 7 {
			t.Errorf("on disk: %+v, %v", e, err)
		}
		if st, err := b.c.State(b.ctx(), b.id, ""); err != nil || st.Status != shim.StatusStopped || st.ExitStatus != 7 {
			t.Errorf("state %+v, %v", st, err)
		}
		if err := b.c.Kill(b.ctx(), b.id, "", 9, false); !shim.IsNotFound(err) {
			t.Errorf("kill of the dead: %v", err)
		}
		if e, err := b.c.Delete(b.ctx(), b.id, ""); err != nil || e.Status != 7 {
			t.Errorf("delete: %+v, %v", e, err)
		}
		if _, err := b.c.State(b.ctx(), b.id, ""); !shim.IsNotFound(err) {
			t.Errorf("state after delete: %v", err)
		}
	})
}

// moby#37870, containerd#2659: the end of the input must reach the process.
func TestStdinEOF(t *testing.T) {
	each(t, func(t *testing.T, runtime string) {
		b := newBox(t, []string{"cat"}, nil)
		b.uri.Stdin, b.uri.StdinOnce = true, true
		b.create(runtime, false)
		a := b.attach("", true)
		b.start("")
		n := 20
		files := b.files()
		if runtime != "" {
			n = 3
		}
		for i := range n {
			id := fmt.Sprint("e", i)
			b.exec(id, false, true, "cat")
			x := b.attach(id, true)
			if i%2 == 0 {
				io.WriteString(x, "hi\n")
				x.CloseWrite()
			}
			b.start(id)
			if i%2 == 1 {
				x.CloseWrite()
			}
			if e := b.wait(id); e.Status != 0 {
				t.Errorf("exec %d: %+v", i, e)
			}
			want := ""
			if i%2 == 0 {
				want = "hi\n"
			}
			if out, _ := output(t, x); out != want {
				t.Errorf("exec %d: %q", i, out)
			}
			if _, err := b.c.Delete(b.ctx(), b.id, id); err != nil {
				t.Error(err)
			}
		}
		b.noMoreFiles(files, n)
		io.WriteString(a, "hello\n")
		a.CloseWrite()
		if e := b.wait(""); e.Status != 0 {
			t.Errorf("exit %+v", e)
		}
		if out, _ := output(t, a); out != "hello\n" {
			t.Errorf("got %q", out)
		}
	})
}

func TestTerminal(t *testing.T) {
	each(t, func(t *testing.T, runtime string) {
		b := newBox(t, []string{"sh", "-c", "read x; stty size; echo got $x; exit 3"}, func(s *specs.Spec) { s.Process.Terminal = true })
		b.uri.Stdin = true
		b.create(runtime, true)
		if err := b.c.Resize(b.ctx(), b.id, "", 101, 47); err != nil {
			t.Error(err)
		}
		a := b.attach("", true)
		b.start("")
		io.WriteString(a, "abc\n")
		if e := b.wait(""); e.Status != 3 {
			t.Errorf("exit %+v", e)
		}
		out, _ := output(t, a)
		if !strings.Contains(out, "47 101") || !strings.Contains(out, "got abc") {
			t.Errorf("terminal: %q", out)
		}
		if log := b.log(); !strings.Contains(log, "got abc") {
			t.Errorf("log: %q", log)
		}
	})
}

func TestExecTerminalAndSignals(t *testing.T) {
	each(t, func(t *testing.T, runtime string) {
		b := newBox(t, []string{"sleep", "1000"}, nil)
		b.create(runtime, false)
		b.start("")
		b.exec("tty", true, true, "sh", "-c", "stty size; read x; echo $x; exit 9")
		a := b.attach("tty", true)
		if err := b.c.Resize(b.ctx(), b.id, "tty", 33, 22); err != nil {
			t.Error(err)
		}
		b.start("tty")
		io.WriteString(a, "word\n")
		if e := b.wait("tty"); e.Status != 9 {
			t.Errorf("exit %+v", e)
		}
		if out, _ := output(t, a); !strings.Contains(out, "22 33") || !strings.Contains(out, "word") {
			t.Errorf("terminal: %q", out)
		}

		b.exec("sig", false, false, "sleep", "1000")
		b.start("sig")
		if err := b.c.Kill(b.ctx(), b.id, "sig", uint32(syscall.SIGKILL), false); err != nil {
			t.Error(err)
		}
		if e := b.wait("sig"); e.Status != 137 {
			t.Errorf("exit %+v", e)
		}
		if err := b.c.Kill(b.ctx(), b.id, "sig", 9, false); !shim.IsNotFound(err) {
			t.Errorf("kill of the dead: %v", err)
		}

		b.exec("none", false, false, "no-such-program")
		x := b.attach("none", false)
		_, err := b.c.Start(b.ctx(), b.id, "none")
		if !shim.IsCommandNotFound(err) || shim.IsCommandNotExecutable(err) {
			t.Errorf("start of a missing program: %v", err)
		}
		if out, errs := output(t, x); runtime == "" && out+errs != "" {
			t.Errorf("a failed exec wrote %q %q", out, errs)
		}

		pids, err := b.c.Pids(b.ctx(), b.id)
		if err != nil || len(pids) != 1 {
			t.Errorf("pids %v, %v", pids, err)
		}
		if err := b.c.Pause(b.ctx(), b.id); err != nil {
			t.Error(err)
		}
		if st, _ := b.c.State(b.ctx(), b.id, ""); st.Status != shim.StatusPaused {
			t.Errorf("state %+v", st)
		}
		if err := b.c.Resume(b.ctx(), b.id); err != nil {
			t.Error(err)
		}
		if s, err := b.c.Stats(b.ctx(), b.id); err != nil || s.Pids == nil || s.Pids.Current == 0 {
			t.Errorf("stats %+v, %v", s, err)
		}
		if _, err := b.c.Delete(b.ctx(), b.id, ""); !shim.IsNotRunning(err) {
			t.Errorf("delete of the running: %v", err)
		}
		b.c.Kill(b.ctx(), b.id, "", uint32(syscall.SIGKILL), false)
		if e := b.wait(""); e.Status != 137 {
			t.Errorf("exit %+v", e)
		}
	})
}

// A background child of an exec that keeps its streams must not keep the exec.
func TestExecLeavesChild(t *testing.T) {
	each(t, func(t *testing.T, runtime string) {
		b := newBox(t, []string{"sleep", "1000"}, nil)
		b.create(runtime, false)
		b.start("")
		b.exec("bg", false, false, "sh", "-c", "sleep 1000 & echo started")
		a := b.attach("bg", false)
		b.start("bg")
		b.wait("bg")
		if out, _ := output(t, a); out != "started\n" {
			t.Errorf("got %q", out)
		}
	})
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	each(t, func(t *testing.T, runtime string) {
		b := newBox(t, []string{"no-such-program"}, nil)
		_, err := b.c.Create(b.ctx(), shim.CreateRequest{ID: b.id, Bundle: b.bundle, Runtime: runtime, Stdout: b.uri.String()})
		if err == nil {
			_, err = b.c.Start(b.ctx(), b.id, "")
			b.wait("")
			b.c.Delete(b.ctx(), b.id, "")
		} else if _, serr := b.c.State(b.ctx(), b.id, ""); !shim.IsNotFound(serr) {
			t.Errorf("state after a failed create: %v", serr)
		}
		if !shim.IsCommandNotFound(err) {
			t.Errorf("error %v", err)
		}
		if _, err := os.Stat(b.uri.Attach); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the attach socket is left: %v", err)
		}
	})
}

// The shim outlives its client: a new one finds it, and a status that nobody
// was there for.
func TestClientGone(t *testing.T) {
	each(t, func(t *testing.T, runtime string) {
		b := newBox(t, []string{"sh", "-c", "sleep 0.3; echo late; exit 5"}, nil)
		b.create(runtime, false)
		b.start("")
		b.c.Close()
		deadline := time.Now().Add(patience)
		for {
			e, err := shim.ReadExit(b.bundle, b.id)
			if err == nil {
				if e.Status != 5 {
					t.Errorf("on disk: %+v", e)
				}
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if log := b.log(); log != "late\n" {
			t.Errorf("log %q", log)
		}
		var err error
		if b.c, err = shim.Connect(b.ctx(), b.bundle); err != nil {
			t.Fatal(err)
		}
		if e := b.wait(""); e.Status != 5 {
			t.Errorf("exit %+v", e)
		}
	})
}

// A killed shim leaves its container to Cleanup.
func TestShimKilled(t *testing.T) {
	each(t, func(t *testing.T, runtime string) {
		b := newBox(t, []string{"sleep", "1000"}, nil)
		b.create(runtime, false)
		b.start("")
		st, err := b.c.State(b.ctx(), b.id, "")
		if err != nil {
			t.Fatal(err)
		}
		pid, _ := b.c.Pid(b.ctx())
		syscall.Kill(pid, syscall.SIGKILL)
		<-b.c.Done()
		if _, err := b.c.Wait(b.ctx(), b.id, ""); !shim.IsUnavailable(err) {
			t.Errorf("wait: %v", err)
		}
		if _, err := shim.Connect(b.ctx(), b.bundle); !shim.IsNotFound(err) {
			t.Errorf("connect: %v", err)
		}
		if _, err := shim.Cleanup(b.ctx(), shim.Launch{Binary: shimBinary, Namespace: "test", ID: b.id, Bundle: b.bundle}); err != nil {
			t.Errorf("cleanup: %v", err)
		}
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", st.Pid)); err != nil || bytes.Contains(comm, []byte(") Z ")) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the container lives on")
			}
		}
	})
}

// Much output to a slow client arrives whole.
func TestSlowClient(t *testing.T) {
	each(t, func(t *testing.T, runtime string) {
		b := newBox(t, []string{"sleep", "1000"}, nil)
		b.create(runtime, false)
		b.start("")
		b.exec("big", false, false, "seq", "1000000")
		a := b.attach("big", false)
		b.start("big")
		var n int
		for {
			_, p, err := a.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if n < 1<<20 && n%(128<<10) < len(p) {
				time.Sleep(20 * time.Millisecond)
			}
			n += len(p)
		}
		if n != 6888896 {
			t.Errorf("got %d bytes", n)
		}
		if e := b.wait("big"); e.Status != 0 {
			t.Errorf("exit %+v", e)
		}
	})
}
