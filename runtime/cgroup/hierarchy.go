package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrAbsent is a place where control groups can't be had at all.
var ErrAbsent = errors.New("no cgroup hierarchy is mounted")

const (
	mountDir   = "/sys/fs/cgroup"
	mountTable = "/proc/self/mountinfo"
)

// hierarchy is one mounted tree of groups.
type hierarchy struct {
	controllers []string // v1 controllers, "name=systemd", or "" for cgroup2
	mount       string
	own         string // the caller's group as /proc/self/cgroup has it
}

// machine is looked up once: a machine's hierarchies don't change while it runs.
var machine = sync.OnceValues(find)

func hierarchies(root string) ([]hierarchy, error) {
	if root != "" {
		return findFake(root)
	}
	return machine()
}

func find() ([]hierarchy, error) {
	text, err := read("/proc/self", "cgroup")
	if err != nil {
		return nil, err
	}
	var hs []hierarchy
	var mounts []mount
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 || strings.HasPrefix(f[1], "name=") && f[1] != "name=systemd" {
			continue
		}
		h := hierarchy{strings.Split(f[1], ","), usualMount(f[1]), f[2]}
		if h.mount == "" {
			// Not at its usual place: worth reading the mount table, which may be long.
			if mounts == nil {
				mounts, err = readMounts(mountTable)
				if err != nil {
					return nil, err
				}
			}
			for _, m := range mounts {
				if m.is(h.controllers[0]) && visible(m) {
					h.mount = m.point
					break
				}
			}
		}
		if h.mount != "" {
			hs = append(hs, h)
		}
	}
	if len(hs) == 0 {
		return nil, ErrAbsent
	}
	return hs, nil
}

// usualMount returns where everybody mounts the hierarchy, if it is there.
func usualMount(controllers string) string {
	magic, places := int64(unix.CGROUP_SUPER_MAGIC), []string{mountDir + "/" + controllers}
	switch controllers {
	case "":
		magic, places = unix.CGROUP2_SUPER_MAGIC, []string{mountDir, mountDir + "/unified"}
	case "name=systemd":
		places[0] = mountDir + "/systemd"
	}
	for _, p := range places {
		var st unix.Statfs_t
		if unix.Statfs(p, &st) == nil && int64(st.Type) == magic {
			return p
		}
	}
	return ""
}

// visible reports whether a mount is what one sees at its place: another may lie over it.
func visible(m mount) bool {
	var st unix.Statfs_t
	if unix.Statfs(m.point, &st) != nil {
		return false
	}
	return m.v2 && int64(st.Type) == unix.CGROUP2_SUPER_MAGIC || !m.v2 && int64(st.Type) == unix.CGROUP_SUPER_MAGIC
}

// ownDir is the caller's group relative to the mount.
func (h hierarchy) ownDir() (string, error) {
	if h.own == "" || h.own == "/" {
		return "/", nil
	}
	mounts, err := readMounts(mountTable)
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		if m.point != h.mount || !m.is(h.controllers[0]) {
			continue
		}
		// In a container without a cgroup namespace the mount shows only the container's own part.
		if rest, ok := strings.CutPrefix(h.own, strings.TrimSuffix(m.root, "/")); ok && !strings.Contains(rest, "/..") {
			return path.Join("/", rest), nil
		}
	}
	return "/", nil
}

// OwnDirs are the directories of the caller's own groups, by controller like Cgroup.Dirs.
func OwnDirs() (map[string]string, error) {
	hs, err := hierarchies("")
	if err != nil {
		return nil, err
	}
	dirs := map[string]string{}
	for _, h := range hs {
		own, err := h.ownDir()
		if err != nil {
			return nil, err
		}
		for _, name := range h.controllers {
			dirs[name] = path.Join(h.mount, own)
		}
	}
	return dirs, nil
}

// mount is a cgroup line of /proc/self/mountinfo.
type mount struct {
	root, point string
	v2          bool
	options     []string
}

func (m mount) is(controller string) bool {
	if m.v2 || controller == "" {
		return m.v2 && controller == ""
	}
	for _, o := range m.options {
		if o == controller {
			return true
		}
	}
	return false
}

// readMounts reads the mount table as a stream: it has some lines for each container, and who reads it may be a container's
// supervisor, which is to stay small.
func readMounts(table string) ([]mount, error) {
	f, err := os.Open(table)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var mounts []mount
	for r := bufio.NewReaderSize(f, 4096); ; {
		line, err := r.ReadSlice('\n')
		long := err == bufio.ErrBufferFull // an overlay's: those of control groups are short
		for err == bufio.ErrBufferFull {
			_, err = r.ReadSlice('\n')
		}
		if err == io.EOF {
			return mounts, nil
		}
		if err != nil {
			return nil, err
		}
		left, right, ok := bytes.Cut(line, []byte(" - "))
		if long || !ok || !bytes.HasPrefix(right, []byte("cgroup")) {
			continue
		}
		l, r := strings.Fields(string(left)), strings.Fields(string(right))
		if len(l) < 5 || len(r) < 3 || (r[0] != "cgroup" && r[0] != "cgroup2") {
			continue
		}
		mounts = append(mounts, mount{unescape(l[3]), unescape(l[4]), r[0] == "cgroup2", strings.Split(r[2], ",")})
	}
}

// unescape undoes mountinfo's octal escapes.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace

// findFake reads a test's tree: cgroup2 when the directory has cgroup.controllers, else one v1 hierarchy a folder.
func findFake(root string) ([]hierarchy, error) {
	if _, err := os.Stat(root + "/cgroup.controllers"); err == nil {
		return []hierarchy{{[]string{""}, root, "/"}}, nil
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	var hs []hierarchy
	for _, e := range entries {
		name := e.Name()
		switch name {
		case "systemd":
			name = "name=systemd"
		case "unified":
			name = ""
		}
		hs = append(hs, hierarchy{strings.Split(name, ","), root + "/" + e.Name(), "/"})
	}
	return hs, nil
}
