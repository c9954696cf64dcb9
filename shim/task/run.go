package task

import (
	"time"

	"cale/wire"
)

// RunRequest is of ServiceOwn: it runs a process in a container from start to end.
type RunRequest struct {
	// ID is the container's, RunID the caller's name for the process, by which EndRun ends it.
	ID, RunID string
	// Stdout and Stderr are files for the process's output, "" for /dev/null.
	Stdout, Stderr string
	// Spec is an OCI process in JSON.
	Spec []byte
	// Timeout is how long the process may take before it is killed with all that descend from it; 0 is for ever.
	Timeout time.Duration
}

// Append appends the wire form.
func (r *RunRequest) Append(b []byte) []byte {
	b = wire.AppendString(b, 1, r.ID)
	b = wire.AppendString(b, 2, r.RunID)
	b = wire.AppendString(b, 3, r.Stdout)
	b = wire.AppendString(b, 4, r.Stderr)
	if len(r.Spec) > 0 {
		b = wire.AppendBytes(b, 5, r.Spec)
	}
	return wire.AppendUint(b, 6, uint64(r.Timeout))
}

// Unmarshal decodes b; Spec refers to it.
func (r *RunRequest) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		str(f, 1, &r.ID)
		str(f, 2, &r.RunID)
		str(f, 3, &r.Stdout)
		str(f, 4, &r.Stderr)
		if f.ID == 5 && f.Type == wire.Bytes {
			r.Spec = f.Data
		}
		if f.ID == 6 && f.Type == wire.Varint {
			r.Timeout = time.Duration(f.Num)
		}
		return nil
	})
}

// RunResponse tells how a process of RunRequest ended.
type RunResponse struct {
	ExitStatus uint32
	// Killed is set when it took too long, or EndRun was called.
	Killed bool
}

// Append appends the wire form.
func (r *RunResponse) Append(b []byte) []byte {
	return wire.AppendBool(wire.AppendUint(b, 1, uint64(r.ExitStatus)), 2, r.Killed)
}

// Unmarshal decodes b.
func (r *RunResponse) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		num(f, 1, &r.ExitStatus)
		boolean(f, 2, &r.Killed)
		return nil
	})
}
