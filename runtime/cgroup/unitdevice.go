package cgroup

import (
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// deviceProperties tell systemd which devices a container may use. On version 1 it writes what it knows again whenever
// its units are reloaded, and a unit of which it knows nothing may then use all; on version 2 our own program stays.
func deviceProperties(res *specs.LinuxResources) ([]any, error) {
	var list []specs.LinuxDeviceCgroup
	if res != nil {
		list = res.Devices
	}
	rules, err := parseRules(list)
	if err != nil {
		return nil, err
	}
	var want deviceList
	for _, r := range append(rules, defaultRules...) {
		if err := want.apply(r); err != nil {
			return nil, err
		}
	}
	if want.allow {
		// Which exceptions there are can't be told to it.
		return []any{property("DevicePolicy", "s", "auto")}, nil
	}
	allow := []any{}
	for _, e := range want.except {
		if e.access == 0 {
			continue
		}
		if name := systemdDevice(e.device); name != "" {
			allow = append(allow, []any{name, e.access.String()})
		}
	}
	return []any{property("DevicePolicy", "s", "strict"), property("DeviceAllow", "a(ss)", allow)}, nil
}

// systemdDevice is a device as systemd.resource-control(5) writes it; "" for one that it has no way to.
func systemdDevice(d device) string {
	kind, section := "char", "Character devices:"
	if d.kind == 'b' {
		kind, section = "block", "Block devices:"
	}
	switch {
	case d.major >= 0 && d.minor >= 0:
		return fmt.Sprintf("/dev/%s/%d:%d", kind, d.major, d.minor)
	case d.major < 0 && d.minor < 0:
		return kind + "-*"
	case d.major < 0:
		return ""
	}
	text, err := os.ReadFile("/proc/devices")
	if err != nil {
		return ""
	}
	_, text2, _ := strings.Cut(string(text), section)
	for line := range strings.Lines(strings.TrimPrefix(text2, "\n")) {
		f := strings.Fields(line)
		if len(f) != 2 {
			break // the next section
		}
		if f[0] == fmt.Sprint(d.major) {
			return kind + "-" + f[1]
		}
	}
	return ""
}
