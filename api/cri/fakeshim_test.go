package cri

import (
	"context"
	"net"
	"os"
	"sync"
	"time"

	"cale/shim"
	"cale/shim/keep"
	"cale/shim/task"
	"cale/shim/ttrpc"
)

// fakeShimName makes this test program a shim of containers that have no process: the shim's own is shown for theirs.
const fakeShimName = "cale-shim"

// fakeShim serves on descriptor 3 until it is told to end. As a keeper it is a real one, which ends with its engine; a pid
// namespace it holds.
func fakeShim() {
	switch os.Args[len(os.Args)-1] {
	case shim.KeepAction:
		_ = keep.Serve(3)
		os.Exit(0)
	case shim.HoldAction: // its end is a kill
		for {
			time.Sleep(time.Hour)
		}
	}
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		os.Exit(1)
	}
	f := &fakeContainers{ended: map[string]chan struct{}{}}
	server := &ttrpc.Server{Handler: f.handle}
	_ = server.Serve(l)
	os.Exit(0)
}

type fakeContainers struct {
	mu    sync.Mutex
	ended map[string]chan struct{} // closed by a kill
}

func (f *fakeContainers) of(id string) chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended[id] == nil {
		f.ended[id] = make(chan struct{})
	}
	return f.ended[id]
}

func (f *fakeContainers) end(id string) {
	ended := f.of(id)
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-ended:
	default:
		close(ended)
	}
}

func (f *fakeContainers) handle(ctx context.Context, _, method string, payload []byte) ([]byte, error) {
	var r task.ProcessRequest
	pid := uint32(os.Getpid())
	switch method {
	case "Create":
		return (&task.PidResponse{Pid: pid}).Append(nil), nil
	case "Run":
		return (&task.RunResponse{}).Append(nil), nil
	case "Shutdown":
		os.Exit(0)
	case "Exec", "EndRun", "Update", "ResizePty", "CloseIO", "Pause", "Resume", "ReopenLog":
		return nil, nil
	case "Kill":
		var k task.KillRequest
		if err := k.Unmarshal(payload); err != nil {
			return nil, err
		}
		f.end(k.ID)
		return nil, nil
	case "Start", "Wait", "State", "Delete", "Pids", "Connect":
		if err := r.Unmarshal(payload); err != nil {
			return nil, err
		}
	default:
		return nil, &ttrpc.Status{Code: ttrpc.Unimplemented, Message: method}
	}
	switch method {
	case "Start":
		return (&task.PidResponse{Pid: pid}).Append(nil), nil
	case "Wait":
		if r.ExecID == "" {
			select {
			case <-f.of(r.ID):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return (&task.WaitResponse{ExitStatus: 137}).Append(nil), nil
	case "State":
		return (&task.StateResponse{ID: r.ID, ExecID: r.ExecID, Pid: pid, Status: task.StatusRunning}).Append(nil), nil
	case "Delete":
		f.end(r.ID)
		return (&task.DeleteResponse{Pid: pid, ExitStatus: 137}).Append(nil), nil
	case "Pids":
		return (&task.PidsResponse{Pids: []uint32{pid}}).Append(nil), nil
	}
	return (&task.ConnectResponse{ShimPid: pid, TaskPid: pid, Version: "v2"}).Append(nil), nil
}
