package shim_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"cale/shim"
)

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
