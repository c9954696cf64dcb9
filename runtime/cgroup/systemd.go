package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"cale/runtime/dbus"
	"cale/runtime/linux"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Unit is a transient unit of systemd's, whose control group is a container's.
type Unit struct {
	// Name is the unit's: "prefix-name.scope".
	Name string
	// Slice is the slice it lies in: "machine.slice".
	Slice string
	// User is the user whose own systemd is asked, as linux.User has it; 0 is root, and the machine's.
	User int
}

// ParseUnit reads a cgroupsPath as systemd's driver has it, "slice:prefix:name"; empty is a scope of that ID.
func ParseUnit(cgroupsPath, id string, uid int) (Unit, error) {
	u := Unit{User: uid, Slice: "system.slice"}
	if uid != 0 {
		u.Slice = "user.slice"
	}
	prefix, name := "cale", id
	if cgroupsPath != "" {
		f := strings.Split(cgroupsPath, ":")
		if len(f) != 3 {
			return u, fmt.Errorf("expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got %q instead", cgroupsPath)
		}
		if f[0] != "" {
			u.Slice = f[0]
		}
		prefix, name = f[1], f[2]
	}
	u.Name = name
	switch {
	case strings.HasSuffix(name, ".slice"):
	case prefix == "":
		u.Name += ".scope"
	default:
		u.Name = prefix + "-" + name + ".scope"
	}
	if name == "" || len(u.Name) > 255 || strings.ContainsAny(u.Name, "/\x00\n") {
		return u, fmt.Errorf("cgroupsPath %q: %q is no name of a unit", cgroupsPath, u.Name)
	}
	_, err := expandSlice(u.Slice)
	return u, err
}

// expandSlice is a slice's path below the root: "a-b.slice" is "/a.slice/a-b.slice" (systemd.slice(5)).
func expandSlice(slice string) (string, error) {
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || strings.ContainsAny(slice, "/\x00\n") || len(slice) > 255 {
		return "", fmt.Errorf("invalid slice name: %s", slice)
	}
	if name == "-" {
		return "/", nil
	}
	p, prefix := "", ""
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return "", fmt.Errorf("invalid slice name: %s", slice)
		}
		prefix += part
		p += "/" + prefix + ".slice"
		prefix += "-"
	}
	return p, nil
}

// unitPatience is how long systemd may take to make or end a unit.
const unitPatience = 30 * time.Second

const (
	systemdName = "org.freedesktop.systemd1"
	systemdPath = "/org/freedesktop/systemd1"
	managerName = systemdName + ".Manager"
)

// connect reaches the systemd that has the unit: by the bus, or for root without one by its own socket.
func (u Unit) connect() (*dbus.Conn, error) {
	deadline := time.Now().Add(unitPatience)
	if u.User != 0 {
		var sockets []string
		if u.User == linux.User() {
			sockets = append(sockets, busSocket(os.Getenv("DBUS_SESSION_BUS_ADDRESS")))
			if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
				sockets = append(sockets, dir+"/bus")
			}
		}
		var err error
		// Engines start us with surroundings of all kinds: an address there may be of a bus that is gone.
		for _, socket := range append(sockets, "/run/user/"+strconv.Itoa(u.User)+"/bus") {
			if socket == "" {
				continue
			}
			c, derr := dbus.Dial(socket, systemdName, deadline)
			if derr == nil {
				return c, nil
			}
			if err == nil {
				err = derr
			}
		}
		return nil, fmt.Errorf("systemd cgroup driver: no systemd of user %d can be reached: %w", u.User, err)
	}
	socket := busSocket(os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"))
	if socket == "" {
		socket = "/run/dbus/system_bus_socket"
	}
	c, err := dbus.Dial(socket, systemdName, deadline)
	if err != nil {
		var perr error
		if c, perr = dbus.Dial("/run/systemd/private", "", deadline); perr != nil {
			return nil, fmt.Errorf("systemd cgroup driver: systemd cannot be reached: %w", err)
		}
	}
	return c, nil
}

// busSocket is the socket of a bus address ("unix:path=/run/x,guid=…").
func busSocket(address string) string {
	for a := range strings.SplitSeq(address, ";") {
		rest, ok := strings.CutPrefix(a, "unix:")
		if !ok {
			continue
		}
		for kv := range strings.SplitSeq(rest, ",") {
			if p, ok := strings.CutPrefix(kv, "path="); ok {
				return p
			}
		}
	}
	return ""
}

func call(c *dbus.Conn, member, sig string, args ...any) ([]any, error) {
	return c.Call(systemdPath, managerName, member, sig, args...)
}

// Path asks for the unit's control group, as an absolute cgroupsPath. It is known before the unit exists.
func (u Unit) Path() (string, error) {
	slice, err := expandSlice(u.Slice)
	if err != nil {
		return "", err
	}
	if u.User == 0 {
		return path.Join(slice, u.Name), nil
	}
	c, err := u.connect()
	if err != nil {
		return "", err
	}
	defer c.Close()
	out, err := c.Call(systemdPath, "org.freedesktop.DBus.Properties", "Get", "ss", managerName, "ControlGroup")
	if err != nil {
		return "", fmt.Errorf("ask systemd for its control group: %w", err)
	}
	if len(out) == 1 {
		if v, ok := out[0].(dbus.Variant); ok {
			if root, ok := v.Value.(string); ok {
				return path.Join("/", root, slice, u.Name), nil
			}
		}
	}
	return "", errors.New("systemd does not tell its control group")
}

