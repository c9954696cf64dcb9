package linux

import (
	"bytes"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// ProcessStat is what /proc/<pid>/stat says that outlives a reuse of the pid.
type ProcessStat struct {
	// State is the letter of proc_pid_stat(5).
	State byte
	// Start is the time the process started after boot, in clock ticks: with the pid it names a process for good.
	Start uint64
	// Parent is its parent's pid.
	Parent int
	// Exit is the wait status of one that has ended, for those who may trace it.
	Exit uint32
}

// Dead reports whether the process has ended, even if nobody has waited for it.
func (s ProcessStat) Dead() bool { return s.State == 'Z' || s.State == 'X' || s.State == 'x' }

// ReadProcessStat reads a process's stat; the error is ENOENT or ESRCH if there is none.
func ReadProcessStat(pid int) (ProcessStat, error) {
	var s ProcessStat
	var buf [1024]byte
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return s, err
	}
	n, err := unix.Read(fd, buf[:])
	unix.Close(fd)
	if err != nil {
		return s, err
	}
	// The name in parentheses may hold anything: what counts comes after the last one.
	i := bytes.LastIndexByte(buf[:n], ')')
	if i < 0 {
		return s, fmt.Errorf("stat of process %d: unknown format", pid)
	}
	f := bytes.Fields(buf[i+1 : n])
	if len(f) < 20 || len(f[0]) != 1 {
		return s, fmt.Errorf("stat of process %d: unknown format", pid)
	}
	s.State = f[0][0]
	if s.Parent, err = strconv.Atoi(string(f[1])); err != nil {
		return s, err
	}
	if len(f) > 49 {
		exit, _ := strconv.ParseUint(string(f[49]), 10, 32)
		s.Exit = uint32(exit)
	}
	s.Start, err = strconv.ParseUint(string(f[19]), 10, 64)
	return s, err
}
