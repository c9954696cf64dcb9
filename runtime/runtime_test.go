package runtime

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestRun(t *testing.T) {
	w := newWorld(t)
	w.spec.Hostname = "somewhere"
	out := w.must("echo $$ $(cat /proc/sys/kernel/hostname) $(readlink /proc/self/cwd) $HOME")
	want(t, "pid, hostname, directory, home", out, "1 somewhere / /")
	out, code, err := w.run("exit 42")
	if err != nil || code != 42 {
		t.Errorf("exit status %d, %v: %s", code, err, out)
	}
}

// What is started must get nothing of ours: no descriptor, no ignored or blocked signal, no raised limit.
func TestNothingIsInherited(t *testing.T) {
	w := newWorld(t)
	leak, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	unix.FcntlInt(leak.Fd(), unix.F_SETFD, 0) // as if someone had forgotten O_CLOEXEC
	want(t, "descriptors", w.must("ls /proc/self/fd | cat | grep -v '^[3-9]$' ; ls -l /proc/self/fd/3 2>&1 | grep -c '/$'; true"), "0\n1\n2\n0")
	out := w.must("grep -E 'SigBlk|SigIgn|SigCgt' /proc/self/status | cut -f2")
	if strings.Trim(out, "0\n") != "" {
		t.Errorf("signals: %s", out)
	}
	want(t, "umask", w.must("umask"), "0022")
}

func TestLifecycle(t *testing.T) {
	w := newWorld(t)
	before := openFDs(t)
	out := newOutput(t)
	defer out.close()
	w.spec.Process.Args = []string{"/bin/sh", "-c", "echo started; : >/started; exec sleep 1000"}
	w.spec.Annotations = map[string]string{"a": "b"}
	o := w.options("life", out.w)
	o.PidFile = filepath.Join(w.dir, "pid")
	c, err := Create(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	status := func(want Status) {
		t.Helper()
		// Another process would see the same.
		other, err := Load(w.state(), "life")
		if err != nil {
			t.Fatal(err)
		}
		s, err := other.State()
		if err != nil || s.Status != want {
			t.Errorf("status %q, want %q (%v)", s.Status, want, err)
		}
		if s.Annotations["a"] != "b" || s.Bundle != w.bundle || s.Owner != "root" {
			t.Errorf("state %+v", s)
		}
	}
	status(Created)
	if _, err := Create(context.Background(), o); !errors.Is(err, ErrExists) {
		t.Errorf("create twice: %v", err)
	}
	if got, _ := os.ReadFile(o.PidFile); string(got) == "" || c.InitPid() == 0 {
		t.Errorf("pid file %q, pid %d", got, c.InitPid())
	}
	if err := c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	status(Running)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(w.root(), "started")); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it doesn't run")
		}
	}
	if err := c.Start(context.Background()); err == nil {
		t.Error("started twice")
	}
	if err := c.Delete(false); err == nil {
		t.Error("deleted while running")
	}
	if err := c.Pause(); err != nil {
		t.Error(err)
	}
	status(Paused)
	if err := c.Resume(); err != nil {
		t.Error(err)
	}
	status(Running)
	if pids, err := c.Pids(); err != nil || len(pids) != 1 || pids[0] != c.InitPid() {
		t.Errorf("pids %v, %v", pids, err)
	}
	if err := c.Kill(unix.SIGKILL, false); err != nil {
		t.Error(err)
	}
	if code := reap(t, c.InitPid()); code != 137 {
		t.Errorf("exit status %d", code)
	}
	status(Stopped)
	if err := c.Kill(unix.SIGTERM, false); !errors.Is(err, ErrNotRunning) {
		t.Errorf("kill a stopped container: %v", err)
	}
	if err := c.Delete(false); err != nil {
		t.Error(err)
	}
	if _, err := Load(w.state(), "life"); !errors.Is(err, ErrNotFound) {
		t.Errorf("load a deleted container: %v", err)
	}
	out.close()
	want(t, "output", <-out.text, "started")
	if g, err := c.Cgroup(); err != nil || g.Exists() {
		t.Errorf("the cgroup was left: %v", err)
	}
	if after := openFDs(t); after > before+2 {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// The reports of a command that can't be run are what callers tell 127 and 126 by.
func TestCommandErrors(t *testing.T) {
	w := newWorld(t)
	w.file("plain", "no program\n")
	w.file("script", "#!/nowhere\n")
	os.Chmod(filepath.Join(w.root(), "script"), 0o755)
	w.spec.Process.Args = []string{"/bin/sleep", "1000"}
	c := w.start()
	for _, test := range []struct {
		args  []string
		class error
		text  string
	}{
		{[]string{"nosuch"}, ErrCommandNotFound, `exec: "nosuch": executable file not found in $PATH`},
		{[]string{"/nosuch"}, ErrCommandNotFound, `exec: "/nosuch": stat /nosuch: no such file or directory`},
		{[]string{"/bin/true/x"}, ErrCommandNotFound, `not a directory`},
		{[]string{"/plain"}, ErrCommandNotExecutable, `exec: "/plain": permission denied`},
		{[]string{"/bin"}, ErrCommandNotExecutable, `exec: "/bin": is a directory`},
		{[]string{"/script"}, ErrCommandNotFound, `exec /script: no such file or directory`},
	} {
		p := w.process("")
		p.Args = test.args
		_, _, err := w.exec(c, p)
		if !errors.Is(err, test.class) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("exec %q: %v", test.args, err)
		}
		w.spec.Process.Args = test.args
		_, _, err = w.runSpec(func(o *Options) { o.Spec.Linux.CgroupsPath = w.group + "/d" })
		if !errors.Is(err, test.class) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("run %q: %v", test.args, err)
		}
	}
}

