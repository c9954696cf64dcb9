// Package task holds the messages of containerd's shim API, service
// containerd.task.v2.Task (and v3, whose unary part has the same messages),
// with their wire format written by hand.
// Source: api/runtime/task/v3/shim.proto of github.com/containerd/containerd.
package task

import (
	"time"

	"cale/wire"
)

// The service names of the two versions.
const (
	ServiceV2 = "containerd.task.v2.Task"
	ServiceV3 = "containerd.task.v3.Task"
)

// ServiceOwn is our shim's service for what containerd's API has no method for.
const ServiceOwn = "cale.shim.v1.Shim"

// Type URLs of Any values in requests and answers.
const (
	TypeProcess   = "types.containerd.io/opencontainers/runtime-spec/1/Process"
	TypeResources = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
	TypeOptions   = "containerd.runc.v1.Options"
	// TypeCheckpointOptions is that of CheckpointOptions.
	TypeCheckpointOptions = "containerd.runc.v1.CheckpointOptions"
	// TypeStats is our own: cgroup.Stats in JSON.
	TypeStats = "cale.cgroup.Stats"
)

// Status of a process, containerd.v1.types.Status.
type Status uint32

// The statuses.
const (
	StatusUnknown Status = 0
	StatusCreated Status = 1
	StatusRunning Status = 2
	StatusStopped Status = 3
	StatusPaused  Status = 4
	StatusPausing Status = 5
)

// Any is google.protobuf.Any.
type Any struct {
	URL   string
	Value []byte
}

// Append appends the wire form.
func (a *Any) Append(b []byte) []byte {
	b = wire.AppendString(b, 1, a.URL)
	if len(a.Value) > 0 {
		b = wire.AppendBytes(b, 2, a.Value)
	}
	return b
}

// Unmarshal decodes b; Value refers to it.
func (a *Any) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		str(f, 1, &a.URL)
		if f.ID == 2 && f.Type == wire.Bytes {
			a.Value = f.Data
		}
		return nil
	})
}

// Clone copies a decoded Any, whose Value refers to what it was decoded from.
func (a *Any) Clone() Any { return Any{URL: a.URL, Value: append([]byte(nil), a.Value...)} }

// Mount is containerd.types.Mount.
type Mount struct {
	Type, Source, Target string
	Options              []string
}

// Append appends the wire form.
func (m *Mount) Append(b []byte) []byte {
	b = wire.AppendString(b, 1, m.Type)
	b = wire.AppendString(b, 2, m.Source)
	b = wire.AppendString(b, 3, m.Target)
	for _, o := range m.Options {
		b = wire.AppendBytes(b, 4, []byte(o))
	}
	return b
}

// Unmarshal decodes b.
func (m *Mount) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		str(f, 1, &m.Type)
		str(f, 2, &m.Source)
		str(f, 3, &m.Target)
		if f.ID == 4 && f.Type == wire.Bytes {
			m.Options = append(m.Options, string(f.Data))
		}
		return nil
	})
}

// CreateRequest is CreateTaskRequest.
type CreateRequest struct {
	ID, Bundle            string
	Rootfs                []Mount
	Terminal              bool
	Stdin, Stdout, Stderr string
	Checkpoint            string
	Options               Any
}

// Append appends the wire form.
func (r *CreateRequest) Append(b []byte) []byte {
	b = wire.AppendString(b, 1, r.ID)
	b = wire.AppendString(b, 2, r.Bundle)
	for i := range r.Rootfs {
		b = wire.AppendBytes(b, 3, r.Rootfs[i].Append(nil))
	}
	b = wire.AppendBool(b, 4, r.Terminal)
	b = wire.AppendString(b, 5, r.Stdin)
	b = wire.AppendString(b, 6, r.Stdout)
	b = wire.AppendString(b, 7, r.Stderr)
	b = wire.AppendString(b, 8, r.Checkpoint)
	return appendAny(b, 10, &r.Options)
}

// Unmarshal decodes b.
func (r *CreateRequest) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		str(f, 1, &r.ID)
		str(f, 2, &r.Bundle)
		boolean(f, 4, &r.Terminal)
		str(f, 5, &r.Stdin)
		str(f, 6, &r.Stdout)
		str(f, 7, &r.Stderr)
		str(f, 8, &r.Checkpoint)
		if f.Type != wire.Bytes {
			return nil
		}
		switch f.ID {
		case 3:
			var m Mount
			if err := m.Unmarshal(f.Data); err != nil {
				return err
			}
			r.Rootfs = append(r.Rootfs, m)
		case 10:
			return r.Options.Unmarshal(f.Data)
		}
		return nil
	})
}

// ExecRequest is ExecProcessRequest.
type ExecRequest struct {
	ID, ExecID            string
	Terminal              bool
	Stdin, Stdout, Stderr string
	Spec                  Any
}

// Append appends the wire form.
func (r *ExecRequest) Append(b []byte) []byte {
	b = wire.AppendString(b, 1, r.ID)
	b = wire.AppendString(b, 2, r.ExecID)
	b = wire.AppendBool(b, 3, r.Terminal)
	b = wire.AppendString(b, 4, r.Stdin)
	b = wire.AppendString(b, 5, r.Stdout)
	b = wire.AppendString(b, 6, r.Stderr)
	return appendAny(b, 7, &r.Spec)
}

// Unmarshal decodes b.
func (r *ExecRequest) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		str(f, 1, &r.ID)
		str(f, 2, &r.ExecID)
		boolean(f, 3, &r.Terminal)
		str(f, 4, &r.Stdin)
		str(f, 5, &r.Stdout)
		str(f, 6, &r.Stderr)
		if f.ID == 7 && f.Type == wire.Bytes {
			return r.Spec.Unmarshal(f.Data)
		}
		return nil
	})
}

