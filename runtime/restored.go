package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"cale/runtime/linux"
	"cale/runtime/seccomp"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// restored is what the processes that CRIU has brought back are held against before any of them runs. CRIU takes
// namespaces, identities, capabilities and filters from its images alone, and those may come from anyone.
type restored struct {
	c    *Container
	caps capSets
	// filtered is set where each thread must have a seccomp filter. Which one it is the kernel does not tell.
	filtered bool
	// outside are the namespaces that no process may be in, by the name in /proc; within those that all must be in.
	outside map[string][]nsID
	within  map[string]nsID
}

// nsID names a namespace for as long as something holds it.
type nsID struct{ dev, ino uint64 }

func namespaceID(path string) (nsID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nsID{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return nsID{st.Dev, st.Ino}, nil
}

// procNamespaces are the names that /proc and CRIU have for namespaces.
var procNamespaces = map[specs.LinuxNamespaceType]string{
	specs.MountNamespace: "mnt", specs.UTSNamespace: "uts", specs.IPCNamespace: "ipc", specs.UserNamespace: "user",
	specs.TimeNamespace: "time", specs.NetworkNamespace: "net", specs.PIDNamespace: "pid", specs.CgroupNamespace: "cgroup",
}

// newRestored works out what the configuration allows. criu is CRIU's process: it has a mount namespace with all that
// the host has mounted.
func newRestored(c *Container, criu int) (*restored, error) {
	s := c.spec
	v := &restored{c: c, outside: map[string][]nsID{}, within: map[string]nsID{}}
	newUser := false
	for _, ns := range s.Linux.Namespaces {
		name := procNamespaces[ns.Type]
		if ns.Path != "" {
			id, err := namespaceID(ns.Path)
			if err != nil {
				return nil, fmt.Errorf("namespace %s: %w", ns.Type, err)
			}
			v.within[name] = id
			continue
		}
		newUser = newUser || ns.Type == specs.UserNamespace
		for _, pid := range []string{"self", strconv.Itoa(criu)} {
			id, err := namespaceID("/proc/" + pid + "/ns/" + name)
			if err != nil {
				return nil, err
			}
			v.outside[name] = append(v.outside[name], id)
		}
	}
	v.caps = newCapSets(s.Process.Capabilities, newUser || v.within["user"] != nsID{}, func(string) {})
	if s.Linux.Seccomp != nil {
		f, err := seccomp.Compile(s.Linux.Seccomp)
		if err != nil {
			return nil, err
		}
		v.filtered = len(f.Program) > 0
	}
	return v, nil
}

// verify looks at all threads of init and what descends from it. They must stand still.
func (v *restored) verify() error {
	if newUser := v.outside["user"]; newUser != nil {
		if err := v.verifyMaps(); err != nil {
			return err
		}
		// CRIU makes but one; a process in another one would have rights that its sets do not tell.
		id, err := namespaceID(fmt.Sprintf("/proc/%d/ns/user", v.c.rec.Pid))
		if err != nil {
			return err
		}
		v.within["user"] = id
	}
	members, err := v.c.group.Pids()
	if err != nil {
		return err
	}
	pids, err := descendants(v.c.rec.Pid)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return err
		}
		for _, t := range tasks {
			dir := fmt.Sprintf("/proc/%d/task/%s", pid, t.Name())
			status, err := readStatus(dir)
			if err != nil {
				return err
			}
			if strings.HasPrefix(status["State"], "Z") || strings.HasPrefix(status["State"], "X") {
				continue // it will not run
			}
			if !slices.Contains(members, pid) {
				return refusal(pid, "is outside the container's control group")
			}
			if err := v.thread(pid, dir, status); err != nil {
				return err
			}
		}
	}
	return nil
}

// refusal is the error of a process that has more than the configuration gives.
func refusal(pid int, what string) error {
	return fmt.Errorf("the checkpoint is refused: process %d of it %s", pid, what)
}

