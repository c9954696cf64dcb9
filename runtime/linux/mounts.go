package linux

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mounts is a process's view of its mounts.
type Mounts struct {
	root   *os.File
	points map[uint64]string // by mount ID
}

// MountsOf looks at a process's mounts.
func MountsOf(pid int) (*Mounts, error) {
	root, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	m := &Mounts{root: root, points: map[uint64]string{}}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		root.Close()
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		if id, err := strconv.ParseUint(fields[0], 10, 64); err == nil {
			m.points[id] = unescapeMount(fields[4])
		}
	}
	return m, nil
}

// unescapeMount undoes the octal escapes of proc_pid_mountinfo(5).
var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace

// Point is where a path of the process leads if something is mounted right there, and whether that is a directory;
// "" if nothing is.
func (m *Mounts) Point(path string) (at string, dir bool) {
	fd, err := unix.Openat2(int(m.root.Fd()), path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	var stx unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_TYPE|unix.STATX_MNT_ID, &stx); err != nil {
		return "", false
	}
	if stx.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return "", false
	}
	return m.points[stx.Mnt_id], stx.Mode&unix.S_IFMT == unix.S_IFDIR
}

// Close lets go of the process's root.
func (m *Mounts) Close() error { return m.root.Close() }
