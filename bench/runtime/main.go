// Command runtime measures the low-level runtimes, cale-oci, crun and runc as far as they are installed, side by
// side: the whole of run, each step of a container's life, peak memory, and the floor, which is a C program that asks
// the kernel for the same and does nothing else, step by step. It prints medians and how many times longer the peers
// take.
//
//	go run ./bench/runtime [-n rounds] [-bin folder] [-also name=path,…]
//
// Package peers says where.
package main

import (
	"context"
	"embed"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"cale/bench/peers"
	"cale/runtime/cgroup"

	"github.com/moby/profiles/seccomp"
	"golang.org/x/sys/unix"
)

var (
	rounds = flag.Int("n", 30, "rounds a contender runs")
	also   = flag.String("also", "", "more runtimes, as name=path,…, of runc's command line")
)

//go:embed native
var sources embed.FS

func main() { peers.Main(run) }

func run(ctx context.Context, bin string) error {
	// What a runtime leaves running is ours to reap: the machine's first process may take seconds.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	parent := "/cale-bench-" + strconv.Itoa(os.Getpid())
	defer removeGroups(parent)
	if err := bundles(parent); err != nil {
		return err
	}
	runtimes := installed(bin)
	if len(runtimes) == 0 || runtimes[0].name != "cale-oci" {
		return fmt.Errorf("no cale-oci in %s", bin)
	}
	for _, name := range []string{"floor", "peak"} {
		if err := compile(name); err != nil {
			fmt.Printf("  no %s: %v\n", name, err)
		}
	}
	floor, err := floorCommand(parent)
	if err != nil {
		return err
	}
	if err := whole(ctx, runtimes, floor); err != nil {
		return err
	}
	if err := breakdown(ctx, runtimes, floor, parent); err != nil {
		return err
	}
	execute, done, err := inside(ctx, parent)
	if err != nil {
		return err
	}
	defer done()
	if err := life(ctx, runtimes, execute); err != nil {
		return err
	}
	return memory(ctx, runtimes)
}

// contender is a runtime's program.
type contender struct{ name, path string }

// command is one of its command lines, its states in a folder of its own.
func (c contender) command(args ...string) []string {
	return append([]string{c.path, "--root", peers.Dir + "/state-" + c.name}, args...)
}

func installed(bin string) []contender {
	var list []contender
	for _, name := range []string{bin + "/cale-oci", "crun", "runc"} {
		path, err := exec.LookPath(name)
		if err != nil {
			fmt.Printf("  %s is not here\n", filepath.Base(name))
			continue
		}
		list = append(list, contender{filepath.Base(name), path})
	}
	for more := range strings.SplitSeq(*also, ",") {
		if name, path, ok := strings.Cut(more, "="); ok {
			list = append(list, contender{name, path})
		} else if more != "" {
			fmt.Printf("  -also %s: no name=path\n", more)
		}
	}
	return list
}

// Bundles, with what Docker asks for: /true ends at once, /pause never; "bare" is "true" without a seccomp profile.
const (
	trueBundle  = peers.Dir + "/true"
	bareBundle  = peers.Dir + "/bare"
	pauseBundle = peers.Dir + "/pause"
)

func bundles(parent string) error {
	for _, dir := range []string{trueBundle, bareBundle, pauseBundle} {
		root := dir + "/rootfs"
		if err := os.MkdirAll(root, 0o755); err != nil {
			return err
		}
		for name, program := range map[string][]byte{"/true": peers.True(), "/pause": peers.Pause()} {
			if err := os.WriteFile(root+name, program, 0o755); err != nil {
				return err
			}
		}
		s := config(parent + "/c")
		if dir != bareBundle {
			var err error
			if s.Linux.Seccomp, err = seccomp.GetDefaultProfile(s); err != nil {
				return err
			}
		}
		if dir == pauseBundle {
			s.Process.Args = []string{"/pause"}
		}
		text, err := json.Marshal(s)
		if err != nil {
			return err
		}
		if err := os.WriteFile(dir+"/config.json", text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// compile makes one of the C programs in Dir.
func compile(name string) error {
	text, err := sources.ReadFile("native/" + name + ".c")
	if err != nil {
		return err
	}
	source := peers.Dir + "/" + name + ".c"
	if err := os.WriteFile(source, text, 0o644); err != nil {
		return err
	}
	if out, err := exec.Command("cc", "-O2", "-static", "-o", peers.Dir+"/"+name, source).CombinedOutput(); err != nil {
		return fmt.Errorf("cc: %w: %s", err, out)
	}
	return nil
}

// floorCommand is the floor's command line; its control groups are where the runtimes have theirs.
func floorCommand(parent string) ([]string, error) {
	g, err := cgroup.Open(parent+"/floor", cgroup.Options{})
	if err != nil {
		return nil, err
	}
	if err := g.Create(nil); err != nil {
		return nil, err
	}
	argv := []string{peers.Dir + "/floor", bareBundle + "/rootfs"}
	seen := map[string]bool{}
	for _, dir := range g.Dirs() {
		if seen[dir] {
			continue
		}
		seen[dir] = true
		// Of version 1's cpuset alone: no process may be in a group without processors.
		_ = os.WriteFile(dir+"/cgroup.clone_children", []byte("1"), 0)
		argv = append(argv, dir+"/c")
	}
	return argv, nil
}

// removeGroups takes the parent of the contenders' control groups away.
func removeGroups(parent string) {
	for _, name := range []string{parent + "/c", parent + "/inside", parent + "/floor", parent} {
		if g, err := cgroup.Open(name, cgroup.Options{}); err == nil {
			_ = g.Destroy()
		}
	}
}
