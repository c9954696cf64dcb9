package task

import "cale/wire"

// CheckpointRequest is CheckpointTaskRequest.
type CheckpointRequest struct {
	ID, Path string
	Options  Any
}

// Append appends the wire form.
func (r *CheckpointRequest) Append(b []byte) []byte {
	return appendAny(wire.AppendString(wire.AppendString(b, 1, r.ID), 2, r.Path), 3, &r.Options)
}

// Unmarshal decodes b.
func (r *CheckpointRequest) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		str(f, 1, &r.ID)
		str(f, 2, &r.Path)
		if f.ID == 3 && f.Type == wire.Bytes {
			return r.Options.Unmarshal(f.Data)
		}
		return nil
	})
}

// CheckpointOptions is containerd.runc.v1.CheckpointOptions, without the namespaces to leave empty: the network's
// always is.
type CheckpointOptions struct {
	Exit, OpenTCP, ExternalUnixSockets, Terminal, FileLocks bool
	CgroupsMode, ImagePath, WorkPath                        string
}

// Append appends the wire form.
func (o *CheckpointOptions) Append(b []byte) []byte {
	b = wire.AppendBool(b, 1, o.Exit)
	b = wire.AppendBool(b, 2, o.OpenTCP)
	b = wire.AppendBool(b, 3, o.ExternalUnixSockets)
	b = wire.AppendBool(b, 4, o.Terminal)
	b = wire.AppendBool(b, 5, o.FileLocks)
	b = wire.AppendString(b, 7, o.CgroupsMode)
	b = wire.AppendString(b, 8, o.ImagePath)
	return wire.AppendString(b, 9, o.WorkPath)
}

// Unmarshal decodes b.
func (o *CheckpointOptions) Unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		boolean(f, 1, &o.Exit)
		boolean(f, 2, &o.OpenTCP)
		boolean(f, 3, &o.ExternalUnixSockets)
		boolean(f, 4, &o.Terminal)
		boolean(f, 5, &o.FileLocks)
		str(f, 7, &o.CgroupsMode)
		str(f, 8, &o.ImagePath)
		str(f, 9, &o.WorkPath)
		return nil
	})
}
