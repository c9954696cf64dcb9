package linux

import (
	"strings"

	"golang.org/x/sys/unix"
)

// FSMessage is what the kernel says of a file system that fsconfig(2) could not make, in parentheses after a space, or
// "" if it says nothing.
func FSMessage(fs int) string {
	var buf [512]byte
	n, err := unix.Read(fs, buf[:])
	if err != nil || n < 3 {
		return ""
	}
	return " (" + strings.TrimSpace(string(buf[2:n])) + ")"
}
