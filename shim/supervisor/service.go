package supervisor

import (
	"context"
	"encoding/json"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"cale/shim/task"
	"cale/shim/ttrpc"
)

type answer interface{ Append([]byte) []byte }

// handle answers one call of the task API.
func (s *Supervisor) handle(ctx context.Context, service, method string, payload []byte) ([]byte, error) {
	defer s.tidy()
	var a answer
	var err error
	switch service {
	case task.ServiceV2, task.ServiceV3:
		a, err = s.task(ctx, method, payload)
	case task.ServiceOwn:
		a, err = s.own(ctx, method, payload)
	default:
		return nil, unimplemented("service " + service)
	}
	if err != nil || a == nil {
		return nil, err
	}
	return a.Append(nil), nil
}

// own answers the calls that containerd's API has none for.
func (s *Supervisor) own(ctx context.Context, method string, payload []byte) (answer, error) {
	switch method {
	case "ReopenLog":
		_, p, err := s.process(payload)
		if err != nil {
			return nil, err
		}
		return nil, p.io.ReopenLog()
	case "Keep":
		s.holdAll()
		return nil, nil
	case "Run":
		var r task.RunRequest
		if err := r.Unmarshal(payload); err != nil {
			return nil, invalid(err)
		}
		return s.run(ctx, &r)
	case "EndRun":
		var r task.ProcessRequest
		if err := r.Unmarshal(payload); err != nil {
			return nil, invalid(err)
		}
		return nil, s.endRun(&r)
	}
	return nil, unimplemented("method " + method)
}

// process decodes a request that names a process and finds it.
func (s *Supervisor) process(payload []byte) (*container, *process, error) {
	var r task.ProcessRequest
	if err := r.Unmarshal(payload); err != nil {
		return nil, nil, invalid(err)
	}
	return s.find(r.ID, r.ExecID)
}

func invalid(err error) error {
	return &ttrpc.Status{Code: ttrpc.InvalidArgument, Message: err.Error()}
}

func (s *Supervisor) task(ctx context.Context, method string, payload []byte) (answer, error) {
	switch method {
	case "Create":
		var r task.CreateRequest
		if err := r.Unmarshal(payload); err != nil {
			return nil, invalid(err)
		}
		pid, err := s.create(ctx, &r)
		return &task.PidResponse{Pid: uint32(pid)}, err
	case "Exec":
		var r task.ExecRequest
		if err := r.Unmarshal(payload); err != nil {
			return nil, invalid(err)
		}
		return nil, s.addExec(&r)
	case "Kill":
		var r task.KillRequest
		if err := r.Unmarshal(payload); err != nil {
			return nil, invalid(err)
		}
		c, p, err := s.find(r.ID, r.ExecID)
		if err != nil {
			return nil, err
		}
		return nil, s.kill(c, p, r.Signal, r.All)
	case "ResizePty":
		var r task.ResizeRequest
		if err := r.Unmarshal(payload); err != nil {
			return nil, invalid(err)
		}
		c, p, err := s.find(r.ID, r.ExecID)
		if err != nil {
			return nil, err
		}
		if r.Width > 0xffff || r.Height > 0xffff {
			return nil, &ttrpc.Status{Code: ttrpc.InvalidArgument, Message: "resize: size out of range"}
		}
		err = p.io.Resize(uint16(r.Width), uint16(r.Height))
		if remote, ok := c.box().(Remote); ok && err == nil && (p == c.init || p.startedOnce()) {
			err = remote.Resize(r.ExecID, uint16(r.Width), uint16(r.Height))
		}
		return nil, err
	case "CloseIO":
		var r task.CloseIORequest
		if err := r.Unmarshal(payload); err != nil {
			return nil, invalid(err)
		}
		_, p, err := s.find(r.ID, r.ExecID)
		if err == nil && r.Stdin {
			p.io.CloseStdin()
		}
		return nil, err
	case "Update":
		var r task.UpdateRequest
		if err := r.Unmarshal(payload); err != nil {
			return nil, invalid(err)
		}
		c, _, err := s.find(r.ID, "")
		if err != nil {
			return nil, err
		}
		return nil, s.busy(func() error { return c.box().Update(r.Resources.Value) })
	case "Stats":
		var r task.StatsRequest
		if err := r.Unmarshal(payload); err != nil {
			return nil, invalid(err)
		}
		return s.stats(&r)
	case "Shutdown":
		var r task.ShutdownRequest
		if err := r.Unmarshal(payload); err != nil {
			return nil, invalid(err)
		}
		s.shutdown(r.Now)
		return nil, nil
	case "Connect":
		return s.connect(payload)
	case "Checkpoint":
		var r task.CheckpointRequest
		if err := r.Unmarshal(payload); err != nil {
			return nil, invalid(err)
		}
		c, _, err := s.find(r.ID, "")
		if err != nil {
			return nil, err
		}
		return nil, s.checkpoint(ctx, c, &r)
	}
	c, p, err := s.process(payload)
	if err != nil {
		return nil, err
	}
	return s.taskOf(ctx, method, c, p)
}

