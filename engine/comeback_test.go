package engine

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cale/network"
	"cale/test/stack"
)

// https://github.com/moby/moby/issues/36145, 41817, 45788
func TestEngineComesBack(t *testing.T) {
	b := newBench(t)
	running := b.start(sh("echo one; while [ ! -e /go ]; do sleep 0.05; done; echo two; exit 9"))
	ending := b.start(sh("sleep 0.5; exit 6"))
	b.until("output", func() bool { return strings.Contains(b.logs(running, LogOptions{}), "one") })
	auto := sh("sleep 0.5")
	auto.AutoRemove = true
	removed := b.start(auto)
	half := filepath.Join(b.conf.Root, "containers", "half")
	os.Mkdir(half, 0o700)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	b.open()
	if i := b.inspect(running); i.State.Status != Running || i.State.Pid == 0 {
		t.Errorf("running: %+v", i.State)
	}
	if i := b.inspect(ending); i.State.Status != Exited || i.State.ExitCode != 6 {
		t.Errorf("ended meanwhile: %+v", i.State)
	}
	if _, err := b.Inspect(ctx, removed, false); !errors.Is(err, ErrNotFound) {
		t.Errorf("ended with AutoRemove meanwhile: %v", err)
	}
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half made: %v", err)
	}
	exit, err := b.Wait(ctx, running, "")
	if err != nil {
		t.Fatal(err)
	}
	b.exec(running, ExecSpec{Cmd: []string{"touch", "/go"}})
	if r := <-exit; r.ExitCode != 9 {
		t.Errorf("result %+v", r)
	}
	if out := b.logs(running, LogOptions{}); out != "one\ntwo\n" {
		t.Errorf("logs %q", out)
	}
	if err := b.Start(ctx, ending, StartOptions{}); err != nil {
		t.Errorf("start after it all: %v", err)
	}
}

// What runs does so whatever has become of the runtimes' settings meanwhile.
func TestComesBackWithBrokenSettings(t *testing.T) {
	b := newBench(t)
	b.conf.ConfigDir = t.TempDir()
	id := b.start(sh("exec sleep 1000"))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.conf.ConfigDir, "runtimes.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.open()
	if i := b.inspect(id); i.State.Status != Running || i.State.Pid == 0 {
		t.Errorf("after it: %+v", i.State)
	}
}

// Another shim behind one that died, and that nobody can take over from, is not left alone.
func TestShimBehindDeadOne(t *testing.T) {
	if _, err := exec.LookPath("containerd-shim-runc-v2"); err != nil {
		t.Skip(err)
	}
	b := newBench(t)
	s := sh("exec sleep 1000")
	s.Runtime, s.TTY = "io.containerd.runc.v2", true
	id := b.start(s)
	c, err := b.find(id)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := c.run.shim.Pid(ctx)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := b.Wait(ctx, id, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-exit
	b.until("the other shim's end", func() bool {
		out, _ := exec.Command("pgrep", "-f", "containerd-shim-runc-v2.*"+id).Output()
		return len(out) == 0
	})
}

// A shim that is killed together with the keeper takes its container along; nothing of it may stay.
func TestShimAndKeeperKilled(t *testing.T) {
	b := newBench(t)
	id := b.start(sh("exec sleep 1000"))
	c, err := b.find(id)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := c.run.shim.Pid(ctx)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := b.Wait(ctx, id, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil { // it can't tell the next keeper what it has
		t.Fatal(err)
	}
	stack.Kill(t, stack.Keeper(t, b.conf.Run))
	stack.Kill(t, pid)
	select {
	case r := <-exit:
		if r.ExitCode != 137 {
			t.Errorf("result %+v", r)
		}
	case <-time.After(patience):
		t.Fatal("the end was not noticed")
	}
	if err := b.Start(ctx, id, StartOptions{}); err != nil {
		t.Errorf("start again: %v", err)
	}
}

// What an engine left behind that was killed in the middle of a start.
func TestLeftovers(t *testing.T) {
	b := newBench(t)
	id := b.create(sh("true"))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{id, strings.Repeat("ab", 32)} {
		pod := filepath.Join(b.conf.Run, "pods", name)
		if err := os.Mkdir(pod, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := network.NewNamespace(filepath.Join(pod, "net")); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(pod, "config.json"), []byte("{"), 0o600)
	}
	os.Mkdir(filepath.Join(b.conf.Root, "volumes", ".new-x"), 0o700)
	b.open()
	if pods, _ := os.ReadDir(filepath.Join(b.conf.Run, "pods")); len(pods) != 0 {
		t.Errorf("pods left: %v", pods)
	}
	if i := b.inspect(id); i.State.Status != Created {
		t.Errorf("state %+v", i.State)
	}
	if err := b.Start(ctx, id, StartOptions{}); err != nil {
		t.Errorf("start: %v", err)
	}
}

// After a reboot there is nothing below Run.
func TestReboot(t *testing.T) {
	b := newBench(t)
	s := sh("exec sleep 1000")
	s.Name, s.Restart.Name = "always", "always"
	b.start(s)
	s.Name, s.Restart.Name, s.AutoRemove = "auto", "", true
	b.start(s)
	s.Name, s.AutoRemove = "plain", false
	b.start(s)
	s.Name, s.Restart.Name = "stopped", "unless-stopped"
	b.start(s)
	zero := 0
	if err := b.Stop(ctx, "stopped", StopOptions{Timeout: &zero}); err != nil {
		t.Fatal(err)
	}
	// The records as the disk has them while all that runs.
	old := filepath.Join(b.dir, "old")
	if out, err := exec.Command("cp", "-a", filepath.Join(b.conf.Root, "containers"), old).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for _, c := range b.List(ctx, false) {
		if err := b.Remove(ctx, c.ID, RemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(b.conf.Run)
	os.Remove(filepath.Join(b.conf.Root, "containers"))
	os.Rename(old, filepath.Join(b.conf.Root, "containers"))
	b.open()
	b.until("the restart", func() bool { return b.inspect("always").State.Status == Running })
	if _, err := b.Inspect(ctx, "auto", false); !errors.Is(err, ErrNotFound) {
		t.Errorf("auto: %v", err)
	}
	if i := b.inspect("plain"); i.State.Status != Exited || i.State.ExitCode != 255 {
		t.Errorf("plain: %+v", i.State)
	}
	if i := b.inspect("stopped"); i.State.Status != Exited {
		t.Errorf("stopped: %+v", i.State)
	}
}
