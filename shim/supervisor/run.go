package supervisor

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cale/shim/task"
	"cale/shim/ttrpc"
)

// run runs a process in a container from start to end. It is what probes need: one call, and the process writes to the
// caller's own files, with nobody between.
func (s *Supervisor) run(ctx context.Context, r *task.RunRequest) (*task.RunResponse, error) {
	c, _, err := s.find(r.ID, "")
	if err != nil {
		return nil, err
	}
	if r.RunID == "" || len(r.Spec) == 0 {
		return nil, &ttrpc.Status{Code: ttrpc.InvalidArgument, Message: "run: an id and a process are needed"}
	}
	if c.init.ended() {
		return nil, precondition("container " + c.id + " is not running")
	}
	if r.Timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, r.Timeout)
		defer stop()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !c.addRun(r.RunID, cancel) {
		return nil, &ttrpc.Status{Code: ttrpc.AlreadyExists, Message: "run " + r.RunID + " already exists"}
	}
	defer c.dropRun(r.RunID)
	var res task.RunResponse
	gone := make(chan struct{}) // closed when nothing of it runs any more
	go func() {
		defer close(gone)
		ended := make(chan end, 1)
		var pid int
		if pid, err = s.startRun(c, r, ended); err != nil {
			return
		}
		select {
		case how := <-ended:
			res.ExitStatus = how.status
		case <-ctx.Done():
			s.killRun(c, r.RunID, pid)
			<-ended
			res = lateRun
		}
	}()
	select {
	case <-gone:
	case <-ctx.Done():
		// Who asks next finds it gone, unless it can't be ended, or another shim takes its time to begin it.
		select {
		case <-gone:
		case <-time.After(killedWait):
			late := lateRun
			return &late, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return &res, nil
}

// lateRun is the answer for a run that was killed.
var lateRun = task.RunResponse{ExitStatus: 128 + uint32(unix.SIGKILL), Killed: true}

// killedWait bounds the wait for what was killed.
const killedWait = 5 * time.Second

func (s *Supervisor) startRun(c *container, r *task.RunRequest, ended chan<- end) (pid int, err error) {
	var streams Streams
	for _, o := range []struct {
		path string
		file **os.File
	}{{r.Stdout, &streams.Stdout}, {r.Stderr, &streams.Stderr}} {
		if o.path == "" {
			continue
		}
		if *o.file, err = os.OpenFile(o.path, os.O_WRONLY, 0); err != nil {
			return 0, err
		}
		defer (*o.file).Close()
	}
	s.reaper.begin()
	defer s.reaper.end()
	// Not given up half way: what another shim has begun has to be known to be ended.
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	if pid, err = c.box().Exec(ctx, r.RunID, r.Spec, streams); err != nil {
		return 0, err
	}
	s.watch(c, r.RunID, nil, pid, func(how end) { ended <- how })
	return pid, nil
}

func (c *container) addRun(id string, end context.CancelFunc) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.runs[id] != nil {
		return false
	}
	if c.runs == nil {
		c.runs = make(map[string]context.CancelFunc)
	}
	c.runs[id] = end
	return true
}

func (c *container) dropRun(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.runs, id)
}

// overtaken is how long a run may come after its end.
const overtaken = 10 * time.Second

// endRun kills what a run started. Calls overtake each other: one that comes later starts nothing.
func (s *Supervisor) endRun(r *task.ProcessRequest) error {
	c, _, err := s.find(r.ID, "")
	if err != nil {
		return err
	}
	c.mu.Lock()
	end := c.runs[r.ExecID]
	c.mu.Unlock()
	switch {
	case end != nil:
		end()
	case c.addRun(r.ExecID, func() {}):
		time.AfterFunc(overtaken, func() { c.dropRun(r.ExecID) })
	default: // it came just now
		return s.endRun(r)
	}
	return nil
}

// mostKilled bounds how many processes one killing goes after.
const mostKilled = 10000

// killRun kills a run's process and all that descend from it.
func (s *Supervisor) killRun(c *container, id string, pid int) {
	remote, ok := c.box().(Remote)
	if !ok {
		s.reaper.killTree(pid)
		return
	}
	// Whoever is in the container is a process of it, if not this one.
	if pids, err := remote.Pids(); err == nil && slices.Contains(pids, pid) {
		killTree(pid)
		return
	}
	_ = remote.KillExec(id, int(unix.SIGKILL)) // what is gone can't be killed
}

// killTree kills a watched child and all that descend from it.
func (r *reaper) killTree(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.known[pid]; ok { // else it was reaped: the pid may be another's by now
		killTree(pid)
	}
}

// killTree kills a process and all that descend from it. Each generation is stopped and looked up before the one above
// it is killed, as orphans no longer tell whose they were.
func killTree(pid int) {
	list := []int{pid}
	for i := 0; i < len(list) && i < mostKilled; i++ {
		if unix.Kill(list[i], unix.SIGSTOP) == nil {
			list = append(list, children(list[i])...)
		}
	}
	for _, p := range list {
		_ = unix.Kill(p, unix.SIGKILL)
	}
}

func children(pid int) (out []int) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	threads, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, t := range threads {
		raw, err := os.ReadFile(dir + "/" + t.Name() + "/children")
		if err != nil {
			continue
		}
		for _, f := range strings.Fields(string(raw)) {
			if n, err := strconv.Atoi(f); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}