// taskOf answers the methods that only name a process.
func (s *Supervisor) taskOf(ctx context.Context, method string, c *container, p *process) (answer, error) {
	switch method {
	case "State":
		return s.state(c, p), nil
	case "Start":
		var pid int
		var err error
		if p == c.init {
			pid, err = s.start(ctx, c)
		} else {
			pid, err = s.startExec(ctx, c, p)
		}
		return &task.PidResponse{Pid: uint32(pid)}, err
	case "Wait":
		select {
		case <-p.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		_, _, e := p.status()
		return &task.WaitResponse{ExitStatus: e.Status, ExitedAt: e.At}, nil
	case "Delete":
		var e Exit
		var err error
		if p == c.init {
			e, err = s.deleteContainer(ctx, c)
		} else {
			e, err = s.deleteExec(c, p)
		}
		_, pid, _ := p.status()
		return &task.DeleteResponse{Pid: uint32(pid), ExitStatus: e.Status, ExitedAt: e.At}, err
	case "Pids":
		r := new(task.PidsResponse)
		err := s.busy(func() error {
			pids, err := c.box().Pids()
			for _, pid := range pids {
				r.Pids = append(r.Pids, uint32(pid))
			}
			return err
		})
		return r, err
	case "Pause", "Resume":
		return nil, s.freeze(c, method == "Pause")
	}
	return nil, unimplemented("method " + method)
}

// busy encloses a runtime operation, for the reaper.
func (s *Supervisor) busy(op func() error) error {
	s.reaper.begin()
	defer s.reaper.end()
	return op()
}

func (s *Supervisor) freeze(c *container, pause bool) error {
	if c.init.ended() {
		return precondition("container " + c.id + " is not running")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	op := c.made.Resume
	if pause {
		op = c.made.Pause
	}
	if err := s.busy(op); err != nil {
		if !pause && ttrpc.CodeOf(err) == ttrpc.FailedPrecondition {
			c.paused = false // somebody else has thawed it
		}
		return err
	}
	c.paused = pause
	if pause {
		s.events.simple("paused", "TaskPaused", c.id)
	} else {
		s.events.simple("resumed", "TaskResumed", c.id)
	}
	return nil
}

func (s *Supervisor) state(c *container, p *process) *task.StateResponse {
	status, pid, e := p.status()
	r := &task.StateResponse{
		ID: c.id, ExecID: p.execID, Bundle: c.bundle, Pid: uint32(pid), Status: status,
		Stdin: p.req.Stdin, Stdout: p.req.Stdout, Stderr: p.req.Stderr, Terminal: p.req.Terminal,
		ExitStatus: e.Status, ExitedAt: e.At,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paused && status == task.StatusRunning {
		r.Status = task.StatusPaused
	}
	return r
}

func (s *Supervisor) connect(payload []byte) (answer, error) {
	var r task.ProcessRequest
	if err := r.Unmarshal(payload); err != nil {
		return nil, invalid(err)
	}
	a := &task.ConnectResponse{ShimPid: uint32(os.Getpid()), Version: "v2"}
	if _, p, err := s.find(r.ID, ""); err == nil {
		_, pid, _ := p.status()
		a.TaskPid = uint32(pid)
	}
	return a, nil
}

func (s *Supervisor) stats(r *task.StatsRequest) (answer, error) {
	c, _, err := s.find(r.ID, "")
	if err != nil {
		return nil, err
	}
	s.reaper.begin()
	st, err := c.box().Stats()
	s.reaper.end()
	if err != nil {
		return nil, err
	}
	if !r.Native {
		return &task.StatsResponse{Stats: containerdMetrics(st)}, nil
	}
	b, err := json.Marshal(st)
	return &task.StatsResponse{Stats: task.Any{URL: task.TypeStats, Value: b}}, err
}

// samePeer lets in only our own user and root; the socket's mode says the same
// already.
func samePeer(c net.Conn) bool {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return false
	}
	rc, err := uc.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	cerr := rc.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cerr == nil && err == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
}
