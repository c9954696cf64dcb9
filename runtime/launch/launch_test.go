package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// exec adds the execution of a shell script.
func exec(p *Program, script string) {
	p.Step("execute")
	p.Call(unix.SYS_EXECVE, p.Str("/bin/sh"), p.Strs([]string{"sh", "-c", script}), p.Strs(os.Environ()))
}

func wait(t *testing.T, p *Proc) int {
	t.Helper()
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(p.Pid, &ws, 0, nil); err != unix.EINTR {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	p.PidFD.Close()
	return ws.ExitStatus()
}

func run(t *testing.T, p *Program) int {
	t.Helper()
	proc, err := Run(context.Background(), Config{Program: p})
	if err != nil {
		t.Fatal(err)
	}
	return wait(t, proc)
}

func TestExec(t *testing.T) {
	p := New()
	exec(p, "exit 9")
	if code := run(t, p); code != 9 {
		t.Errorf("exit status %d", code)
	}
}

func TestErrorNamesTheStep(t *testing.T) {
	p := New()
	p.Step("open nothing")
	p.Call(unix.SYS_OPENAT, N(unix.AT_FDCWD), p.Str("/nosuch"), N(0))
	exec(p, "exit 0")
	_, err := Run(context.Background(), Config{Program: p})
	var e *Error
	if !errors.As(err, &e) || e.Step != "open nothing" || !errors.Is(err, syscall.ENOENT) || err.Error() != "open nothing: no such file or directory" {
		t.Errorf("got %v", err)
	}
	// Nothing waits to be reaped.
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("a child is left: %d, %v", pid, err)
	}
}

func TestRegistersAndJumps(t *testing.T) {
	p := New()
	missing, found, out := p.Label(), p.Label(), p.Label()
	r := p.Reg()
	p.Set(r, N(7))
	p.Call(unix.SYS_OPENAT, N(unix.AT_FDCWD), p.Str("/nosuch"), N(0)).To(r).Accept(unix.EACCES, unix.ENOENT).Else(missing).Then(found)
	p.Bind(found)
	p.Error(unix.EEXIST)
	p.Bind(missing)
	p.Equal(r.Arg(), N(7), unix.EINVAL) // unchanged by the call that failed
	p.Equal(r.Arg(), N(8), unix.EDOM).Accept(unix.EDOM).Else(out)
	p.Error(unix.EEXIST)
	p.Bind(out)
	fd := p.Call(unix.SYS_OPENAT, N(unix.AT_FDCWD), p.Str("/dev/null"), N(0)).New()
	p.Call(unix.SYS_DUP3, fd.Arg(), N(50), N(0))
	cell := Ptr(p.Mem(8))
	p.Store32(cell, 4, fd)
	p.Equal(p.Load32(cell, 4, ^uint32(0)).Arg(), fd.Arg(), unix.EINVAL)
	p.Call(unix.SYS_READ, N(50), Ptr(p.Mem(8)), N(1)).Want(0)
	exec(p, "[ -e /proc/self/fd/50 ]")
	if code := run(t, p); code != 0 {
		t.Errorf("exit status %d", code)
	}
	p = New()
	p.Step("read something")
	null := p.Call(unix.SYS_OPENAT, N(unix.AT_FDCWD), p.Str("/dev/null"), N(0)).New()
	p.Call(unix.SYS_READ, null.Arg(), Ptr(p.Mem(8)), N(1)).Want(1)
	if _, err := Run(context.Background(), Config{Program: p}); !errors.Is(err, unix.EPIPE) {
		t.Errorf("a result that isn't wanted: %v", err)
	}
}

