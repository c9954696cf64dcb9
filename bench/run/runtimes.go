package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"cale/bench/peers"
	"cale/runtime/cgroup"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// runtimes are ours and those installed, on one bundle with what Docker asks for: six namespaces, its mounts and
// masks, few capabilities, limits, the default seccomp profile.
func runtimes(bin string) ([]contender, func(), error) {
	none := func() {}
	bundle := peers.Dir + "/bundle"
	if err := os.MkdirAll(bundle+"/rootfs", 0o755); err != nil {
		return nil, none, err
	}
	if err := os.WriteFile(bundle+"/rootfs/true", peers.True(), 0o755); err != nil {
		return nil, none, err
	}
	parent := "/cale-bench-" + strconv.Itoa(os.Getpid())
	spec := config(parent)
	var err error
	if spec.Linux.Seccomp, err = seccomp.GetDefaultProfile(spec); err != nil {
		return nil, none, err
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, none, err
	}
	if err := os.WriteFile(bundle+"/config.json", text, 0o644); err != nil {
		return nil, none, err
	}
	var list []contender
	for i, name := range []string{"cale-oci", "crun", "runc"} {
		program := name
		if i == 0 {
			program = bin + "/" + name
		}
		path, err := exec.LookPath(program)
		if i == 0 && err != nil {
			return nil, none, err
		}
		if err != nil {
			fmt.Printf("  %s is not here\n", name)
			continue
		}
		state := peers.Dir + "/state-" + name
		list = append(list, contender{name: name, argv: func(round int) []string {
			return []string{path, "--root", state, "run", "--bundle", bundle, fmt.Sprintf("%s-%d", name, round)}
		}})
	}
	return list, func() { removeGroups(parent) }, nil
}

func config(parent string) *specs.Spec {
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
			CgroupsPath: parent + "/c",
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

// removeGroups takes the parent of the contenders' control groups away.
func removeGroups(parent string) {
	if g, err := cgroup.Open(parent, cgroup.Options{}); err == nil {
		_ = g.Destroy()
	}
}
