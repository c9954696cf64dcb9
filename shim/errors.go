package shim

import (
	"errors"
	"io/fs"
	"strings"

	"cale/shim/task"
	"cale/shim/ttrpc"
)

// IsNotFound reports that the container, exec or shim does not exist.
func IsNotFound(err error) bool {
	return hasCode(err, ttrpc.NotFound) || errors.Is(err, fs.ErrNotExist)
}

// IsNotRunning reports that the operation needs a running process.
func IsNotRunning(err error) bool { return hasCode(err, ttrpc.FailedPrecondition) }

// IsUnimplemented reports that the shim does not know the method: it may be anyone's.
func IsUnimplemented(err error) bool { return hasCode(err, ttrpc.Unimplemented) }

// IsUnavailable reports that the shim went away during the call.
func IsUnavailable(err error) bool { return hasCode(err, ttrpc.Unavailable) }

// IsCommandNotFound reports that the command to run does not exist (Docker's 127).
func IsCommandNotFound(err error) bool {
	s, ok := errors.AsType[*ttrpc.Status](err)
	if !ok {
		return false
	}
	// Other shims only have runc's texts to tell it by.
	return s.Detail == task.DetailCommandNotFound || (s.Detail == "" &&
		(strings.Contains(s.Message, "executable file not found in $PATH") ||
			strings.Contains(s.Message, "exec: ") && strings.HasSuffix(s.Message, "no such file or directory")))
}

// IsCommandNotExecutable reports that the command can not be executed (Docker's 126).
func IsCommandNotExecutable(err error) bool {
	s, ok := errors.AsType[*ttrpc.Status](err)
	if !ok {
		return false
	}
	return s.Detail == task.DetailCommandNotExecutable || (s.Detail == "" &&
		strings.Contains(s.Message, "exec") &&
		(strings.HasSuffix(s.Message, "permission denied") || strings.HasSuffix(s.Message, "is a directory") ||
			strings.HasSuffix(s.Message, "exec format error")))
}
