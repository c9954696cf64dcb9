package linux

import (
	"golang.org/x/sys/unix"
)

// pidfdInfoExit asks for an exit code (linux/pidfd.h, since 6.15); the kernel sets it in its answer if it has one.
const pidfdInfoExit = 1 << 3

// ExitStatus tells how the process pid, which pidfd is of, has ended, to somebody who is not its parent. settled is
// false while it runs, and while the kernel has not said it yet but may. Once it is true the status is
// known only if known is: kernels before 6.15 tell it until the parent has asked for it, later ones also then.
func ExitStatus(pidfd, pid int) (status unix.WaitStatus, known, settled bool) {
	info := unix.PidfdInfo{Mask: pidfdInfoExit}
	err := unix.IoctlPidfdInfo(pidfd, &info)
	if err == nil && info.Mask&pidfdInfoExit != 0 {
		return unix.WaitStatus(info.Exit_code), true, true
	}
	st, serr := ReadProcessStat(pid)
	// Only if the process is there now, the pid was its.
	if unix.PidfdSendSignal(pidfd, 0, nil, 0) == unix.ESRCH {
		// An answer that came before its parent's asking says nothing about what the kernel tells after it.
		info := unix.PidfdInfo{Mask: pidfdInfoExit}
		if unix.IoctlPidfdInfo(pidfd, &info) == nil && info.Mask&pidfdInfoExit != 0 {
			return unix.WaitStatus(info.Exit_code), true, true
		}
		return 0, false, true
	}
	if serr == nil && st.Dead() {
		return unix.WaitStatus(st.Exit), true, true
	}
	return 0, false, false
}
