package task

import (
	"time"

	"cale/wire"
)

// PidResponse is CreateTaskResponse and StartResponse.
type PidResponse struct {
	Pid uint32
}

// Append appends the wire form.
func (r *PidResponse) Append(b []byte) []byte { return wire.AppendUint(b, 1, uint64(r.Pid)) }

// Unmarshal decodes b.
func (r *PidResponse) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		num(f, 1, &r.Pid)
		return nil
	})
}

// DeleteResponse tells how a deleted process had ended. It is also what the
// shim's delete command prints.
type DeleteResponse struct {
	Pid, ExitStatus uint32
	ExitedAt        time.Time
}

// Append appends the wire form.
func (r *DeleteResponse) Append(b []byte) []byte {
	b = wire.AppendUint(b, 1, uint64(r.Pid))
	b = wire.AppendUint(b, 2, uint64(r.ExitStatus))
	return appendTime(b, 3, r.ExitedAt)
}

// Unmarshal decodes b.
func (r *DeleteResponse) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		num(f, 1, &r.Pid)
		num(f, 2, &r.ExitStatus)
		return timestamp(f, 3, &r.ExitedAt)
	})
}

// WaitResponse tells how a process ended.
type WaitResponse struct {
	ExitStatus uint32
	ExitedAt   time.Time
}

// Append appends the wire form.
func (r *WaitResponse) Append(b []byte) []byte {
	return appendTime(wire.AppendUint(b, 1, uint64(r.ExitStatus)), 2, r.ExitedAt)
}

// Unmarshal decodes b.
func (r *WaitResponse) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		num(f, 1, &r.ExitStatus)
		return timestamp(f, 2, &r.ExitedAt)
	})
}

// StateResponse describes a process.
type StateResponse struct {
	ID, Bundle            string
	Pid                   uint32
	Status                Status
	Stdin, Stdout, Stderr string
	Terminal              bool
	ExitStatus            uint32
	ExitedAt              time.Time
	ExecID                string
}

// Append appends the wire form.
func (r *StateResponse) Append(b []byte) []byte {
	b = wire.AppendString(b, 1, r.ID)
	b = wire.AppendString(b, 2, r.Bundle)
	b = wire.AppendUint(b, 3, uint64(r.Pid))
	b = wire.AppendUint(b, 4, uint64(r.Status))
	b = wire.AppendString(b, 5, r.Stdin)
	b = wire.AppendString(b, 6, r.Stdout)
	b = wire.AppendString(b, 7, r.Stderr)
	b = wire.AppendBool(b, 8, r.Terminal)
	b = wire.AppendUint(b, 9, uint64(r.ExitStatus))
	b = appendTime(b, 10, r.ExitedAt)
	return wire.AppendString(b, 11, r.ExecID)
}

// Unmarshal decodes b.
func (r *StateResponse) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		str(f, 1, &r.ID)
		str(f, 2, &r.Bundle)
		num(f, 3, &r.Pid)
		if f.ID == 4 && f.Type == wire.Varint {
			r.Status = Status(f.Num)
		}
		str(f, 5, &r.Stdin)
		str(f, 6, &r.Stdout)
		str(f, 7, &r.Stderr)
		boolean(f, 8, &r.Terminal)
		num(f, 9, &r.ExitStatus)
		str(f, 11, &r.ExecID)
		return timestamp(f, 10, &r.ExitedAt)
	})
}

// PidsResponse lists the processes of a container.
type PidsResponse struct {
	Pids []uint32
}

// Append appends the wire form: each pid in a ProcessInfo.
func (r *PidsResponse) Append(b []byte) []byte {
	for _, p := range r.Pids {
		b = wire.AppendBytes(b, 1, wire.AppendUint(nil, 1, uint64(p)))
	}
	return b
}

// Unmarshal decodes b.
func (r *PidsResponse) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		if f.ID != 1 || f.Type != wire.Bytes {
			return nil
		}
		var pid uint32
		if err := wire.Each(f.Data, func(f wire.Field) error {
			num(f, 1, &pid)
			return nil
		}); err != nil {
			return err
		}
		r.Pids = append(r.Pids, pid)
		return nil
	})
}

// StatsRequest asks for a container's metrics.
type StatsRequest struct {
	ID string
	// Native is our addition to the protocol: answer with TypeStats. Other shims
	// skip it as an unknown field.
	Native bool
}

// nativeField is far from the numbers containerd may come to use.
const nativeField = 1000

// Append appends the wire form.
func (r *StatsRequest) Append(b []byte) []byte {
	return wire.AppendBool(wire.AppendString(b, 1, r.ID), nativeField, r.Native)
}

// Unmarshal decodes b.
func (r *StatsRequest) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		str(f, 1, &r.ID)
		boolean(f, nativeField, &r.Native)
		return nil
	})
}

// StatsResponse carries a container's metrics.
type StatsResponse struct {
	Stats Any
}

// Append appends the wire form.
func (r *StatsResponse) Append(b []byte) []byte { return appendAny(b, 1, &r.Stats) }

// Unmarshal decodes b.
func (r *StatsResponse) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		if f.ID == 1 && f.Type == wire.Bytes {
			return r.Stats.Unmarshal(f.Data)
		}
		return nil
	})
}

// ConnectResponse names the shim's pid and the container's.
type ConnectResponse struct {
	ShimPid, TaskPid uint32
	Version          string
}

// Append appends the wire form.
func (r *ConnectResponse) Append(b []byte) []byte {
	b = wire.AppendUint(b, 1, uint64(r.ShimPid))
	b = wire.AppendUint(b, 2, uint64(r.TaskPid))
	return wire.AppendString(b, 3, r.Version)
}

// Unmarshal decodes b.
func (r *ConnectResponse) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		num(f, 1, &r.ShimPid)
		num(f, 2, &r.TaskPid)
		str(f, 3, &r.Version)
		return nil
	})
}

// RuncOptions is the part of containerd.runc.v1.Options that a shim without
// runc can honour.
type RuncOptions struct {
	NoPivotRoot, NoNewKeyring bool
	// BinaryName is the path of a foreign OCI runtime, "" for our own.
	BinaryName string
	// Root is the foreign runtime's state directory, "" for its default.
	Root          string
	SystemdCgroup bool
}

// Append appends the wire form.
func (r *RuncOptions) Append(b []byte) []byte {
	b = wire.AppendBool(b, 1, r.NoPivotRoot)
	b = wire.AppendBool(b, 2, r.NoNewKeyring)
	b = wire.AppendString(b, 6, r.BinaryName)
	b = wire.AppendString(b, 7, r.Root)
	return wire.AppendBool(b, 9, r.SystemdCgroup)
}

// Unmarshal decodes b.
func (r *RuncOptions) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		boolean(f, 1, &r.NoPivotRoot)
		boolean(f, 2, &r.NoNewKeyring)
		str(f, 6, &r.BinaryName)
		str(f, 7, &r.Root)
		boolean(f, 9, &r.SystemdCgroup)
		return nil
	})
}
