package ocispec

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// names of the capabilities by number (linux/capability.h).
var capNames = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// defaultCaps is Docker's default set.
var defaultCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
	"CAP_AUDIT_WRITE",
}

// allCaps is what "ALL" can mean for us: what our own bounding set still has, since nobody can give more.
var allCaps = sync.OnceValue(func() []string {
	mask := ^uint64(0)
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		for line := range strings.Lines(string(status)) {
			if hex, ok := strings.CutPrefix(line, "CapBnd:"); ok {
				if v, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64); err == nil {
					mask = v
				}
			}
		}
	}
	var all []string
	for n, name := range capNames {
		if mask&(1<<n) != 0 {
			all = append(all, name)
		}
	}
	return all
})

// CapabilitiesOutside names the capabilities that a set of the kernel's lacks.
func CapabilitiesOutside(mask uint64) (names []string) {
	for n, name := range capNames {
		if mask&(1<<n) == 0 {
			names = append(names, name)
		}
	}
	return names
}

// Capabilities gives the set a container gets. add and drop take names with or without CAP_ in any case, and ALL.
func Capabilities(add, drop []string, privileged bool) ([]string, error) {
	add, err := normalizeCaps("CapAdd", add)
	if err != nil {
		return nil, err
	}
	drop, err = normalizeCaps("CapDrop", drop)
	if err != nil {
		return nil, err
	}
	if privileged {
		return slices.Clone(allCaps()), nil
	}
	var base []string
	switch {
	case slices.Contains(add, "ALL"):
		base = slices.Clone(allCaps())
	case slices.Contains(drop, "ALL"):
		base = nil
	default:
		base = slices.Clone(defaultCaps)
	}
	base = slices.DeleteFunc(base, func(c string) bool { return slices.Contains(drop, c) })
	for _, c := range add {
		if c != "ALL" && !slices.Contains(base, c) {
			base = append(base, c)
		}
	}
	return base, nil
}

func normalizeCaps(field string, in []string) ([]string, error) {
	var out []string
	for _, c := range in {
		c = strings.ToUpper(c)
		if c == "ALL" {
			out = append(out, c)
			continue
		}
		if !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		if !slices.Contains(capNames, c) {
			return nil, fmt.Errorf("invalid %s: unknown capability: %q", field, c)
		}
		out = append(out, c)
	}
	return out, nil
}
