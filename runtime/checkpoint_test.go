package runtime

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cale/runtime/criu"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// needCRIU skips where CRIU isn't, or says itself that it can't do anything on this kernel.
func needCRIU(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("criu"); err != nil {
		t.Skip("needs criu")
	}
	if out, err := exec.Command("criu", "check").CombinedOutput(); err != nil {
		t.Skipf("criu can't work here: %s", strings.TrimSpace(string(out)))
	}
}

// talk is a container that evaluates lines from its stdin.
type talk struct {
	t    *testing.T
	in   *os.File
	from *bufio.Reader
	ours []*os.File
}

// newTalk makes streams for a container; its ends are closed by begun.
func newTalk(t *testing.T, o *Options) *talk {
	t.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	o.Stdin, o.Stdout, o.Stderr = inR, outW, outW
	t.Cleanup(func() { inW.Close(); outR.Close() })
	return &talk{t: t, in: inW, from: bufio.NewReader(outR), ours: []*os.File{inR, outW}}
}

func (k *talk) begun() { closeAll(k.ours) }

// ask has a line evaluated and returns the line it prints.
func (k *talk) ask(line string) string {
	k.t.Helper()
	if _, err := fmt.Fprintln(k.in, line); err != nil {
		k.t.Fatal(err)
	}
	text := make(chan string, 1)
	go func() {
		s, _ := k.from.ReadString('\n')
		text <- strings.TrimSpace(s)
	}()
	select {
	case s := <-text:
		return s
	case <-time.After(patience):
		k.t.Fatalf("no answer to %q", line)
		return ""
	}
}

// reapLater reaps a child when it has ended, which the end of the test sees to.
func reapLater(t *testing.T, pid int) {
	t.Cleanup(func() {
		unix.Kill(pid, unix.SIGKILL)
		var ws unix.WaitStatus
		unix.Wait4(pid, &ws, 0, nil)
	})
}

// A container goes on where it was: variables, pipes (which are new ones), what is in tmpfs and bound from outside,
// limits, the seccomp filter, masked paths. And again, after it was restored.
func TestCheckpointRestore(t *testing.T) {
	w := newWorld(t)
	needCRIU(t)
	w.mount("/bound/deep", "bind", w.hostDir("outside", "f", "from outside\n"), "bind", "ro")
	w.mount("/scratch", "tmpfs", "tmpfs", "mode=755")
	w.spec.Linux.MaskedPaths = []string{"/proc/kcore", "/proc/acpi", "/data"}
	w.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"sethostname"}, Action: specs.ActErrno}, {Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno}}}
	limit := int64(64 << 20)
	w.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	w.spec.Process.Args = []string{"/bin/sh", "-c", "n=0; while read x; do n=$((n+1)); eval \"$x\"; done"}
	upper, work := filepath.Join(w.dir, "upper"), filepath.Join(w.dir, "work")
	for _, d := range []string{upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root := []Mount{{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + w.root(), "upperdir=" + upper, "workdir=" + work}}}

	o := w.options("first", nil)
	o.Rootfs = root
	k := newTalk(t, &o)
	c, err := Run(context.Background(), o)
	k.begun()
	if err != nil {
		t.Fatal(err)
	}
	reapLater(t, c.InitPid())
	want(t, "before", k.ask("echo kept >/scratch/f; echo $n"), "1")
	fds := openFDs(t)
	for i := range 2 {
		image := filepath.Join(w.dir, fmt.Sprint("image", i))
		if err := c.Checkpoint(context.Background(), CheckpointOptions{ImagePath: image}); err != nil {
			t.Fatal(err)
		}
		if err := c.Delete(true); err != nil {
			t.Fatal(err)
		}
		o := w.options(fmt.Sprint("restored", i), nil)
		o.Rootfs = root
		k = newTalk(t, &o)
		c, err = Restore(context.Background(), o, CheckpointOptions{ImagePath: image})
		k.begun()
		if err != nil {
			t.Fatal(err)
		}
		reapLater(t, c.InitPid())
		want(t, "counted", k.ask("echo $n"), fmt.Sprint(2+5*i))
		want(t, "tmpfs", k.ask("cat /scratch/f"), "kept")
		want(t, "bound", k.ask("cat /bound/deep/f"), "from outside")
		want(t, "filter", k.ask("mkdir /scratch/x 2>/dev/null; echo $?"), "1")
		want(t, "masked", k.ask("echo /data/*"), "/data/*")
		if g, err := c.Cgroup(); err != nil {
			t.Error(err)
		} else if pids, err := g.Pids(); err != nil || !slices.Contains(pids, c.InitPid()) {
			t.Errorf("the group has %v (%v), init is %d", pids, err, c.InitPid())
		}
		if st, err := c.Status(); err != nil || st != Running {
			t.Errorf("status %s, %v", st, err)
		}
		if text, code, err := w.exec(c, w.process("cat /scratch/f; readlink /proc/1/fd/2 | cut -d: -f1")); err != nil || code != 0 || text != "kept\npipe\n" {
			t.Errorf("exec: %q, %d, %v", text, code, err)
		}
	}
	k.in.Close()
	want(t, "exit status", fmt.Sprint(reap(t, c.InitPid())), "0")
	if n := openFDs(t); n > fds+4 { // the last container's pidfd, and the test's pipes
		t.Errorf("%d descriptors, %d before", n, fds)
	}
}

