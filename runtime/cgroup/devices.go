package cgroup

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// access is a set of what may be done with a device; the bits are BPF_DEVCG_ACC_* of linux/bpf.h.
type access uint8

const (
	mknod access = 1 << iota
	readAccess
	writeAccess
	anyAccess = mknod | readAccess | writeAccess
)

func (a access) String() string {
	s := ""
	if a&readAccess != 0 {
		s += "r"
	}
	if a&writeAccess != 0 {
		s += "w"
	}
	if a&mknod != 0 {
		s += "m"
	}
	return s
}

// device names devices: kind 'b', 'c' or (in rules only) 'a' for both; a number of -1 is any.
type device struct {
	kind         byte
	major, minor int64
}

func (d device) String() string {
	num := func(n int64) string {
		if n < 0 {
			return "*"
		}
		return strconv.FormatInt(n, 10)
	}
	return string(d.kind) + " " + num(d.major) + ":" + num(d.minor)
}

// covers reports whether all devices of e are devices of d.
func (d device) covers(e device) bool {
	return (d.kind == 'a' || d.kind == e.kind) && (d.major < 0 || d.major == e.major) && (d.minor < 0 || d.minor == e.minor)
}

func (d device) overlaps(e device) bool {
	same := func(a, b int64) bool { return a < 0 || b < 0 || a == b }
	return (d.kind == 'a' || e.kind == 'a' || d.kind == e.kind) && same(d.major, e.major) && same(d.minor, e.minor)
}

// rule allows or denies; of the rules that match, the last one counts.
type rule struct {
	device
	access
	allow bool
}

// defaultRules are what every container may do, as in runc: make any node, and use the harmless devices.
var defaultRules = []rule{
	{device{'c', -1, -1}, mknod, true},
	{device{'b', -1, -1}, mknod, true},
	{device{'c', 1, 3}, anyAccess, true},    // null
	{device{'c', 1, 5}, anyAccess, true},    // zero
	{device{'c', 1, 7}, anyAccess, true},    // full
	{device{'c', 1, 8}, anyAccess, true},    // random
	{device{'c', 1, 9}, anyAccess, true},    // urandom
	{device{'c', 5, 0}, anyAccess, true},    // tty
	{device{'c', 5, 2}, anyAccess, true},    // ptmx
	{device{'c', 136, -1}, anyAccess, true}, // pts
}