func (v *restored) thread(pid int, dir string, status map[string]string) error {
	for name, list := range v.outside {
		id, err := namespaceID(dir + "/ns/" + name)
		if err != nil {
			return err
		}
		if slices.Contains(list, id) {
			return refusal(pid, "is in the host's "+name+" namespace, and the configuration makes a new one")
		}
	}
	for name, want := range v.within {
		id, err := namespaceID(dir + "/ns/" + name)
		if err != nil {
			return err
		}
		if id != want {
			return refusal(pid, "is not in the "+name+" namespace of the container")
		}
	}
	// A program may be given what is in the bounding set, and what can be inherited, without being init.
	all := v.caps.bounding | v.caps.permitted | v.caps.inheritable
	for _, c := range []struct {
		name string
		may  uint64
	}{{"CapBnd", v.caps.bounding}, {"CapPrm", all}, {"CapEff", all}, {"CapInh", all}, {"CapAmb", all}} {
		has, err := strconv.ParseUint(status[c.name], 16, 64)
		if err != nil {
			return fmt.Errorf("status of process %d: %s: %w", pid, c.name, err)
		}
		if more := has &^ c.may; more != 0 {
			return refusal(pid, fmt.Sprintf("has capabilities that the configuration does not give (%s: %x too many)", c.name, more))
		}
	}
	if v.c.spec.Process.NoNewPrivileges && status["NoNewPrivs"] != "1" {
		return refusal(pid, "may gain new privileges, and the configuration denies it")
	}
	if v.filtered && status["Seccomp"] != "2" {
		return refusal(pid, "has no seccomp filter, and the configuration has one")
	}
	return v.labels(pid, dir)
}

// labels checks what AppArmor and SELinux hold a thread to.
func (v *restored) labels(pid int, dir string) error {
	if want := v.c.spec.Process.ApparmorProfile; want != "" {
		text, err := os.ReadFile(dir + "/attr/apparmor/current")
		if errors.Is(err, os.ErrNotExist) { // before Linux 5.8
			text, err = os.ReadFile(dir + "/attr/current")
		}
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(strings.TrimSpace(string(text)), " (")
		if name != want && !strings.HasPrefix(name, want+"//") {
			return refusal(pid, fmt.Sprintf("has the AppArmor profile %q instead of %q", name, want))
		}
	}
	if want := v.c.spec.Process.SelinuxLabel; want != "" {
		text, err := os.ReadFile(dir + "/attr/current")
		if err != nil {
			return err
		}
		if label := string(bytes.TrimRight(text, "\x00\n")); label != want {
			return refusal(pid, fmt.Sprintf("has the SELinux label %q instead of %q", label, want))
		}
	}
	return nil
}

// verifyMaps compares the mappings of a user namespace of the container's own.
func (v *restored) verifyMaps() error {
	l := v.c.spec.Linux
	for file, ids := range map[string][]specs.LinuxIDMapping{"uid_map": l.UIDMappings, "gid_map": l.GIDMappings} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", v.c.rec.Pid, file))
		if err != nil {
			return err
		}
		var has, want []string
		for line := range strings.Lines(string(text)) {
			has = append(has, strings.Join(strings.Fields(line), " "))
		}
		for _, m := range ids {
			want = append(want, fmt.Sprint(m.ContainerID, m.HostID, m.Size))
		}
		slices.Sort(has) // the kernel sorts long ones
		slices.Sort(want)
		if !slices.Equal(has, want) {
			return refusal(v.c.rec.Pid, fmt.Sprintf("has a user namespace with other mappings: %s is %q instead of %q", file, has, want))
		}
	}
	return nil
}

// readStatus reads the status in a process's or thread's directory of /proc (proc_pid_status(5)).
func readStatus(dir string) (map[string]string, error) {
	text, err := os.ReadFile(dir + "/status")
	if err != nil {
		return nil, err
	}
	m := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		m[key] = strings.TrimSpace(value)
	}
	return m, nil
}

// descendants are a process, which comes first, and all that descend from it.
func descendants(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, e := range entries {
		p, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if st, err := linux.ReadProcessStat(p); err == nil { // else it is gone, and none of those that stand still
			children[st.Parent] = append(children[st.Parent], p)
		}
	}
	list := []int{pid}
	for i := 0; i < len(list); i++ {
		list = append(list, children[list[i]]...)
	}
	return list, nil
}