func TestExec(t *testing.T) {
	w := newWorld(t)
	w.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:2000:2000::/home/user:/bin/sh\n")
	c := w.start()
	text, code, err := w.exec(c, w.process("echo hello; exit 7"))
	if err != nil || code != 7 {
		t.Fatalf("exit status %d, %v", code, err)
	}
	want(t, "output", text, "hello")
	p := w.process("id -u; id -g; id -G; pwd; echo $HOME; grep -E 'CapEff|NoNewPrivs' /proc/self/status | cut -f2")
	p.User = specs.User{UID: 2000, GID: 100, AdditionalGids: []uint32{5, 6}}
	p.Cwd = "/bin"
	text, _, err = w.exec(c, p)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "identity", text, "2000\n100\n100 5 6\n/bin\n/home/user\n0000000000000000\n1")
	// It is in the container's namespaces and group.
	text, _, err = w.exec(c, w.process("for n in pid mnt net uts ipc cgroup; do readlink /proc/self/ns/$n; readlink /proc/1/ns/$n; done; cat /proc/self/cgroup /proc/1/cgroup"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := 0; i < 12; i += 2 {
		if lines[i] != lines[i+1] {
			t.Errorf("namespaces %s and %s", lines[i], lines[i+1])
		}
	}
	if half := lines[12:]; strings.Join(half[:len(half)/2], "\n") != strings.Join(half[len(half)/2:], "\n") {
		t.Errorf("groups %q", half)
	}
	// No trace of it is left, and a stopped container takes none.
	c.Kill(unix.SIGKILL, true)
	reap(t, c.InitPid())
	if _, _, err := w.exec(c, w.process("true")); !errors.Is(err, ErrNotRunning) {
		t.Errorf("exec in a stopped container: %v", err)
	}
}

// A creation that fails leaves nothing: no directory, no group, no process.
func TestFailedCreateLeavesNothing(t *testing.T) {
	for name, change := range map[string]func(*specs.Spec){
		"mount": func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/nosuch", Options: []string{"bind"}})
		},
		"type": func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "nosuchfs", Source: "x"})
		},
		"command": func(s *specs.Spec) { s.Process.Args = []string{"/nosuch"} },
		"cwd":     func(s *specs.Spec) { s.Process.Cwd = "/bin/true" },
		"rlimit":  func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOSUCH"}} },
		"sysctl":  func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.ipv4.nosuch": "1"} },
		"hook": func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}}
		},
		"root": func(s *specs.Spec) { s.Root.Path = "nosuch" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.spec.Process.Args = []string{"/bin/true"}
			change(w.spec)
			c, err := Create(context.Background(), w.options("bad", nil))
			if err == nil {
				t.Fatal("no error")
			}
			t.Log(err)
			if c != nil {
				t.Error("a container comes with the error")
			}
			if list, _ := os.ReadDir(w.state()); len(list) > 0 {
				t.Errorf("state left: %v", list)
			}
			for _, h := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/devices", "/sys/fs/cgroup/systemd"} {
				if _, err := os.Stat(filepath.Join(h, w.group, "c")); err == nil {
					t.Errorf("cgroup left in %s", h)
				}
			}
		})
	}
}

