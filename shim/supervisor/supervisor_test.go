package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cale/runtime/cgroup"
	"cale/shim/task"
	"cale/shim/ttrpc"
)

const patience = 30 * time.Second

// fakeRuntime makes plain processes: "containers" whose init is a shell that
// waits for a byte and then runs the file "cmd" of the bundle.
type fakeRuntime struct{ shared bool }

func (r fakeRuntime) Create(_ context.Context, o CreateOptions) (Box, error) {
	cmd, err := os.ReadFile(filepath.Join(o.Bundle, "cmd"))
	if err != nil {
		return nil, err
	}
	if string(cmd) == "fail" {
		return nil, errors.New("as told")
	}
	gate, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer gate.Close()
	pid, err := spawn("read x <&3; exec 3<&-; "+string(cmd), gate, o.Streams)
	return &fakeBox{pid: pid, gate: w, shared: r.shared}, err
}

// Load finds nothing: plain processes leave nothing to be found by.
func (r fakeRuntime) Load(context.Context, CreateOptions, int) (Box, task.Status, error) {
	return nil, 0, errors.New("not found")
}

// Restore runs what a bundle's cmd says, if the checkpoint is called so.
func (r fakeRuntime) Restore(ctx context.Context, o CreateOptions) (Box, error) {
	switch o.Checkpoint { // these take until they are to end, and say that they have begun
	case "/slow":
		err := os.WriteFile(filepath.Join(o.Bundle, "begun"), nil, 0o600)
		<-ctx.Done()
		return nil, errors.Join(err, ctx.Err())
	case "/late":
		if err := os.WriteFile(filepath.Join(o.Bundle, "begun"), nil, 0o600); err != nil {
			return nil, err
		}
		<-ctx.Done()
		o.Checkpoint = "/checkpoint"
	}
	cmd, err := os.ReadFile(filepath.Join(o.Bundle, "cmd"))
	if err != nil {
		return nil, err
	}
	if o.Checkpoint != "/checkpoint" {
		return nil, errors.New("no images there")
	}
	pid, err := spawn(string(cmd), nil, o.Streams)
	return &fakeBox{pid: pid, shared: r.shared}, err
}

func (fakeRuntime) Cleanup(context.Context, string, string, string) error { return nil }

