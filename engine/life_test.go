package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var ctx = context.Background()

// start creates and starts a container.
func (b *bench) start(s Spec) string {
	b.t.Helper()
	id := b.create(s)
	if err := b.Start(ctx, id, StartOptions{}); err != nil {
		b.t.Fatalf("start: %v", err)
	}
	return id
}

// until waits for a condition.
func (b *bench) until(what string, cond func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("in vain waited for %s", what)
		}
	}
}

func (b *bench) inspect(id string) Info {
	b.t.Helper()
	i, err := b.Inspect(ctx, id, false)
	if err != nil {
		b.t.Fatalf("inspect: %v", err)
	}
	return i
}

func (b *bench) logs(id string, o LogOptions) string {
	b.t.Helper()
	o.Stdout, o.Stderr, o.Tail = true, true, -1
	s, _, err := b.Logs(ctx, id, o)
	if err != nil {
		b.t.Fatalf("logs: %v", err)
	}
	defer s.Close()
	var out bytes.Buffer
	for {
		e, err := s.Next()
		if err == io.EOF {
			return out.String()
		}
		if err != nil {
			b.t.Fatalf("logs: %v", err)
		}
		out.Write(e.Line)
	}
}

func TestStopAndKill(t *testing.T) {
	b := newBench(t)
	id := b.start(sh("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done"))
	b.until("the trap", func() bool { return strings.Contains(b.logs(id, LogOptions{}), "up") })
	if err := b.Stop(ctx, id, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if i := b.inspect(id); i.State.Status != Exited || i.State.ExitCode != 7 {
		t.Errorf("state %+v", i.State)
	}
	if out := b.logs(id, LogOptions{}); !strings.Contains(out, "bye") {
		t.Errorf("logs %q", out)
	}
	if err := b.Stop(ctx, id, StopOptions{}); !errors.Is(err, ErrNotModified) {
		t.Errorf("second stop: %v", err)
	}
	id = b.start(sh("trap '' TERM; echo up; while :; do sleep 0.1; done"))
	b.until("the trap", func() bool { return strings.Contains(b.logs(id, LogOptions{}), "up") })
	zero := 0
	if err := b.Stop(ctx, id, StopOptions{Timeout: &zero}); err != nil {
		t.Fatal(err)
	}
	if i := b.inspect(id); i.State.ExitCode != 137 {
		t.Errorf("state %+v", i.State)
	}
	id = b.start(sh("exec sleep 1000"))
	if err := b.Kill(ctx, id, "KILL"); err != nil {
		t.Fatal(err)
	}
	if i := b.inspect(id); i.State.Status != Exited || i.State.ExitCode != 137 {
		t.Errorf("state %+v", i.State)
	}
	if err := b.Kill(ctx, id, ""); !errors.Is(err, ErrConflict) {
		t.Errorf("kill of a stopped one: %v", err)
	}
}

// https://github.com/moby/moby/issues/45731
func TestStopGoesOnWithoutItsClient(t *testing.T) {
	b := newBench(t)
	id := b.start(sh("trap '' TERM; echo up; while :; do sleep 0.1; done"))
	b.until("the trap", func() bool { return strings.Contains(b.logs(id, LogOptions{}), "up") })
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	two := 2
	began := time.Now()
	if err := b.Stop(short, id, StopOptions{Timeout: &two}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("stop: %v", err)
	}
	if i := b.inspect(id); i.State.Status != Running {
		t.Fatalf("state %+v", i.State)
	}
	b.until("the kill", func() bool { return b.inspect(id).State.Status == Exited })
	if took := time.Since(began); took < 1900*time.Millisecond {
		t.Errorf("killed after %s", took)
	}
}

func TestExec(t *testing.T) {
	b := newBench(t)
	id := b.start(sh("exec sleep 1000"))
	out, code := b.exec(id, ExecSpec{Cmd: []string{"sh", "-c", "echo out; echo err >&2; id -u; pwd; exit 4"}, User: "user", WorkingDir: "/tmp"})
	// Two streams: either may come first.
	for _, line := range []string{"out\n", "err\n", "1000\n", "/tmp\n"} {
		if !strings.Contains(out, line) {
			t.Errorf("no %q in %q", line, out)
		}
	}
	if code != 4 {
		t.Errorf("code %d", code)
	}
	xid, err := b.ExecCreate(ctx, id, ExecSpec{Cmd: []string{"nothere"}, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.ExecStart(ctx, xid, ExecStartOptions{}); err == nil || !strings.Contains(err.Error(), "executable file not found in $PATH") {
		t.Errorf("missing command: %v", err)
	}
	if i, err := b.ExecInspect(ctx, xid); err != nil || i.ExitCode == nil || *i.ExitCode != 127 {
		t.Errorf("inspect %+v, %v", i, err)
	}
	if _, err := b.ExecCreate(ctx, "nothere", ExecSpec{Cmd: []string{"x"}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("exec in nothing: %v", err)
	}
}

// https://github.com/moby/moby/issues/37870
func TestStdinEnds(t *testing.T) {
	b := newBench(t)
	id := b.start(sh("exec sleep 1000"))
	for range 10 {
		xid, err := b.ExecCreate(ctx, id, ExecSpec{Cmd: []string{"cat"}, Stdin: true, Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		st, err := b.ExecStart(ctx, xid, ExecStartOptions{})
		if err != nil {
			t.Fatal(err)
		}
		st.Write([]byte("hello"))
		st.CloseWrite()
		if got := readFrames(st); got != "hello" {
			t.Errorf("echo %q", got)
		}
		st.Close()
	}
	s := Spec{Cmd: []string{"cat"}, OpenStdin: true, StdinOnce: true, Network: Network{Mode: "none"}}
	id = b.create(s)
	st, err := b.Attach(ctx, id, AttachOptions{Stdin: true, Stdout: true, Stderr: true, Stream: true})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := b.Start(ctx, id, StartOptions{}); err != nil {
		t.Fatal(err)
	}
	st.Write([]byte("to the container"))
	st.CloseWrite()
	if got := readFrames(st); got != "to the container" {
		t.Errorf("echo %q", got)
	}
}

func TestTerminal(t *testing.T) {
	b := newBench(t)
	s := sh("stty size; tty; echo $TERM")
	s.TTY, s.ConsoleSize = true, [2]uint{33, 99}
	out, code := b.run(s)
	if code != 0 || !strings.Contains(out, "33 99\r\n") || !strings.Contains(out, "/dev/pts/0\r\n") || !strings.Contains(out, "xterm\r\n") {
		t.Errorf("output %q, code %d", out, code)
	}
}

func TestNames(t *testing.T) {
	b := newBench(t)
	s := sh("true")
	s.Name = "one"
	id := b.create(s)
	want := `Conflict. The container name "/one" is already in use by container "` + id + `". You have to remove (or rename) that container to be able to reuse that name.`
	if _, _, err := b.Create(ctx, Spec{Image: "busybox", Name: "one", Cmd: []string{"true"}}); !errors.Is(err, ErrConflict) || err.Error() != want {
		t.Errorf("same name: %v", err)
	}
	if err := b.Rename(ctx, "one", "two"); err != nil {
		t.Fatal(err)
	}
	if i := b.inspect("two"); i.ID != id || i.Name != "two" {
		t.Errorf("renamed: %+v", i)
	}
	if i := b.inspect(id[:10]); i.ID != id {
		t.Errorf("by prefix: %+v", i)
	}
	if _, err := b.find("one"); !errors.Is(err, ErrNotFound) {
		t.Errorf("old name: %v", err)
	}
}

func TestAutoRemove(t *testing.T) {
	b := newBench(t)
	s := sh("exit 5")
	s.AutoRemove = true
	s.AnonymousVolumes = []string{"/data"}
	id := b.create(s)
	gone, err := b.Wait(ctx, id, "removed")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(ctx, id, StartOptions{}); err != nil {
		t.Fatal(err)
	}
	if r := <-gone; r.ExitCode != 5 {
		t.Errorf("result %+v", r)
	}
	if _, err := b.Inspect(ctx, id, false); !errors.Is(err, ErrNotFound) {
		t.Errorf("inspect: %v", err)
	}
	if v, _ := b.Volumes(ctx); len(v) != 0 {
		t.Errorf("volumes left: %v", v)
	}
}

func TestRestartPolicy(t *testing.T) {
	b := newBench(t)
	s := sh("exit 1")
	s.Restart = Restart{Name: "on-failure", Retries: 2}
	id := b.start(s)
	b.until("two restarts", func() bool { i := b.inspect(id); return i.Restarts == 2 && i.State.Status == Exited })
	s = sh("sleep 0.1")
	s.Restart = Restart{Name: "always"}
	id = b.start(s)
	b.until("a restart", func() bool { return b.inspect(id).Restarts >= 1 })
	if err := b.Stop(ctx, id, StopOptions{}); err != nil && !errors.Is(err, ErrNotModified) {
		t.Fatal(err)
	}
	b.until("the stop", func() bool { return b.inspect(id).State.Status == Exited })
	time.Sleep(300 * time.Millisecond)
	if i := b.inspect(id); i.State.Status != Exited {
		t.Errorf("it came back: %+v", i.State)
	}
}

func TestVolumes(t *testing.T) {
	b := newBench(t)
	host := filepath.Join(b.dir, "host")
	s := sh("echo kept > /v/file; cat /etc-copy/passwd | head -1; cat /b/in; ls /t; touch /ro/x; mount | grep ' /t '")
	os.Mkdir(host, 0o755)
	os.WriteFile(filepath.Join(host, "in"), []byte("from the host\n"), 0o644)
	s.Mounts = []Mount{{Type: "volume", Source: "named", Target: "/v"}, {Type: "volume", Source: "etc", Target: "/etc-copy"},
		{Type: "bind", Source: host, Target: "/b"}, {Type: "bind", Source: host, Target: "/ro", ReadOnly: true}}
	s.Tmpfs = map[string]string{"/t": "size=1m"}
	s.Mounts[1].Target = "/etc"
	s.Cmd[2] = strings.Replace(s.Cmd[2], "/etc-copy", "/etc", 1)
	out, _ := b.run(s)
	for _, want := range []string{"root:x:0:0", "from the host", "Read-only file system", "tmpfs on /t"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %q", want, out)
		}
	}
	v, err := b.Volume(ctx, "named")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(v.Mountpoint, "file")); string(got) != "kept\n" {
		t.Errorf("volume: %q, %v", got, err)
	}
	if err := b.VolumeRemove(ctx, "named", false); !errors.Is(err, ErrConflict) {
		t.Errorf("remove of a used volume: %v", err)
	}
	if v, err := b.Volume(ctx, "etc"); err != nil {
		t.Error(err)
	} else if _, err := os.Stat(filepath.Join(v.Mountpoint, "group")); err != nil {
		t.Errorf("the volume was not filled from the image: %v", err)
	}
}

func TestCopy(t *testing.T) {
	b := newBench(t)
	s := sh("rm /etc/shadow; echo made > /root/made; exec sleep 1000")
	s.Mounts = []Mount{{Type: "volume", Source: "vol", Target: "/vol"}}
	id := b.start(s)
	b.until("the file", func() bool { st, err := b.StatPath(ctx, id, "/root/made"); return err == nil && st.Size == 5 })
	check := func(when string) {
		t.Helper()
		_, r, err := b.CopyFrom(ctx, id, "/root/made")
		if err != nil {
			t.Fatalf("%s: copy from: %v", when, err)
		}
		var tarball bytes.Buffer
		io.Copy(&tarball, r)
		r.Close()
		if !strings.Contains(tarball.String(), "made\n") {
			t.Errorf("%s: archive without the file", when)
		}
		if err := b.CopyTo(ctx, id, "/vol", bytes.NewReader(tarball.Bytes()), CopyOptions{}); err != nil {
			t.Fatalf("%s: copy to: %v", when, err)
		}
		if st, err := b.StatPath(ctx, id, "/vol/made"); err != nil || st.Size != 5 {
			t.Errorf("%s: stat %+v, %v", when, st, err)
		}
	}
	check("running")
	zero := 0
	if err := b.Stop(ctx, id, StopOptions{Timeout: &zero}); err != nil {
		t.Fatal(err)
	}
	v, _ := b.Volume(ctx, "vol")
	os.Remove(filepath.Join(v.Mountpoint, "made"))
	check("stopped")
	if _, err := os.Stat(filepath.Join(v.Mountpoint, "made")); err != nil {
		t.Errorf("the copy is not in the volume: %v", err)
	}
	changes, err := b.Changes(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	want := []Change{{0, "/etc"}, {2, "/etc/shadow"}, {0, "/root"}, {1, "/root/made"}}
	if len(changes) != len(want) {
		t.Fatalf("changes %v", changes)
	}
	for i := range want {
		if changes[i] != want[i] {
			t.Errorf("changes %v", changes)
		}
	}
	var out bytes.Buffer
	if err := b.Export(ctx, id, &out); err != nil || !strings.Contains(out.String(), "root/made") {
		t.Errorf("export: %d bytes, %v", out.Len(), err)
	}
}

func TestPause(t *testing.T) {
	b := newBench(t)
	id := b.start(sh("exec sleep 1000"))
	if err := b.Pause(ctx, id); err != nil {
		t.Fatal(err)
	}
	if i := b.inspect(id); i.State.Status != Paused {
		t.Errorf("state %+v", i.State)
	}
	if err := b.Unpause(ctx, id); err != nil {
		t.Fatal(err)
	}
	b.until("sleep in top", func() bool { // it may not be past its execve yet
		titles, rows, err := b.Top(ctx, id, "")
		return err == nil && len(rows) == 1 && rows[0][len(titles)-1] == "sleep 1000"
	})
	st, err := b.Stats(ctx, id)
	if err != nil || st.CPU.Total == 0 {
		t.Errorf("stats: %+v, %v", st, err)
	}
}

func TestHealth(t *testing.T) {
	b := newBench(t)
	s := sh("exec sleep 1000")
	s.Health = &Health{Test: []string{"CMD-SHELL", "echo fine; test -e /ok"}, Interval: 100 * time.Millisecond, Retries: 2}
	id := b.start(s)
	status := func() string { return b.inspect(id).State.Health.Status }
	b.until("unhealthy", func() bool { return status() == "unhealthy" })
	b.exec(id, ExecSpec{Cmd: []string{"touch", "/ok"}})
	b.until("healthy", func() bool { return status() == "healthy" })
	if log := b.inspect(id).State.Health.Log; len(log) == 0 || log[len(log)-1].Output != "fine\n" {
		t.Errorf("log %+v", log)
	}
}

// What a check that takes too long has said is told, in the order it was said in, and nothing that it started lives on.
func TestHealthTimeout(t *testing.T) {
	b := newBench(t)
	s := sh("exec sleep 1000")
	s.Health = &Health{Test: []string{"CMD-SHELL", "echo out; echo err >&2; echo end; sleep 1001 & sleep 1002"}, Interval: time.Hour,
		StartInterval: 100 * time.Millisecond, StartPeriod: time.Minute, Timeout: 500 * time.Millisecond, Retries: 1}
	id := b.start(s)
	b.until("a check", func() bool { return len(b.inspect(id).State.Health.Log) > 0 })
	if got := b.inspect(id).State.Health.Log[0]; got.ExitCode != -1 || got.Output != "Health check exceeded timeout (500ms): out\nerr\nend\n" {
		t.Errorf("%+v", got)
	}
	b.until("the check's processes are gone", func() bool {
		_, rows, err := b.Top(ctx, id, "")
		return err == nil && len(rows) < 3
	})
}

// https://github.com/moby/moby/issues/28400
func TestOnUnhealthy(t *testing.T) {
	b := newBench(t)
	sick := func(action string) Spec {
		s := sh("exec sleep 1000")
		s.Health = &Health{Test: []string{"CMD", "false"}, Interval: 100 * time.Millisecond, Retries: 1}
		none := 0
		s.OnUnhealthy, s.StopTimeout = action, &none
		return s
	}
	killed, stopped := b.start(sick("kill")), b.start(sick("stop"))
	policy := sick("kill")
	policy.Restart = Restart{Name: "on-failure"}
	comesBack, restarted := b.start(policy), b.start(sick("restart"))
	first := b.inspect(restarted).State.StartedAt
	for _, id := range []string{killed, stopped} {
		b.until("its end", func() bool { return b.inspect(id).State.Status == Exited })
		if st := b.inspect(id).State; st.ExitCode != 137 {
			t.Errorf("state %+v", st)
		}
	}
	b.until("the restart policy", func() bool { return b.inspect(comesBack).Restarts > 0 })
	b.until("the restart", func() bool {
		i := b.inspect(restarted)
		return i.State.Status == Running && i.State.StartedAt.After(first)
	})
	if _, _, err := b.Create(ctx, func() Spec { s := sick("x"); s.Image = "busybox"; return s }()); !errors.Is(err, ErrInvalid) {
		t.Errorf("an unknown action: %v", err)
	}
}

// https://github.com/opencontainers/runc/issues/4688, CVE-2024-40635, CVE-2026-30892
func TestUsers(t *testing.T) {
	b := newBench(t)
	for user, want := range map[string]string{"": "0 0 /root", "user": "1000 1000 /home/user", "1000": "1000 1000 /home/user", "2000": "2000 0 /",
		"1000:100": "1000 100 /home/user", "user:www-data": "1000 33 /home/user", "0:5": "0 5 /root"} {
		s := sh("echo $(id -u) $(id -g) $HOME; exec sleep 1000")
		s.User = user
		id := b.start(s)
		b.until("the line of "+user, func() bool { return b.logs(id, LogOptions{}) == want+"\n" })
		if out, _ := b.exec(id, ExecSpec{Cmd: []string{"sh", "-c", "echo $(id -u) $(id -g) $HOME"}}); out != want+"\n" {
			t.Errorf("exec as %q: %q", user, out)
		}
		if err := b.Remove(ctx, id, RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	}
	for _, user := range []string{"4294967296", "4294967295", "-1", "1000x", "nobodyhere", "0:nogrouphere", "99999999999999999999"} {
		s := sh("true")
		s.User = user
		id := b.create(s)
		if err := b.Start(ctx, id, StartOptions{}); err == nil {
			t.Errorf("%q was taken", user)
		}
	}
}
