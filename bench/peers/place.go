// Package peers gives benchmarks their contenders: ours and those of the field that are installed, in one place made
// for them, so that nothing of the machine's is touched and all find the same.
package peers

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Dir is the tmpfs, or the folder on a disk, in which everything happens.
const Dir = "/mnt"

// binDir is a flag of every benchmark.
var binDir = flag.String("bin", "bin", "the folder with our programs")

var newest = flag.String("newest", "", "a folder with newer peers than the system's, as bench/peers/newest builds them")

var with = flag.String("with", ".", "a regular expression of the names of the peers that take part")

var disk = flag.String("disk", "", "a folder on a disk for everything to happen in; a tmpfs without one")

// Main parses the flags and runs a benchmark, which gets the folder with our programs, in mount and network namespaces
// of its own, by running this program again, and exits.
// crun can't run beside a hybrid machine's cgroup2 mount, so that is hidden from all.
//
// The context ends with the first signal to stop; the benchmark then returns, and takes down what it started.
func Main(bench func(ctx context.Context, bin string) error) {
	flag.Parse()
	var err error
	if invited, err = regexp.Compile(*with); err != nil {
		fmt.Fprintln(os.Stderr, "bench: -with:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := inside(ctx, bench); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func inside(ctx context.Context, bench func(ctx context.Context, bin string) error) error {
	if os.Getuid() != 0 {
		return fmt.Errorf("containers on a real kernel need root")
	}
	if os.Getenv("CALE_BENCH_INSIDE") == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), "CALE_BENCH_INSIDE=1")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET,
			Setpgid:      true, // a key pressed to stop reaches the contenders through us only
			Pdeathsig:    unix.SIGTERM,
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(unix.SIGTERM) })()
		return cmd.Wait()
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set up lo: %w", err)
	}
	_ = unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH)
	if err := system(); err != nil {
		return err
	}
	for _, dir := range []string{Dir, "/var/lib/cni", "/run/containers", "/var/lib/containers"} {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		if *disk != "" && dir != "/run/containers" {
			done, err := place(dir)
			if err != nil {
				return err
			}
			defer done()
			continue
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
		}
	}
	bin, err := filepath.Abs(*binDir)
	if err != nil {
		return err
	}
	if *newest != "" {
		dir, err := filepath.Abs(*newest)
		if err != nil {
			return err
		}
		if err := os.Setenv("PATH", dir+":"+os.Getenv("PATH")); err != nil {
			return err
		}
	}
	before := load()
	err = bench(ctx, bin)
	fmt.Printf("the machine's load: %s before, %s after\n", before, load())
	return err
}

var invited *regexp.Regexp

// TakesPart says whether a peer is to take part.
func TakesPart(name string) bool { return invited.MatchString(name) }

// load is how many processes wanted a processor in the last minute.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(text), " ")
	return one
}

// system gives /sys a sysfs of this network namespace, with the control groups as they were. Docker waits for bridges that
// it doesn't see there.
func system() error {
	const groups = "/sys/fs/cgroup"
	fd, err := unix.OpenTree(unix.AT_FDCWD, groups, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("take %s along: %w", groups, err)
	}
	defer unix.Close(fd)
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount a sysfs on /sys: %w", err)
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, groups, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s again: %w", groups, err)
	}
	return nil
}

// place gives a folder a new one on the disk in its place.
func place(dir string) (done func(), err error) {
	there, err := os.MkdirTemp(*disk, "cale-bench-")
	if err != nil {
		return nil, err
	}
	if err := unix.Mount(there, dir, "", unix.MS_BIND, ""); err != nil {
		os.Remove(there)
		return nil, fmt.Errorf("mount %s on %s: %w", there, dir, err)
	}
	return func() {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		_ = os.RemoveAll(there)
	}, nil
}
