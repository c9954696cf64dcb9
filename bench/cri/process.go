package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// running gives the processes of some programs, by file name, that are in our mount namespace, as those of containers
// are not.
func running(programs ...string) (pids []string) {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil
	}
	for _, pid := range all() {
		exe, _ := os.Readlink("/proc/" + pid + "/exe")
		ns, _ := os.Readlink("/proc/" + pid + "/ns/mnt")
		if ns == own && slices.Contains(programs, filepath.Base(exe)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func all() (pids []string) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, e.Name())
		}
	}
	return pids
}

// stat are the fields of a process's stat file from the third on (proc_pid_stat(5)).
func stat(pid string) []string {
	text, _ := os.ReadFile("/proc/" + pid + "/stat")
	_, rest, _ := strings.Cut(string(text), ") ")
	return strings.Fields(rest)
}

// processor adds up the time that the daemon and the supervisors have used, and what they had run and waited for.
func (n *node) processor() (used time.Duration) {
	const hz = 100 // of the kernel's figures
	for _, pid := range running(append(n.supervisors, n.program)...) {
		if f := stat(pid); len(f) > 14 {
			for _, ticks := range f[11:15] {
				v, _ := strconv.Atoi(ticks)
				used += time.Duration(v) * time.Second / hz
			}
		}
	}
	return used
}

// memory adds up the PSS, in KiB, of what pods keep running beside their containers: supervisors, and the pause
// processes that are their children.
func (n *node) memory() (kib int) {
	ours := running(n.supervisors...)
	for _, pid := range all() {
		exe, _ := os.Readlink("/proc/" + pid + "/exe")
		if f := stat(pid); filepath.Base(exe) == "pause" && len(f) > 1 && slices.Contains(ours, f[1]) {
			ours = append(ours, pid)
		}
	}
	for _, pid := range ours {
		text, err := os.ReadFile("/proc/" + pid + "/smaps_rollup")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if v, ok := strings.CutPrefix(line, "Pss:"); ok {
				k, _ := strconv.Atoi(strings.Fields(v)[0])
				kib += k
			}
		}
	}
	return kib
}