func parseRules(list []specs.LinuxDeviceCgroup) ([]rule, error) {
	rules := make([]rule, 0, len(list)+len(defaultRules))
	for i, s := range list {
		r := rule{device: device{'a', -1, -1}, allow: s.Allow}
		switch s.Type {
		case "", "a":
		case "b":
			r.kind = 'b'
		case "c", "u":
			r.kind = 'c'
		default:
			return nil, fmt.Errorf("resources.devices[%d]: type %q: want a, b or c", i, s.Type)
		}
		for _, n := range []struct {
			from *int64
			to   *int64
		}{{s.Major, &r.major}, {s.Minor, &r.minor}} {
			if n.from == nil || *n.from == -1 {
				continue
			}
			if *n.from < 0 || *n.from > 1<<31-1 {
				return nil, fmt.Errorf("resources.devices[%d]: device number %d is out of range", i, *n.from)
			}
			*n.to = *n.from
		}
		for _, a := range s.Access {
			switch a {
			case 'r':
				r.access |= readAccess
			case 'w':
				r.access |= writeAccess
			case 'm':
				r.access |= mknod
			case 'a': // no access, but met in configurations, since runc passes over it
			default:
				return nil, fmt.Errorf("resources.devices[%d]: access %q: want letters of rwm", i, s.Access)
			}
		}
		if r.access == 0 && s.Access != "" {
			return nil, fmt.Errorf("resources.devices[%d]: access %q: want letters of rwm", i, s.Access)
		}
		if r.access == 0 {
			// "Nothing given" means everything only where that can't open a hole by mistake.
			if s.Allow && (r.kind != 'a' || r.major >= 0 || r.minor >= 0) {
				return nil, fmt.Errorf("resources.devices[%d]: access is missing", i)
			}
			r.access = anyAccess
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// setDevices sets what devices may be used: the rules in order, after "none". fresh is as in limitV1.
func (c *Cgroup) setDevices(list []specs.LinuxDeviceCgroup, fresh bool) error {
	rules, err := parseRules(list)
	if err != nil {
		return err
	}
	rules = append(rules, defaultRules...)
	if c.v2 {
		return c.attachDevices(c.groups[0].dir, rules)
	}
	dir, ok := c.dir("devices")
	if !ok {
		// cgroup2 can do it on a hybrid machine without the v1 controller.
		if dir, ok := c.dir(""); ok {
			return c.attachDevices(dir, rules)
		}
		return missing("resources.devices", "devices")
	}
	var want deviceList
	for _, r := range rules {
		if err := want.apply(r); err != nil {
			return err
		}
	}
	if !fresh {
		have, err := c.listDevices(dir)
		if err != nil {
			return err
		}
		if !have.allow && !want.allow {
			return c.changeDevices(dir, have, want)
		}
	}
	switch {
	case !want.allow:
		if err := c.write(dir, "devices.deny", "a"); err != nil {
			return err
		}
	case !fresh:
		if err := c.write(dir, "devices.allow", "a"); err != nil {
			return err
		}
	}
	file := "devices.allow"
	if want.allow {
		file = "devices.deny"
	}
	return c.writeDevices(dir, file, want.except)
}

// deviceList is v1's model: a default, and exceptions to it in the order they were made.
type deviceList struct {
	allow  bool
	except []exception
}

type exception struct {
	device
	access
}

func (l *deviceList) add(d device, a access) {
	for i := range l.except {
		if l.except[i].device == d {
			l.except[i].access |= a
			return
		}
	}
	l.except = append(l.except, exception{d, a})
}

// without returns what l excepts and other doesn't.
func (l *deviceList) without(other *deviceList) []exception {
	rest := slices.Clone(l.except)
	for i := range rest {
		for _, o := range other.except {
			if o.device == rest[i].device {
				rest[i].access &^= o.access
			}
		}
	}
	return slices.DeleteFunc(rest, func(e exception) bool { return e.access == 0 })
}

// apply adds one rule. v1 can't take a piece out of a wildcard, and says nothing when asked to: that is an error
// here, since a rule would have no effect.
func (l *deviceList) apply(r rule) error {
	if r.kind == 'a' {
		if r.major < 0 && r.minor < 0 && r.access == anyAccess {
			l.allow = r.allow
			l.except = nil
			return nil
		}
		for _, kind := range []byte{'b', 'c'} {
			part := r
			part.kind = kind
			if err := l.apply(part); err != nil {
				return err
			}
		}
		return nil
	}
	if r.allow != l.allow {
		l.add(r.device, r.access)
		return nil
	}
	for i := range l.except {
		e := &l.except[i]
		switch {
		case r.covers(e.device):
			e.access &^= r.access
		case e.access&r.access != 0 && r.overlaps(e.device):
			return fmt.Errorf("resources.devices: cgroup v1 cannot except %s from the rule for %s", r.device, e.device)
		}
	}
	l.except = slices.DeleteFunc(l.except, func(e exception) bool { return e.access == 0 })
	return nil
}

func (c *Cgroup) writeDevices(dir, file string, devices []exception) error {
	if len(devices) == 0 {
		return nil
	}
	fd, err := c.openWrite(dir, file)
	if err != nil {
		return fmt.Errorf("open %s/%s: %w", dir, file, err)
	}
	defer unix.Close(fd)
	for _, e := range devices {
		line := e.device.String() + " " + e.access.String()
		if c.fake {
			line += "\n"
		}
		if err := writeFD(fd, dir, file, line); err != nil {
			return err
		}
	}
	return nil
}

// listDevices reads back what a group allows.
func (c *Cgroup) listDevices(dir string) (deviceList, error) {
	var l deviceList
	text, err := read(dir, "devices.list")
	if err != nil {
		if c.fake && isGone(err) {
			return l, nil
		}
		return l, err
	}
	for line := range strings.Lines(text) {
		f := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == ':' || r == '\n' })
		if len(f) != 4 || len(f[0]) != 1 {
			return l, fmt.Errorf("%s/devices.list: line %q is not understood", dir, line)
		}
		if f[0] == "a" {
			l.allow = true
			return l, nil
		}
		d := device{f[0][0], -1, -1}
		for i, to := range []*int64{&d.major, &d.minor} {
			if f[1+i] == "*" {
				continue
			}
			if *to, err = strconv.ParseInt(f[1+i], 10, 64); err != nil {
				return l, fmt.Errorf("%s/devices.list: line %q is not understood", dir, line)
			}
		}
		for _, a := range f[3] {
			switch a {
			case 'r':
				l.add(d, readAccess)
			case 'w':
				l.add(d, writeAccess)
			case 'm':
				l.add(d, mknod)
			}
		}
	}
	return l, nil
}

// changeDevices goes from one list of allowed devices to another without refusing in between what both allow.
func (c *Cgroup) changeDevices(dir string, have, want deviceList) error {
	if err := c.writeDevices(dir, "devices.allow", want.without(&have)); err != nil {
		return err
	}
	return c.writeDevices(dir, "devices.deny", have.without(&want))
}
