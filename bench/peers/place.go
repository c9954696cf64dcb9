// Package peers gives benchmarks their contenders: ours and those of the field that are installed, in one place made
// for them, so that nothing of the machine's is touched and all find the same.
package peers

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Dir is the tmpfs in which everything happens.
const Dir = "/mnt"

// Main runs a benchmark in mount and network namespaces of its own, by running this program again, and exits.
// crun can't run beside a hybrid machine's cgroup2 mount, so that is hidden from all.
func Main(bench func() error) {
	err := inside(bench)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func inside(bench func() error) error {
	if os.Getuid() != 0 {
		return fmt.Errorf("containers on a real kernel need root")
	}
	if os.Getenv("CALE_BENCH_INSIDE") == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), "CALE_BENCH_INSIDE=1")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET}
		return cmd.Run()
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set up lo: %w", err)
	}
	_ = unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH)
	for _, dir := range []string{Dir, "/var/lib/cni", "/run/containers", "/var/lib/containers"} {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
		}
	}
	return bench()
}
