// Command leftovers tells whether tests cleaned up: it saves what containers leave on a machine when their engine forgets
// something, and later says what has been added.
//
//	leftovers save FILE
//	leftovers check FILE    # fails if something is still there after 10 s
package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// grace is how long things may take to go away: the kernel and PID 1 clean up in their own time.
const grace = 90 * time.Second

func main() {
	if len(os.Args) != 3 {
		usage()
	}
	var err error
	switch os.Args[1] {
	case "save":
		err = save(os.Args[2])
	case "check":
		err = check(os.Args[2])
	default:
		usage()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "leftovers:", err)
		os.Exit(1)
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: leftovers save|check FILE")
	os.Exit(2)
}

func save(file string) error {
	state, err := snapshot()
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(slices.Sorted(maps.Keys(state)), "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

func check(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var list []string
	if err := json.Unmarshal(text, &list); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for end := time.Now().Add(grace); ; time.Sleep(200 * time.Millisecond) {
		state, err := snapshot()
		if err != nil {
			return err
		}
		for _, thing := range list {
			delete(state, thing)
		}
		if len(state) == 0 {
			return nil
		}
		if time.Now().After(end) {
			for _, thing := range slices.Sorted(maps.Keys(state)) {
				fmt.Println(thing)
			}
			return fmt.Errorf("%d things are left behind", len(state))
		}
	}
}

// snapshot names all there is, one string a thing: "kind what".
func snapshot() (map[string]bool, error) {
	state := make(map[string]bool)
	for _, part := range []func(map[string]bool) error{mounts, cgroups, processes, networks, files} {
		if err := part(state); err != nil {
			return nil, err
		}
	}
	return state, nil
}

func mounts(state map[string]bool) error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if ok && len(l) > 4 && len(r) > 1 {
			state[fmt.Sprintf("mount %s (%s of %s)", l[4], r[0], r[1])] = true
		}
	}
	return nil
}

// cgroups lists those with our name in their path: others come and go with the machine's services.
func cgroups(state map[string]bool) error {
	return filepath.WalkDir("/sys/fs/cgroup", func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.Contains(path, "cale") {
			state["cgroup "+path] = true
		}
		return nil // groups vanish during the walk
	})
}

// processes lists our programs, by what they are and not what they call themselves.
func processes(state map[string]bool) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		exe, err := os.Readlink("/proc/" + e.Name() + "/exe")
		if err != nil {
			continue
		}
		switch name := strings.TrimSuffix(filepath.Base(exe), " (deleted)"); name {
		case "cale", "caled", "cale-shim", "cale-oci", "cale-verify":
			line, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
			state[fmt.Sprintf("process %s: %s", e.Name(), strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " ")))] = true
		}
	}
	return nil
}

func networks(state map[string]bool) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list network interfaces: %w", err)
	}
	for _, l := range links {
		state["interface "+l.Attrs().Name] = true
	}
	names, _ := filepath.Glob("/run/netns/*")
	for _, name := range names {
		state["network namespace "+name] = true
	}
	if os.Getuid() != 0 {
		return nil
	}
	// A kernel without nftables has no tables to leave.
	if nft, err := nftables.New(); err == nil {
		tables, err := nft.ListTables()
		if err == nil {
			for _, t := range tables {
				state[fmt.Sprintf("nft table %d %s", t.Family, t.Name)] = true
			}
		}
	}
	return nil
}

func files(state map[string]bool) error {
	for _, dir := range []string{"/dev/shm", "/tmp", "/run", os.TempDir()} {
		names, _ := filepath.Glob(dir + "/cale*")
		for _, name := range names {
			state["file "+name] = true
		}
	}
	return nil
}
