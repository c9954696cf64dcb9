package ocispec

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Device describes the host's device node at path as the container's at target, with the rule that lets it be used.
// A directory gives every device below it.
func Device(path, target, permissions string) ([]specs.LinuxDevice, []specs.LinuxDeviceCgroup, error) {
	if permissions == "" {
		permissions = "rwm"
	}
	if strings.Trim(permissions, "rwm") != "" {
		return nil, nil, fmt.Errorf("invalid device mode: %s", permissions)
	}
	if target == "" {
		target = path
	}
	// The host's links are followed here (/dev/disk/by-id and the like): the client named a host path.
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, nil, fmt.Errorf("error gathering device information while adding custom device %q: no such file or directory", path)
	}
	st, err := os.Stat(real)
	if err != nil {
		return nil, nil, fmt.Errorf("error gathering device information while adding custom device %q: %w", path, err)
	}
	if !st.IsDir() {
		d, rule, err := deviceNode(real, target, permissions)
		if err != nil {
			return nil, nil, err
		}
		return []specs.LinuxDevice{d}, []specs.LinuxDeviceCgroup{rule}, nil
	}
	var devices []specs.LinuxDevice
	var rules []specs.LinuxDeviceCgroup
	entries, err := os.ReadDir(real)
	if err != nil {
		return nil, nil, fmt.Errorf("devices in %q: %w", path, err)
	}
	for _, e := range entries {
		switch {
		case e.IsDir() && (e.Name() == "pts" || e.Name() == "shm" || e.Name() == "fd" || e.Name() == "mqueue"):
			continue
		case e.IsDir():
			d, r, err := Device(filepath.Join(real, e.Name()), filepath.Join(target, e.Name()), permissions)
			if err != nil {
				return nil, nil, err
			}
			devices, rules = append(devices, d...), append(rules, r...)
		case e.Type()&os.ModeDevice != 0 && e.Name() != "console":
			d, r, err := deviceNode(filepath.Join(real, e.Name()), filepath.Join(target, e.Name()), permissions)
			if err != nil {
				return nil, nil, err
			}
			devices, rules = append(devices, d), append(rules, r)
		}
	}
	return devices, rules, nil
}

// DeviceAsked is Device for a path that a client names: a directory without any device is a mistake.
func DeviceAsked(path, target, permissions string) ([]specs.LinuxDevice, []specs.LinuxDeviceCgroup, error) {
	devices, rules, err := Device(path, target, permissions)
	if err == nil && len(devices) == 0 {
		err = fmt.Errorf("error gathering device information while adding custom device %q: not a device node", path)
	}
	return devices, rules, err
}

func deviceNode(path, target, permissions string) (specs.LinuxDevice, specs.LinuxDeviceCgroup, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return specs.LinuxDevice{}, specs.LinuxDeviceCgroup{}, fmt.Errorf("device %q: %w", path, err)
	}
	kind := ""
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		kind = "c"
	case unix.S_IFBLK:
		kind = "b"
	default:
		return specs.LinuxDevice{}, specs.LinuxDeviceCgroup{}, fmt.Errorf("error gathering device information while adding custom device %q: not a device node", path)
	}
	major, minor := int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	mode := os.FileMode(st.Mode & 0o7777)
	uid, gid := st.Uid, st.Gid
	return specs.LinuxDevice{Path: target, Type: kind, Major: major, Minor: minor, FileMode: &mode, UID: &uid, GID: &gid},
		specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: permissions}, nil
}

// DeviceRule parses a rule of the devices cgroup: "c 1:3 rwm", "a *:* rwm".
func DeviceRule(s string) (specs.LinuxDeviceCgroup, error) {
	r := specs.LinuxDeviceCgroup{Allow: true}
	f := strings.Fields(s)
	bad := fmt.Errorf("invalid device cgroup rule format: '%s'", s)
	if len(f) != 3 || strings.Trim(f[2], "rwm") != "" || f[0] != "a" && f[0] != "b" && f[0] != "c" {
		return r, bad
	}
	major, minor, ok := strings.Cut(f[1], ":")
	if !ok {
		return r, bad
	}
	r.Type, r.Access = f[0], f[2]
	for _, n := range []struct {
		text string
		to   **int64
	}{{major, &r.Major}, {minor, &r.Minor}} {
		if n.text == "*" {
			continue
		}
		v, err := strconv.ParseInt(n.text, 10, 32)
		if err != nil || v < 0 {
			return r, bad
		}
		*n.to = &v
	}
	return r, nil
}
