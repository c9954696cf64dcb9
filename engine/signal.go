package engine

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// parseSignal reads a signal's number or name (with or without SIG, RTMIN+n, RTMAX-n). "" is SIGTERM.
func parseSignal(s string) (syscall.Signal, error) {
	if s == "" {
		return unix.SIGTERM, nil
	}
	bad := invalid("Invalid signal: %s", s)
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > 64 {
			return 0, bad
		}
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	// The C library keeps the first two real-time signals for itself.
	const rtmin, rtmax = 34, 64
	n := 0
	switch {
	case name == "RTMIN":
		n = rtmin
	case name == "RTMAX":
		n = rtmax
	case strings.HasPrefix(name, "RTMIN+"):
		if v, err := strconv.Atoi(name[6:]); err == nil {
			n = rtmin + v
		}
	case strings.HasPrefix(name, "RTMAX-"):
		if v, err := strconv.Atoi(name[6:]); err == nil {
			n = rtmax - v
		}
	default:
		if sig := unix.SignalNum("SIG" + name); sig != 0 {
			return sig, nil
		}
		return 0, bad
	}
	if n < rtmin || n > rtmax {
		return 0, bad
	}
	return syscall.Signal(n), nil
}