// Start makes the unit around a process, with the limits that systemd knows of and what annotations ask of it. Other
// limits are for Cgroup.Create, on the group that is there then.
func (u Unit) Start(id string, pid int, res *specs.LinuxResources, annotations map[string]string) error {
	more, err := annotated(annotations)
	if err != nil {
		return err
	}
	c, err := u.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	v2 := false
	if hs, err := hierarchies(""); err == nil {
		v2 = len(hs) == 1 && hs[0].controllers[0] == ""
	}
	props := []any{property("Description", "s", "container "+id), property("DefaultDependencies", "b", false)}
	if strings.HasSuffix(u.Name, ".slice") {
		props = append(props, property("Wants", "as", []any{u.Slice}))
	} else {
		props = append(props, property("Slice", "s", u.Slice), property("Delegate", "b", true),
			property("PIDs", "au", []any{uint32(pid)}))
	}
	io := "IOAccounting"
	if !v2 {
		io = "BlockIOAccounting"
	}
	for _, name := range []string{"CPUAccounting", "MemoryAccounting", io, "TasksAccounting"} {
		props = append(props, property(name, "b", true))
	}
	limits, err := properties(res, v2, unlimited)
	if err != nil {
		return err
	}
	if !v2 {
		devices, err := deviceProperties(res)
		if err != nil {
			return err
		}
		limits = append(limits, devices...)
	}
	props = append(append(props, limits...), more...)
	err = u.job(c, func() ([]any, error) {
		start := func() ([]any, error) {
			return call(c, "StartTransientUnit", "ssa(sv)a(sa(sv))", u.Name, "replace", props, []any{})
		}
		out, err := start()
		var exists *dbus.Error
		if errors.As(err, &exists) && exists.Name == systemdName+".UnitExists" {
			// One that failed stays until it is told to be forgotten.
			if _, rerr := call(c, "ResetFailedUnit", "s", u.Name); rerr == nil {
				return start()
			}
		}
		return out, err
	})
	if err != nil {
		return fmt.Errorf("systemd cgroup driver: start unit %s: %w", u.Name, err)
	}
	return nil
}

// Update tells systemd of changed limits of the unit's group, so that it doesn't set back what it knows.
func (u Unit) Update(g *Cgroup, res *specs.LinuxResources) error {
	if res == nil {
		return nil
	}
	if m := res.Memory; g.v2 && m != nil && m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate {
		w := &writer{c: g}
		if w.checkUsage(value(m.Limit), value(m.Swap)); w.err != nil {
			return w.err
		}
	}
	now := unlimited
	if c := res.CPU; c != nil && (value(c.Quota) != 0 || value(c.Period) != 0) {
		var err error
		if now, err = g.bandwidth(); err != nil {
			return err
		}
	}
	props, err := properties(res, g.v2, now)
	if err != nil || len(props) == 0 {
		return err
	}
	c, err := u.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := call(c, "SetUnitProperties", "sba(sv)", u.Name, true, props); err != nil {
		return fmt.Errorf("systemd cgroup driver: change unit %s: %w", u.Name, err)
	}
	return nil
}

// Stop ends the unit and what is in it. That there is none is no error.
func (u Unit) Stop() error {
	c, err := u.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	err = u.job(c, func() ([]any, error) { return call(c, "StopUnit", "ss", u.Name, "replace") })
	var gone *dbus.Error
	if err != nil && !(errors.As(err, &gone) && gone.Name == systemdName+".NoSuchUnit") {
		return fmt.Errorf("systemd cgroup driver: stop unit %s: %w", u.Name, err)
	}
	_, _ = call(c, "ResetFailedUnit", "s", u.Name) // it may not have failed
	return nil
}

// job makes systemd do something, and waits until it has.
func (u Unit) job(c *dbus.Conn, begin func() ([]any, error)) error {
	if err := c.Watch(systemdPath, managerName, "JobRemoved"); err != nil {
		return err
	}
	if _, err := call(c, "Subscribe", ""); err != nil {
		return err
	}
	out, err := begin()
	if err != nil {
		return err
	}
	if len(out) != 1 {
		return errors.New("systemd names no job")
	}
	result := ""
	_, err = c.Signal(func(m *dbus.Message) bool {
		if len(m.Body) != 4 || m.Body[1] != out[0] {
			return false
		}
		result, _ = m.Body[3].(string)
		return true
	})
	if err != nil {
		return fmt.Errorf("wait for systemd's job: %w", err)
	}
	if result != "done" && result != "skipped" {
		return fmt.Errorf("systemd's job ended with %q", result)
	}
	return nil
}

func property(name, sig string, value any) any {
	return []any{name, dbus.Variant{Signature: sig, Value: value}}
}
