package linux

import (
	"fmt"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// Who is not the parent learns how a process ended, before and (from Linux 6.15 on) after the parent did.
func TestExitStatus(t *testing.T) {
	for script, want := range map[string]int{"exit 7": 7, "kill -9 $$": -1} {
		cmd := exec.Command("sh", "-c", "read x; "+script)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if _, _, settled := ExitStatus(fd, cmd.Process.Pid); settled {
			t.Error("it has not ended yet")
		}
		in.Close()
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1); err != nil {
			t.Fatal(err)
		}
		check := func(when string) {
			ws, known, settled := ExitStatus(fd, cmd.Process.Pid)
			if !settled || !known || ws.ExitStatus() != want || want < 0 && ws.Signal() != unix.SIGKILL {
				t.Errorf("%s %s: %#x, known %v, settled %v", script, when, ws, known, settled)
			}
		}
		check("before its parent asked")
		cmd.Wait()
		var u unix.Utsname
		var major, minor int
		if err := unix.Uname(&u); err != nil {
			t.Fatal(err)
		}
		fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
		if major*1000+minor >= 6015 {
			check("after its parent asked")
		}
	}
}
