package runtime

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cale/runtime/cgroup"
	"cale/runtime/spec"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what should come at once; the machine may be busy.
const patience = 30 * time.Second

// world is a place for containers that leaves nothing behind: a state directory, a bundle, a group.
type world struct {
	t      testing.TB
	dir    string
	bundle string
	group  string
	spec   *specs.Spec
}

// newWorld needs root and a static busybox.
func newWorld(t testing.TB) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs a static /bin/busybox (Debian: busybox-static)")
	}
	dir, err := os.MkdirTemp("/dev/shm", "cale-runtime-")
	if err != nil {
		t.Fatal(err)
	}
	// Containers with a user namespace of their own walk through here.
	os.Chmod(dir, 0o755)
	w := &world{t: t, dir: dir, bundle: filepath.Join(dir, "bundle"), group: "/cale-test-" + random()}
	t.Cleanup(w.cleanup)
	bin := filepath.Join(w.root(), "bin")
	// As images have them: root of a user namespace couldn't make them here.
	for _, d := range []string{bin, filepath.Join(w.root(), "proc"), filepath.Join(w.root(), "sys"), filepath.Join(w.root(), "data")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(bin, "busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, a := range strings.Fields("sh true false echo cat ls id stat mount sleep pwd env grep readlink touch mkdir kill tty dd cut") {
		if err := os.Link(filepath.Join(bin, "busybox"), filepath.Join(bin, a)); err != nil {
			t.Fatal(err)
		}
	}
	s := spec.Default()
	s.Process.Terminal = false
	s.Root.Readonly = false
	s.Linux.CgroupsPath = w.group + "/c"
	s.Process.Rlimits = nil
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_MKNOD", "CAP_SYS_ADMIN"}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	w.spec = s
	return w
}

