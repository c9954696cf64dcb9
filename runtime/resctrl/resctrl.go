// Package resctrl puts containers into groups of the kernel's resctrl file system (Intel RDT, AMD QoS): shares of caches
// and of memory bandwidth (config-linux.md, IntelRdt).
package resctrl

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ErrUnavailable is a machine without resctrl, or one where it isn't mounted.
var ErrUnavailable = errors.New("intelRdt: no resctrl file system is mounted")

// Group is what a container has there.
type Group struct {
	// Dir is the class of service: a directory.
	Dir string
	// Made says that Dir is the container's own, and goes with it.
	Made bool
	// Monitor is the container's own monitoring group, or "".
	Monitor string
}

// Mount finds where resctrl is mounted.
func Mount() (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		left, right, ok := strings.Cut(line, " - ")
		if f := strings.Fields(left); ok && len(f) > 4 && strings.HasPrefix(right, "resctrl ") {
			return f[4], nil
		}
	}
	return "", ErrUnavailable
}

// Place works out a container's group below a mount point. It makes nothing, so that the result can be written down first.
func Place(mount string, rdt *specs.LinuxIntelRdt, id string) (Group, error) {
	g := Group{Dir: mount}
	switch name := rdt.ClosID; name {
	case "/":
	case "":
		g.Dir, g.Made = filepath.Join(mount, id), true
	default:
		if name == "." || name == ".." || strings.ContainsAny(name, "/\x00\n") || reserved(name) {
			return g, fmt.Errorf("intelRdt.closID %q is no name of a class", name)
		}
		g.Dir = filepath.Join(mount, name)
	}
	if g.Made && reserved(id) {
		return g, fmt.Errorf("intelRdt: a container of the name %s needs a closID", id)
	}
	if rdt.EnableMonitoring {
		g.Monitor = filepath.Join(g.Dir, "mon_groups", id)
	}
	return g, nil
}

// reserved are names that the file system's root has itself.
func reserved(name string) bool { return name == "info" || name == "mon_groups" || name == "mon_data" }

// Create makes the group and sets or checks its shares. After an error nothing that it made is left.
func (g Group) Create(rdt *specs.LinuxIntelRdt) (err error) {
	want := schemata(rdt)
	err = unix.Mkdir(g.Dir, 0o755)
	fresh := err == nil
	defer func() {
		if err != nil && fresh {
			_ = unix.Rmdir(g.Dir)
		}
	}()
	switch {
	case fresh && rdt.ClosID != "" && len(want) == 0:
		return fmt.Errorf("intelRdt.closID %s: there is no such class, and no schemata to make it with", rdt.ClosID)
	case err != nil && err != unix.EEXIST:
		return fmt.Errorf("intelRdt: make %s: %w", g.Dir, err)
	case fresh || g.Made:
		err = write(g.Dir, want)
	default:
		err = check(g.Dir, want)
	}
	if err == nil && g.Monitor != "" {
		if err = unix.Mkdir(g.Monitor, 0o755); err != nil {
			err = fmt.Errorf("intelRdt: make the monitoring group %s: %w", g.Monitor, err)
		}
	}
	return err
}

// schemata are the lines in the order in which they are to be written.
func schemata(rdt *specs.LinuxIntelRdt) []string {
	var lines []string
	for _, l := range append([]string{rdt.L3CacheSchema, rdt.MemBwSchema}, rdt.Schemata...) {
		if l != "" {
			lines = append(lines, l)
		}
	}
	return lines
}

// Update changes the group's shares.
func (g Group) Update(rdt *specs.LinuxIntelRdt) error { return write(g.Dir, schemata(rdt)) }

func write(dir string, lines []string) error {
	for _, l := range lines {
		if strings.ContainsAny(l, "\n\x00") || !strings.Contains(l, ":") {
			return fmt.Errorf("intelRdt: %q is no schema", l)
		}
		f, err := os.OpenFile(filepath.Join(dir, "schemata"), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return fmt.Errorf("intelRdt: %w", err)
		}
		_, err = f.WriteString(l + "\n")
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return fmt.Errorf("intelRdt: set %q: %w", l, err)
		}
	}
	return nil
}

// check compares a class that was there before with what is asked of it.
func check(dir string, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(dir, "schemata"))
	if err != nil {
		return fmt.Errorf("intelRdt: %w", err)
	}
	have := map[string]string{}
	for line := range strings.Lines(string(text)) {
		shares(line, have)
	}
	for _, l := range lines {
		want := map[string]string{}
		shares(l, want)
		if len(want) == 0 {
			return fmt.Errorf("intelRdt: %q is no schema", l)
		}
		for k, v := range want {
			if have[k] != v {
				return fmt.Errorf("intelRdt: %s has other schemata than %q", dir, l)
			}
		}
	}
	return nil
}

// shares reads a line like "L3:0=7f0;1=1f" into "L3:0" and its like.
func shares(line string, into map[string]string) {
	resource, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
	for part := range strings.SplitSeq(rest, ";") {
		id, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		if n, err := strconv.ParseUint(value, 16, 64); err == nil {
			value = strconv.FormatUint(n, 16) // the kernel writes zeros in front
		}
		into[resource+":"+strings.TrimSpace(id)] = value
	}
}

// TaskFiles are the files in which a process writes "0" to be in the group.
func (g Group) TaskFiles() []string {
	files := []string{filepath.Join(g.Dir, "tasks")}
	if g.Monitor != "" {
		files = append(files, filepath.Join(g.Monitor, "tasks"))
	}
	return files
}

// Remove removes what is the container's own. What is gone is no error.
func (g Group) Remove() error {
	dirs := []string{g.Monitor}
	if g.Made {
		dirs = append(dirs, g.Dir)
	}
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
			return fmt.Errorf("intelRdt: remove %s: %w", dir, err)
		}
	}
	return nil
}
