package ttrpc

import (
	"errors"
	"time"

	"cale/wire"
)

// request is ttrpc's Request message.
type request struct {
	service, method string
	payload         []byte
	timeout         time.Duration
}

func (r *request) append(b []byte) []byte {
	b = wire.AppendString(b, 1, r.service)
	b = wire.AppendString(b, 2, r.method)
	b = wire.AppendBytes(b, 3, r.payload)
	return wire.AppendUint(b, 4, uint64(r.timeout))
}

func (r *request) unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		switch {
		case f.ID == 1 && f.Type == wire.Bytes:
			r.service = string(f.Data)
		case f.ID == 2 && f.Type == wire.Bytes:
			r.method = string(f.Data)
		case f.ID == 3 && f.Type == wire.Bytes:
			r.payload = f.Data
		case f.ID == 4 && f.Type == wire.Varint:
			r.timeout = time.Duration(f.Num)
		}
		return nil
	})
}

// response is ttrpc's Response message.
type response struct {
	status  *Status
	payload []byte
}

func (r *response) append(b []byte) []byte {
	if r.status != nil {
		b = wire.AppendBytes(b, 1, r.status.append(nil))
	}
	return wire.AppendBytes(b, 2, r.payload)
}

func (r *response) unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		switch {
		case f.ID == 1 && f.Type == wire.Bytes:
			r.status = new(Status)
			return r.status.unmarshal(f.Data)
		case f.ID == 2 && f.Type == wire.Bytes:
			r.payload = f.Data
		}
		return nil
	})
}

// Code is a gRPC status code.
type Code uint32

// The codes shims use.
const (
	OK                 Code = 0
	Canceled           Code = 1
	Unknown            Code = 2
	InvalidArgument    Code = 3
	DeadlineExceeded   Code = 4
	NotFound           Code = 5
	AlreadyExists      Code = 6
	PermissionDenied   Code = 7
	ResourceExhausted  Code = 8
	FailedPrecondition Code = 9
	Unimplemented      Code = 12
	Internal           Code = 13
	Unavailable        Code = 14
)

// Status is google.rpc.Status: the error of a call, with a class that survives
// the wire.
type Status struct {
	Code    Code
	Message string
	// Detail is a finer class among our own programs.
	Detail string
}

// detailField is where a status has its detail: a field that google.rpc.Status
// lacks, which its other readers skip. Of its own details containerd 2 wants to
// know the types.
const detailField = 1000

// Error returns the message.
func (s *Status) Error() string { return s.Message }

func (s *Status) append(b []byte) []byte {
	b = wire.AppendUint(b, 1, uint64(s.Code))
	b = wire.AppendString(b, 2, s.Message)
	if s.Detail != "" {
		b = wire.AppendString(b, detailField, s.Detail)
	}
	return b
}

func (s *Status) unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		switch {
		case f.ID == 1 && f.Type == wire.Varint:
			s.Code = Code(f.Num)
		case f.ID == 2 && f.Type == wire.Bytes:
			s.Message = string(f.Data)
		case f.ID == detailField && f.Type == wire.Bytes:
			s.Detail = string(f.Data)
		}
		return nil
	})
}

// CodeOf returns the class of err: OK for nil, Unknown for errors without one.
func CodeOf(err error) Code {
	if err == nil {
		return OK
	}
	if s, ok := errors.AsType[*Status](err); ok {
		return s.Code
	}
	return Unknown
}