// ProcessRequest names a process: the Start, State, Delete, Wait, Pids, Pause,
// Resume, Stats, Connect requests all are this (some without an exec id).
type ProcessRequest struct {
	ID, ExecID string
}

// Append appends the wire form.
func (r *ProcessRequest) Append(b []byte) []byte {
	return wire.AppendString(wire.AppendString(b, 1, r.ID), 2, r.ExecID)
}

// Unmarshal decodes b.
func (r *ProcessRequest) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		str(f, 1, &r.ID)
		str(f, 2, &r.ExecID)
		return nil
	})
}

// KillRequest sends a signal.
type KillRequest struct {
	ID, ExecID string
	Signal     uint32
	All        bool
}

// Append appends the wire form.
func (r *KillRequest) Append(b []byte) []byte {
	b = wire.AppendString(b, 1, r.ID)
	b = wire.AppendString(b, 2, r.ExecID)
	b = wire.AppendUint(b, 3, uint64(r.Signal))
	return wire.AppendBool(b, 4, r.All)
}

// Unmarshal decodes b.
func (r *KillRequest) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		str(f, 1, &r.ID)
		str(f, 2, &r.ExecID)
		num(f, 3, &r.Signal)
		boolean(f, 4, &r.All)
		return nil
	})
}

// ResizeRequest is ResizePtyRequest; sizes are in characters.
type ResizeRequest struct {
	ID, ExecID    string
	Width, Height uint32
}

// Append appends the wire form.
func (r *ResizeRequest) Append(b []byte) []byte {
	b = wire.AppendString(b, 1, r.ID)
	b = wire.AppendString(b, 2, r.ExecID)
	b = wire.AppendUint(b, 3, uint64(r.Width))
	return wire.AppendUint(b, 4, uint64(r.Height))
}

// Unmarshal decodes b.
func (r *ResizeRequest) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		str(f, 1, &r.ID)
		str(f, 2, &r.ExecID)
		num(f, 3, &r.Width)
		num(f, 4, &r.Height)
		return nil
	})
}

// CloseIORequest closes a process's stdin.
type CloseIORequest struct {
	ID, ExecID string
	Stdin      bool
}

// Append appends the wire form.
func (r *CloseIORequest) Append(b []byte) []byte {
	b = wire.AppendString(b, 1, r.ID)
	b = wire.AppendString(b, 2, r.ExecID)
	return wire.AppendBool(b, 3, r.Stdin)
}

// Unmarshal decodes b.
func (r *CloseIORequest) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		str(f, 1, &r.ID)
		str(f, 2, &r.ExecID)
		boolean(f, 3, &r.Stdin)
		return nil
	})
}

// UpdateRequest is UpdateTaskRequest without its annotations.
type UpdateRequest struct {
	ID        string
	Resources Any
}

// Append appends the wire form.
func (r *UpdateRequest) Append(b []byte) []byte {
	return appendAny(wire.AppendString(b, 1, r.ID), 2, &r.Resources)
}

// Unmarshal decodes b.
func (r *UpdateRequest) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		str(f, 1, &r.ID)
		if f.ID == 2 && f.Type == wire.Bytes {
			return r.Resources.Unmarshal(f.Data)
		}
		return nil
	})
}

// ShutdownRequest asks the shim to end; Now even while containers are left.
type ShutdownRequest struct {
	ID  string
	Now bool
}

// Append appends the wire form.
func (r *ShutdownRequest) Append(b []byte) []byte {
	return wire.AppendBool(wire.AppendString(b, 1, r.ID), 2, r.Now)
}

// Unmarshal decodes b.
func (r *ShutdownRequest) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		str(f, 1, &r.ID)
		boolean(f, 2, &r.Now)
		return nil
	})
}

func appendAny(b []byte, field int, a *Any) []byte {
	if a.URL == "" && len(a.Value) == 0 {
		return b
	}
	return wire.AppendBytes(b, field, a.Append(nil))
}

func str(f wire.Field, id int, p *string) {
	if f.ID == id && f.Type == wire.Bytes {
		*p = string(f.Data)
	}
}

func num(f wire.Field, id int, p *uint32) {
	if f.ID == id && f.Type == wire.Varint {
		*p = uint32(f.Num)
	}
}

func boolean(f wire.Field, id int, p *bool) {
	if f.ID == id && f.Type == wire.Varint {
		*p = f.Num != 0
	}
}

// appendTime appends a google.protobuf.Timestamp field, or nothing for zero.
func appendTime(b []byte, field int, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	var p []byte
	p = wire.AppendUint(p, 1, uint64(t.Unix()))
	p = wire.AppendUint(p, 2, uint64(t.Nanosecond()))
	return wire.AppendBytes(b, field, p)
}

func timestamp(f wire.Field, id int, t *time.Time) error {
	if f.ID != id || f.Type != wire.Bytes {
		return nil
	}
	var sec, nsec int64
	err := wire.Each(f.Data, func(f wire.Field) error {
		if f.ID == 1 && f.Type == wire.Varint {
			sec = int64(f.Num)
		}
		if f.ID == 2 && f.Type == wire.Varint {
			nsec = int64(int32(f.Num))
		}
		return nil
	})
	*t = time.Unix(sec, nsec).UTC()
	return err
}

// Details of a status tell our own clients what a failed start was about.
const (
	DetailCommandNotFound      = "cale.command.NotFound"
	DetailCommandNotExecutable = "cale.command.NotExecutable"
)