func TestProgramErrors(t *testing.T) {
	for name, build := range map[string]func(*Program){
		"NUL in a string": func(p *Program) { p.Str("a\x00b") },
		"jump back": func(p *Program) {
			l := p.Label()
			p.Bind(l)
			p.Goto(l)
		},
		"label without a place": func(p *Program) { p.Goto(p.Label()) },
		"too many registers": func(p *Program) {
			for range maxRegs + 1 {
				p.Reg()
			}
		},
	} {
		p := New()
		build(p)
		exec(p, "exit 0")
		if _, err := Run(context.Background(), Config{Program: p}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSync(t *testing.T) {
	p := New()
	fd := p.Call(unix.SYS_OPENAT, N(unix.AT_FDCWD), p.Str("/proc/self/exe"), N(0)).New()
	p.Sync(5)
	p.SyncValue(6, fd)
	p.SyncFD(7, fd)
	p.Sync(8)
	exec(p, "exit 3")
	var got []int
	proc, err := Run(context.Background(), Config{Program: p, Until: 8, Sync: func(proc *Proc, at Point) error {
		got = append(got, at.ID)
		if at.ID == 6 && at.Value < 3 {
			t.Errorf("descriptor %d", at.Value)
		}
		if at.ID == 7 {
			if at.Sent == nil {
				return errors.New("no descriptor came")
			}
			at.Sent.Close()
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 4 || got[3] != 8 {
		t.Errorf("points %v", got)
	}
	if code := wait(t, proc); code != 3 {
		t.Errorf("exit status %d", code)
	}
	p = New()
	p.Sync(1)
	exec(p, "exit 0")
	refuse := errors.New("no")
	if _, err := Run(context.Background(), Config{Program: p, Sync: func(*Proc, Point) error { return refuse }}); !errors.Is(err, refuse) {
		t.Errorf("a refusal: %v", err)
	}
}

func TestFork(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	p := New()
	p.Step("join")
	p.Fork(unix.CLONE_NEWPID | unix.CLONE_NEWUTS)
	exec(p, "exit $$")
	proc, err := Run(context.Background(), Config{Program: p})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat("/proc/" + itoa(proc.Pid)); err != nil || !st.IsDir() {
		t.Errorf("no process %d: %v", proc.Pid, err)
	}
	if code := wait(t, proc); code != 1 {
		t.Errorf("its pid is %d in its namespace, want 1", code)
	}
}

func itoa(n int) string {
	var b []byte
	for ; n > 0; n /= 10 {
		b = append([]byte{byte('0' + n%10)}, b...)
	}
	return string(b)
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	p := New()
	// It never executes anything.
	p.Call(unix.SYS_PPOLL)
	start := time.Now()
	if _, err := Run(ctx, Config{Program: p}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if time.Since(start) > 30*time.Second {
		t.Error("it took too long")
	}
}

// Garbage is collected, goroutines run and threads start while children are made: nothing of that may reach them.
func TestBusyParent(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	for range 4 {
		go func() {
			var keep [][]byte
			for {
				select {
				case <-stop:
					return
				default:
					keep = append(keep, make([]byte, 1<<12))
					if len(keep) > 1000 {
						keep = nil
					}
				}
			}
		}()
	}
	done := make(chan string, 4)
	for range 4 {
		go func() {
			for range 10 {
				p := New()
				for range 200 {
					p.Call(unix.SYS_GETPID).New()
				}
				exec(p, "exit 4")
				proc, err := Run(context.Background(), Config{Program: p})
				if err != nil {
					done <- err.Error()
					return
				}
				var ws unix.WaitStatus
				unix.Wait4(proc.Pid, &ws, 0, nil)
				proc.PidFD.Close()
				if ws.ExitStatus() != 4 {
					done <- "wrong status"
					return
				}
			}
			done <- ""
		}()
	}
	for range 4 {
		if s := <-done; s != "" {
			t.Error(s)
		}
	}
}

func TestExplain(t *testing.T) {
	p := New()
	p.Step("name the machine")
	p.Call(unix.SYS_SETHOSTNAME, p.Str("x"), N(1)).Accept(unix.EPERM)
	r := p.Call(unix.SYS_OPENAT, N(unix.AT_FDCWD), p.Str("/"), N(unix.O_PATH)).New()
	p.Close(r)
	var b strings.Builder
	if err := p.Explain(&b); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"name the machine", "openat", "r1"} {
		if !strings.Contains(b.String(), s) {
			t.Errorf("%q is missing in\n%s", s, b.String())
		}
	}
}

// A child ends if its caller was killed while it waits for it, though nothing else ends it then.
func TestCallerKilledAtSync(t *testing.T) {
	if os.Getenv("LAUNCH_CALLER") != "" {
		p := New()
		p.Step("wait for the caller")
		p.Sync(1)
		exec(p, "sleep 60")
		_, err := Run(context.Background(), Config{Program: p, Sync: func(*Proc, Point) error {
			os.Stdout.WriteString("reached")
			return unix.Kill(os.Getpid(), unix.SIGKILL)
		}})
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	caller, err := os.StartProcess("/proc/self/exe", []string{"launch", "-test.run=^TestCallerKilledAtSync$"}, &os.ProcAttr{
		Env: append(os.Environ(), "LAUNCH_CALLER=1"), Files: []*os.File{nil, w, os.Stderr},
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := caller.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// It ends when nobody has the pipe any more.
	if got, err := io.ReadAll(r); err != nil || string(got) != "reached" {
		t.Errorf("%q, %v", got, err)
	}
}

// A stack that grows on the way to the fork takes nothing with it that the kernel writes to.
func TestGrowingStack(t *testing.T) {
	var deep func(n int) error
	deep = func(n int) error {
		if n > 0 {
			return deep(n - 1)
		}
		p := New()
		defer p.Free()
		exec(p, "exit 0")
		proc, err := Run(context.Background(), Config{Program: p})
		if err != nil {
			return err
		}
		defer proc.Kill()
		pid, err := pidOf(proc.PidFD)
		if err == nil && pid != proc.Pid && !errors.Is(err, ErrDied) {
			err = fmt.Errorf("descriptor %d is of process %d, not %d", proc.PidFD.Fd(), pid, proc.Pid)
		}
		return err
	}
	for n := range 200 {
		done := make(chan error)
		go func() { done <- deep(n) }()
		if err := <-done; err != nil {
			t.Fatalf("%d calls deep: %v", n, err)
		}
	}
}