func spawn(script string, gate *os.File, s Streams) (int, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	fds := []uintptr{null.Fd(), null.Fd(), null.Fd()}
	for i, f := range []*os.File{s.Stdin, s.Stdout, s.Stderr} {
		if f != nil {
			fds[i] = f.Fd()
		}
	}
	if gate != nil {
		fds = append(fds, gate.Fd())
	}
	return syscall.ForkExec("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{
		Files: fds, Env: []string{"PATH=/bin:/usr/bin"}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
}

type fakeBox struct {
	pid    int
	gate   *os.File
	shared bool
	mu     sync.Mutex
	killed bool
}

func (b *fakeBox) Pid() int { return b.pid }

func (b *fakeBox) Start(context.Context) error {
	defer b.gate.Close()
	_, err := b.gate.WriteString("\n")
	return err
}

func (b *fakeBox) Kill(sig int, all bool) error {
	if all {
		b.mu.Lock()
		b.killed = true
		b.mu.Unlock()
		syscall.Kill(-b.pid, syscall.Signal(sig))
	}
	return syscall.Kill(b.pid, syscall.Signal(sig))
}

func (b *fakeBox) Exec(_ context.Context, _ string, process []byte, s Streams) (int, error) {
	return spawn(string(process), nil, s)
}
func (b *fakeBox) Checkpoint(context.Context, CheckpointOptions) error {
	return errors.New("not that one")
}
func (b *fakeBox) Delete() error                 { return nil }
func (b *fakeBox) Pause() error                  { return nil }
func (b *fakeBox) Resume() error                 { return nil }
func (b *fakeBox) Update([]byte) error           { return nil }
func (b *fakeBox) Pids() ([]int, error)          { return []int{b.pid}, nil }
func (b *fakeBox) Stats() (*cgroup.Stats, error) { return &cgroup.Stats{}, nil }
func (b *fakeBox) SharesPids() bool              { return b.shared }
func (b *fakeBox) OOMKilled() bool               { return false }

type harness struct {
	t *testing.T
	s *Supervisor
}

func newHarness(t *testing.T, shared bool) *harness {
	t.Helper()
	s, err := New(Config{Namespace: "n", Own: fakeRuntime{shared}, Log: func(l string) { t.Log(l) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.shutdown(true) })
	return &harness{t, s}
}

// call makes a call as a client would.
func (h *harness) call(method string, req answer, resp interface{ Unmarshal([]byte) error }) error {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	b, err := h.s.handle(ctx, task.ServiceV2, method, req.Append(nil))
	if err == nil && resp != nil {
		err = resp.Unmarshal(b)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		h.t.Fatalf("%s hangs", method)
	}
	return err
}

func (h *harness) bundle(cmd string) string {
	dir := h.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cmd"), []byte(cmd), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return dir
}

func (h *harness) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) wait(id, exec string) uint32 {
	h.t.Helper()
	var w task.WaitResponse
	h.must(h.call("Wait", &task.ProcessRequest{ID: id, ExecID: exec}, &w))
	return w.ExitStatus
}

func code(err error) ttrpc.Code { return ttrpc.CodeOf(err) }

func TestLifecycle(t *testing.T) {
	h := newHarness(t, false)
	dir := h.bundle("exit 3")
	ref := &task.ProcessRequest{ID: "c"}
	var pid task.PidResponse
	h.must(h.call("Create", &task.CreateRequest{ID: "c", Bundle: dir}, &pid))
	if err := h.call("Create", &task.CreateRequest{ID: "c", Bundle: dir}, nil); code(err) != ttrpc.AlreadyExists {
		t.Errorf("second create: %v", err)
	}
	h.must(h.call("Start", ref, nil))
	if err := h.call("Start", ref, nil); code(err) != ttrpc.FailedPrecondition {
		t.Errorf("second start: %v", err)
	}
	if st := h.wait("c", ""); st != 3 {
		t.Errorf("status %d", st)
	}
	if b, err := os.ReadFile(filepath.Join(dir, exitFile)); err != nil || !strings.Contains(string(b), `"status":3`) {
		t.Errorf("on disk: %s, %v", b, err)
	}
	var d task.DeleteResponse
	h.must(h.call("Delete", ref, &d))
	if d.ExitStatus != 3 || d.Pid != pid.Pid {
		t.Errorf("delete: %+v", d)
	}
	for _, m := range []string{"State", "Start", "Delete", "Wait", "Kill", "Pids", "Stats", "Pause", "ResizePty", "CloseIO"} {
		if err := h.call(m, ref, nil); code(err) != ttrpc.NotFound {
			t.Errorf("%s after delete: %v", m, err)
		}
	}
	h.must(h.call("Shutdown", &task.ShutdownRequest{}, nil))
	select {
	case <-h.s.Quit():
	default:
		t.Error("an empty shim does not end")
	}
	if err := h.call("Create", &task.CreateRequest{ID: "d", Bundle: dir}, nil); code(err) != ttrpc.Unavailable {
		t.Errorf("create while ending: %v", err)
	}
}

func TestDeleteOfCreated(t *testing.T) {
	h := newHarness(t, false)
	h.must(h.call("Create", &task.CreateRequest{ID: "c", Bundle: h.bundle("sleep 1000")}, nil))
	var d task.DeleteResponse
	h.must(h.call("Delete", &task.ProcessRequest{ID: "c"}, &d))
	if d.ExitStatus != 137 {
		t.Errorf("status %d", d.ExitStatus)
	}
}

func TestFailedCreate(t *testing.T) {
	h := newHarness(t, false)
	dir := h.bundle("fail")
	for range 2 { // the second finds nothing of the first
		if err := h.call("Create", &task.CreateRequest{ID: "c", Bundle: dir}, nil); err == nil || err.Error() != "as told" {
			t.Errorf("got %v", err)
		}
	}
	for _, r := range []task.CreateRequest{
		{ID: "", Bundle: dir}, {ID: "c", Bundle: "relative"}, {ID: "c", Bundle: dir, Stdout: "cale:///?nonsense=1"},
	} {
		if err := h.call("Create", &r, nil); err == nil {
			t.Errorf("%+v was accepted", r)
		}
	}
	if len(h.s.containers) != 0 {
		t.Errorf("left: %v", h.s.containers)
	}
}

func TestRunningContainerStays(t *testing.T) {
	h := newHarness(t, false)
	ref := &task.ProcessRequest{ID: "c"}
	h.must(h.call("Create", &task.CreateRequest{ID: "c", Bundle: h.bundle("sleep 1000")}, nil))
	h.must(h.call("Start", ref, nil))
	if err := h.call("Delete", ref, nil); code(err) != ttrpc.FailedPrecondition {
		t.Errorf("delete: %v", err)
	}
	h.must(h.call("Shutdown", &task.ShutdownRequest{}, nil))
	select {
	case <-h.s.Quit():
		t.Error("the shim leaves a running container")
	default:
	}
	if err := h.call("Kill", &task.KillRequest{ID: "c", Signal: 99}, nil); code(err) != ttrpc.InvalidArgument {
		t.Errorf("signal 99: %v", err)
	}
	h.must(h.call("Kill", &task.KillRequest{ID: "c", Signal: 9}, nil))
	if st := h.wait("c", ""); st != 137 {
		t.Errorf("status %d", st)
	}
}

func TestExecsAtOnce(t *testing.T) {
	h := newHarness(t, false)
	h.must(h.call("Create", &task.CreateRequest{ID: "c", Bundle: h.bundle("sleep 1000")}, nil))
	h.must(h.call("Start", &task.ProcessRequest{ID: "c"}, nil))
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			id := fmt.Sprint("e", i)
			ref := &task.ProcessRequest{ID: "c", ExecID: id}
			spec := task.Any{URL: task.TypeProcess, Value: []byte("exit " + strconv.Itoa(i))}
			if err := h.call("Exec", &task.ExecRequest{ID: "c", ExecID: id, Spec: spec}, nil); err != nil {
				t.Error(err)
			}
			if err := h.call("Start", ref, nil); err != nil {
				t.Error(err)
			}
			var w task.WaitResponse
			if err := h.call("Wait", ref, &w); err != nil || w.ExitStatus != uint32(i) {
				t.Errorf("exec %d: %+v, %v", i, w, err)
			}
			if err := h.call("Delete", ref, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	spec := task.Any{URL: task.TypeProcess, Value: []byte("exit 0")}
	h.must(h.call("Exec", &task.ExecRequest{ID: "c", ExecID: "left", Spec: spec}, nil))
	if err := h.call("Exec", &task.ExecRequest{ID: "c", ExecID: "left", Spec: spec}, nil); code(err) != ttrpc.AlreadyExists {
		t.Errorf("second exec of one id: %v", err)
	}
	if err := h.call("Kill", &task.KillRequest{ID: "c", ExecID: "left", Signal: 9}, nil); code(err) != ttrpc.FailedPrecondition {
		t.Errorf("kill of an exec that is not started: %v", err)
	}
	h.must(h.call("Kill", &task.KillRequest{ID: "c", Signal: 9}, nil))
	h.wait("c", "")
	if err := h.call("Start", &task.ProcessRequest{ID: "c", ExecID: "left"}, nil); code(err) != ttrpc.FailedPrecondition {
		t.Errorf("exec in a dead container: %v", err)
	}
}

// A container of a checkpoint is made when it is started, and has no process before.
func TestRestore(t *testing.T) {
	h := newHarness(t, false)
	dir := h.bundle("exit 5")
	ref := &task.ProcessRequest{ID: "c"}
	create := func(checkpoint string) {
		t.Helper()
		var pid task.PidResponse
		h.must(h.call("Create", &task.CreateRequest{ID: "c", Bundle: dir, Checkpoint: checkpoint}, &pid))
		if pid.Pid != 0 {
			t.Errorf("pid %d before the start", pid.Pid)
		}
	}
	create("/checkpoint")
	if err := h.call("Pause", ref, nil); code(err) != ttrpc.FailedPrecondition {
		t.Errorf("pause before the start: %v", err)
	}
	var pid task.PidResponse
	h.must(h.call("Start", ref, &pid))
	if pid.Pid == 0 {
		t.Error("no pid after the start")
	}
	if st := h.wait("c", ""); st != 5 {
		t.Errorf("status %d", st)
	}
	h.must(h.call("Delete", ref, nil))

	create("/other")
	if err := h.call("Start", ref, nil); err == nil || !strings.Contains(err.Error(), "no images there") {
		t.Errorf("start of a bad checkpoint: %v", err)
	}
	h.must(h.call("Delete", ref, nil))

	create("/checkpoint")
	h.must(h.call("Kill", &task.KillRequest{ID: "c", Signal: 9}, nil))
	if st := h.wait("c", ""); st != 137 {
		t.Errorf("killed before the start: status %d", st)
	}
	if err := h.call("Start", ref, nil); code(err) != ttrpc.FailedPrecondition {
		t.Errorf("start after the end: %v", err)
	}
	h.must(h.call("Delete", ref, nil))
}

// A container in the host's pid namespace leaves orphans and survivors: the
// former are reaped, the latter killed with init.
func TestSharedPids(t *testing.T) {
	h := newHarness(t, true)
	dir := h.bundle("sh -c 'sh -c \"exit 0\" & echo $! > orphan' ; exit 4")
	// The script's working directory is ours.
	cmd, _ := os.ReadFile(filepath.Join(dir, "cmd"))
	os.WriteFile(filepath.Join(dir, "cmd"), []byte("cd "+dir+"; "+string(cmd)), 0o600)
	ref := &task.ProcessRequest{ID: "c"}
	h.must(h.call("Create", &task.CreateRequest{ID: "c", Bundle: dir}, nil))
	h.must(h.call("Start", ref, nil))
	if st := h.wait("c", ""); st != 4 {
		t.Errorf("status %d", st)
	}
	c, _, err := h.s.find("c", "")
	h.must(err)
	box := c.box().(*fakeBox)
	box.mu.Lock()
	if !box.killed {
		t.Error("the rest was not killed")
	}
	box.mu.Unlock()
	b, err := os.ReadFile(filepath.Join(dir, "orphan"))
	h.must(err)
	orphan, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	for deadline := time.Now().Add(patience); syscall.Kill(orphan, 0) == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the orphan is not reaped")
		}
	}
}

// A terminal in front of another shim's ends when that shim has closed its output, not when somebody gives up waiting.
func TestTerminalOfAnotherShimEnds(t *testing.T) {
	var e ends
	var master *os.File
	if err := e.terminal(Streams{Console: func(f *os.File) { master = f }}); err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	out, err := os.OpenFile(e.stdout, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	e.close()
	out.WriteString("last")
	out.Close()
	if err := master.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(master)
	if string(text) != "last" || !errors.Is(err, unix.EIO) {
		t.Errorf("%q, %v", text, err)
	}
}