func random() string {
	var b [5]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func (w *world) root() string  { return filepath.Join(w.bundle, "rootfs") }
func (w *world) state() string { return filepath.Join(w.dir, "state") }

func (w *world) cleanup() {
	if list, err := os.ReadDir(w.state()); err == nil {
		for _, e := range list {
			if c, err := Load(w.state(), e.Name()); err == nil {
				if err := c.Delete(true); err != nil {
					w.t.Errorf("delete %s: %v", e.Name(), err)
				}
			}
		}
	}
	if g, err := cgroup.Open(w.group, cgroup.Options{Parent: true}); err == nil && g.Exists() {
		if err := g.Destroy(); err != nil {
			w.t.Errorf("remove the tests' cgroup: %v", err)
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if bytes.Contains(mounts, []byte(w.dir)) {
		w.t.Errorf("a mount was left below %s", w.dir)
		return
	}
	if err := os.RemoveAll(w.dir); err != nil {
		w.t.Error(err)
	}
}

// options are those of a container whose output goes to out.
func (w *world) options(id string, out *os.File) Options {
	return Options{ID: id, Bundle: w.bundle, StateDir: w.state(), Spec: w.spec, Stdout: out, Stderr: out,
		Warn: func(s string) { w.t.Log("warning: " + s) }}
}

// output is a pipe whose text is collected.
type output struct {
	w    *os.File
	text chan string
	once sync.Once
}

func newOutput(t testing.TB) *output {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	o := &output{w: w, text: make(chan string, 1)}
	go func() {
		b, _ := io.ReadAll(r)
		r.Close()
		o.text <- string(b)
	}()
	return o
}

func (o *output) close() { o.once.Do(func() { o.w.Close() }) }

// run runs a shell script in a container of the world's spec and returns what it printed and its status.
func (w *world) run(script string, change ...func(*Options)) (string, int, error) {
	w.t.Helper()
	w.spec.Process.Args = []string{"/bin/sh", "-c", script}
	return w.runSpec(change...)
}

func (w *world) runSpec(change ...func(*Options)) (string, int, error) {
	w.t.Helper()
	out := newOutput(w.t)
	defer out.close()
	o := w.options("c"+random(), out.w)
	for _, f := range change {
		f(&o)
	}
	c, err := Run(context.Background(), o)
	out.close()
	if err != nil {
		return <-out.text, -1, err
	}
	code := reap(w.t, c.InitPid())
	text := <-out.text
	if err := c.Delete(false); err != nil {
		w.t.Errorf("delete: %v", err)
	}
	return text, code, nil
}

// must is run that must succeed.
func (w *world) must(script string, change ...func(*Options)) string {
	w.t.Helper()
	text, code, err := w.run(script, change...)
	if err != nil {
		w.t.Fatalf("%s: %v", script, err)
	}
	if code != 0 {
		w.t.Fatalf("%s: exit status %d: %s", script, code, text)
	}
	return text
}

// reap waits for a child.
func reap(t testing.TB, pid int) int {
	t.Helper()
	type result struct {
		ws  unix.WaitStatus
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		for {
			_, r.err = unix.Wait4(pid, &r.ws, 0, nil)
			if r.err != unix.EINTR {
				break
			}
		}
		done <- r
	}()
	select {
	case r := <-done:
		if r.err != nil {
			t.Fatalf("wait for %d: %v", pid, r.err)
		}
		if r.ws.Signaled() {
			return 128 + int(r.ws.Signal())
		}
		return r.ws.ExitStatus()
	case <-time.After(patience):
		unix.Kill(pid, unix.SIGKILL)
		t.Fatalf("process %d did not end", pid)
		return -1
	}
}

// exec runs a script in a container and returns what it printed and its status.
func (w *world) exec(c *Container, ps *specs.Process) (string, int, error) {
	w.t.Helper()
	out := newOutput(w.t)
	defer out.close()
	p, err := c.Exec(context.Background(), ExecOptions{Process: ps, Stdout: out.w, Stderr: out.w})
	out.close()
	if err != nil {
		return "", -1, err
	}
	defer p.PidFD.Close()
	code := reap(w.t, p.Pid)
	return <-out.text, code, nil
}

// process is the world's process with another script.
func (w *world) process(script string) *specs.Process {
	var p specs.Process
	raw, _ := json.Marshal(w.spec.Process)
	json.Unmarshal(raw, &p)
	p.Args = []string{"/bin/sh", "-c", script}
	return &p
}

// start creates and starts a container that sleeps.
func (w *world) start(change ...func(*Options)) *Container {
	w.t.Helper()
	w.spec.Process.Args = []string{"/bin/sleep", "1000"}
	o := w.options("c"+random(), nil)
	for _, f := range change {
		f(&o)
	}
	c, err := Create(context.Background(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := c.Start(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	pid := c.InitPid()
	w.t.Cleanup(func() {
		unix.Kill(pid, unix.SIGKILL)
		var ws unix.WaitStatus
		unix.Wait4(pid, &ws, 0, nil)
	})
	return c
}

// file writes a file of the container's root.
func (w *world) file(name, text string) {
	w.t.Helper()
	p := filepath.Join(w.root(), name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// link makes a symbolic link in the container's root.
func (w *world) link(target, name string) {
	w.t.Helper()
	p := filepath.Join(w.root(), name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Symlink(target, p); err != nil {
		w.t.Fatal(err)
	}
}

// hostDir makes a directory of the host with a file in it.
func (w *world) hostDir(name, file, text string) string {
	w.t.Helper()
	d := filepath.Join(w.dir, name)
	if err := os.MkdirAll(d, 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d, file), []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w *world) mount(dest, typ, src string, options ...string) {
	w.spec.Mounts = append(w.spec.Mounts, specs.Mount{Destination: dest, Type: typ, Source: src, Options: options})
}

func want(t *testing.T, what, got, expected string) {
	t.Helper()
	if strings.TrimSpace(got) != expected {
		t.Errorf("%s: got %q, want %q", what, got, expected)
	}
}

func openFDs(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
