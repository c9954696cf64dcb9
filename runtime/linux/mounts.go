package linux

import (
	"fmt"
	"os"
	"path/filepath"
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

// Propagation says how mounts below a path of this process spread: whether others get what is mounted here, and whether
// this place gets what others mount (mount_namespaces(7)). What isn't there is where its nearest parent is.
func Propagation(path string) (shared, slave bool, err error) {
	var stx unix.Statx_t
	for {
		err = unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &stx)
		if err != unix.ENOENT || path == "/" {
			break
		}
		path = filepath.Dir(path)
	}
	if err != nil {
		return false, false, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, false, err
	}
	id := strconv.FormatUint(stx.Mnt_id, 10)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 7 || fields[0] != id {
			continue
		}
		for _, f := range fields[6:] { // the optional ones, up to a dash
			if f == "-" {
				break
			}
			shared = shared || strings.HasPrefix(f, "shared:")
			slave = slave || strings.HasPrefix(f, "master:")
		}
	}
	return shared, slave, nil
}