// Hazard class T (CVE-2024-8676, CVE-2026-50195): a checkpoint says nothing about what of the host a container gets.
// One that had a directory of the host isn't given it, nor another in its place, when the configuration has none.
func TestRestoreTakesNoMountFromCheckpoint(t *testing.T) {
	w := newWorld(t)
	needCRIU(t)
	mounts := w.spec.Mounts
	w.mount("/bound", "bind", w.hostDir("outside", "f", "the host's"), "bind")
	c := w.start()
	image := filepath.Join(w.dir, "image")
	if err := c.Checkpoint(context.Background(), CheckpointOptions{ImagePath: image}); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(true); err != nil {
		t.Fatal(err)
	}
	w.spec.Mounts = mounts
	r, err := Restore(context.Background(), w.options("restored", nil), CheckpointOptions{ImagePath: image})
	if err == nil {
		reapLater(t, r.InitPid())
		t.Fatal("restored with a mount that the configuration doesn't have")
	}
	if !strings.Contains(err.Error(), "criu failed") {
		t.Error(err)
	}
	if _, err := Load(w.state(), "restored"); !errors.Is(err, ErrNotFound) {
		t.Errorf("left after a failure: %v", err)
	}
}

func TestCheckpointLeaveRunning(t *testing.T) {
	w := newWorld(t)
	needCRIU(t)
	c := w.start()
	image := filepath.Join(w.dir, "image")
	if err := c.Checkpoint(context.Background(), CheckpointOptions{ImagePath: image, LeaveRunning: true}); err != nil {
		t.Fatal(err)
	}
	if st, err := c.Status(); err != nil || st != Running {
		t.Errorf("status %s, %v", st, err)
	}
}

func TestCheckpointErrors(t *testing.T) {
	w := newWorld(t)
	c := w.start()
	image := CheckpointOptions{ImagePath: filepath.Join(w.dir, "image")}
	t.Setenv("PATH", t.TempDir())
	if err := c.Checkpoint(context.Background(), image); !errors.Is(err, criu.ErrNotInstalled) {
		t.Errorf("without criu: %v", err)
	}
	if st, err := c.Status(); err != nil || st != Running {
		t.Errorf("status %s, %v", st, err)
	}
	if _, err := Restore(context.Background(), w.options("restored", nil), image); !errors.Is(err, criu.ErrNotInstalled) {
		t.Errorf("restore without criu: %v", err)
	}
	if _, err := Load(w.state(), "restored"); !errors.Is(err, ErrNotFound) {
		t.Errorf("left after a failure: %v", err)
	}
}

func TestCheckpointRefusals(t *testing.T) {
	w := newWorld(t)
	needCRIU(t)
	c := w.start()
	image := CheckpointOptions{ImagePath: filepath.Join(w.dir, "image")}
	image.CgroupsMode = "sideways"
	if err := c.Checkpoint(context.Background(), image); err == nil || !strings.Contains(err.Error(), "sideways") {
		t.Errorf("unknown mode: %v", err)
	}
	w.spec.Linux.CgroupsPath = w.group + "/created"
	o := w.options("created", nil)
	created, err := Create(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	reapLater(t, created.InitPid())
	if err := created.Checkpoint(context.Background(), image); err == nil || err.Error() != "container cannot be checkpointed in created state" {
		t.Errorf("not started: %v", err)
	}
}