// runc's rule for a group in use: two containers in one group would end together.
func TestCgroupInUse(t *testing.T) {
	w := newWorld(t)
	c := w.start()
	o := w.options("second", nil)
	if _, err := Create(context.Background(), o); err == nil || !strings.Contains(err.Error(), "cgroup is not empty") {
		t.Errorf("second container in the group: %v", err)
	}
	if s, err := c.Status(); err != nil || s != Running {
		t.Errorf("the first is %s (%v)", s, err)
	}
}

// A creator that is killed leaves a container that can be found and deleted.
func TestDeleteHalfMade(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(w.state(), "half")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := Load(w.state(), "half")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}

func TestCancelledCreate(t *testing.T) {
	w := newWorld(t)
	w.spec.Process.Args = []string{"/bin/true"}
	w.spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/busybox", Args: []string{"sleep", "1"}}}}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := Create(ctx, w.options("slow", nil)); err == nil {
		t.Error("no error")
	}
	if list, _ := os.ReadDir(w.state()); len(list) > 0 {
		t.Errorf("state left: %v", list)
	}
}

// Pids are reused: what is remembered must not be taken for what has the number now.
func TestReusedPid(t *testing.T) {
	w := newWorld(t)
	c := w.start()
	other, err := Load(w.state(), c.ID())
	if err != nil {
		t.Fatal(err)
	}
	other.rec.Pid, other.rec.PidStart = os.Getpid(), 1
	if err := other.Kill(unix.SIGKILL, false); !errors.Is(err, ErrNotRunning) {
		t.Errorf("kill: %v", err)
	}
	if s, _ := other.Status(); s != Stopped {
		t.Errorf("status %s", s)
	}
}

func TestIDs(t *testing.T) {
	for _, id := range []string{"", ".", "..", "a/b", "../x", "a b", "a\x00", strings.Repeat("x", 1025), "ä"} {
		if _, err := Load("/nosuch", id); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if _, err := Load("/nosuch", "good-1_2.3+4"); !errors.Is(err, ErrNotFound) {
		t.Errorf("good name: %v", err)
	}
}

// A created container's first process ends by the signals that end others, although it is the first of its pid
// namespace and has no handlers: as runc's does.
func TestSignalBeforeStart(t *testing.T) {
	w := newWorld(t)
	w.spec.Process.Args = []string{"/bin/true"}
	c, err := Create(context.Background(), w.options("early", nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(unix.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	if code := reap(t, c.InitPid()); code != 143 {
		t.Errorf("exit status %d", code)
	}
	if err := c.Start(context.Background()); err == nil {
		t.Error("started a dead container")
	}
}

// Who found a container before it was deleted and another was made in its place does not delete that one for it.
func TestDeleteOfAnother(t *testing.T) {
	w := newWorld(t)
	c := w.start()
	old, err := Load(w.state(), c.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(true); err != nil {
		t.Fatal(err)
	}
	c = w.start(func(o *Options) { o.ID = c.ID() })
	if err := old.Delete(false); err == nil {
		t.Error("a running container was deleted")
	}
	if status, err := c.Status(); err != nil || status != Running {
		t.Errorf("%s, %v", status, err)
	}
	if err := c.Delete(true); err != nil {
		t.Error(err)
	}
}

// A start that waits for a process which can't answer keeps nobody from deleting the container.
func TestDeleteDuringStart(t *testing.T) {
	w := newWorld(t)
	out := newOutput(t)
	defer out.close()
	c, err := Create(context.Background(), w.options("stopped", out.w))
	if err != nil {
		t.Fatal(err)
	}
	defer reap(t, c.InitPid())
	if err := unix.Kill(c.InitPid(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	started := make(chan error, 1)
	go func() { started <- c.Start(context.Background()) }()
	time.Sleep(200 * time.Millisecond)
	other, err := Load(w.state(), "stopped")
	if err != nil {
		t.Fatal(err)
	}
	deleted := make(chan error, 1)
	go func() { deleted <- other.Delete(true) }()
	for _, ended := range []chan error{started, deleted} {
		select {
		case err := <-ended:
			if ended == deleted && err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			unix.Kill(c.InitPid(), unix.SIGKILL)
			t.Fatal("it hangs")
		}
	}
}
