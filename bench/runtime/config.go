package main

import specs "github.com/opencontainers/runtime-spec/specs-go"

// config is a container with what Docker asks for: six namespaces, its mounts and masks, few capabilities, limits.
func config(cgroup string) *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID"}
	mode := func(fs, to string, options ...string) specs.Mount {
		return specs.Mount{Destination: to, Type: fs, Source: fs, Options: options}
	}
	memory, pids, shares := int64(256<<20), int64(100), uint64(512)
	return &specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: "rootfs", Readonly: true},
		Process: &specs.Process{
			Args: []string{"/true"}, Env: []string{"PATH=/bin"}, Cwd: "/", NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Hostname: "bench",
		Mounts: []specs.Mount{
			mode("proc", "/proc"), mode("tmpfs", "/dev", "nosuid", "strictatime", "mode=755", "size=65536k"),
			mode("devpts", "/dev/pts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
			mode("tmpfs", "/dev/shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
			mode("mqueue", "/dev/mqueue", "nosuid", "noexec", "nodev"), mode("sysfs", "/sys", "nosuid", "noexec", "nodev", "ro"),
		},
		Linux: &specs.Linux{
			CgroupsPath: cgroup,
			Resources: &specs.LinuxResources{
				Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
				Memory:  &specs.LinuxMemory{Limit: &memory}, Pids: &specs.LinuxPids{Limit: &pids}, CPU: &specs.LinuxCPU{Shares: &shares},
			},
			Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "network"}, {Type: "ipc"}, {Type: "uts"}, {Type: "mount"}, {Type: "cgroup"}},
			MaskedPaths: []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/sched_debug", "/proc/scsi", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}
