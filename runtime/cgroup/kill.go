package cgroup

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Pids lists the processes of the group and of the groups below it. Processes outside the caller's pid namespace
// have no number here and are left out.
func (c *Cgroup) Pids() ([]int, error) {
	pids, err := pidsBelow(c.listing(), nil)
	if isGone(err) {
		return nil, nil
	}
	slices.Sort(pids)
	return slices.Compact(pids), err
}

// listing is the directory to ask for processes; all of them hold the same ones unless something moved them. The
// devices hierarchy is the one that container managers inside a container use least.
func (c *Cgroup) listing() string {
	for _, name := range []string{"devices", ""} {
		if dir, ok := c.dir(name); ok {
			return dir
		}
	}
	return c.groups[0].dir
}

func pidsBelow(dir string, pids []int) ([]int, error) {
	text, err := read(dir, "cgroup.procs")
	// A threaded group's processes are listed by the group above that is its domain.
	if err != nil && !strings.Contains(err.Error(), unix.EOPNOTSUPP.Error()) {
		return pids, err
	}
	for line := range strings.Lines(text) {
		if pid, err := strconv.Atoi(strings.TrimSuffix(line, "\n")); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	for _, sub := range below(dir) {
		more, err := pidsBelow(sub, pids)
		if err != nil && !isGone(err) {
			return pids, err
		}
		pids = more
	}
	return pids, nil
}

// below lists the groups in a group. The link count tells without reading the directory that there are none.
func below(dir string) []string {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil || st.Nlink == 2 {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var subs []string
	for _, e := range entries {
		if e.IsDir() {
			subs = append(subs, path.Join(dir, e.Name()))
		}
	}
	return subs
}

// Kill sends SIGKILL to all processes of the group and the groups below, frozen or not, until none is left or 10 s
// have passed. Processes that have ended but aren't reaped don't count.
func (c *Cgroup) Kill() error {
	end := time.Now().Add(patience)
	unified, _ := c.dir("")
	pause := 200 * time.Microsecond
	for round := 0; ; round++ {
		pids, err := c.everyPid()
		if err != nil {
			return err
		}
		if slices.Contains(pids, os.Getpid()) {
			return fmt.Errorf("cgroup %s holds the process that is to kill it", c.listing())
		}
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("cgroup %s still has %d processes %s after SIGKILL", c.listing(), len(pids), patience)
		}
		if unified != "" && round < 3 {
			// One write for all, forks under way included (Linux 5.14).
			_ = c.write(unified, "cgroup.kill", "1")
		}
		// Something that forks faster than we kill has to stand still first.
		freezer, hasFreezer := c.dir("freezer")
		if hasFreezer && round > 0 {
			_ = c.write(freezer, "freezer.state", "FROZEN")
			if more, err := c.everyPid(); err == nil {
				pids = more
			}
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		// v1 delivers even SIGKILL only once thawed.
		if hasFreezer {
			thawAll(c, freezer)
		}
		time.Sleep(pause)
		pause = min(2*pause, 50*time.Millisecond)
	}
}

// thawAll thaws also groups below that were frozen for themselves.
func thawAll(c *Cgroup, dir string) {
	_ = c.write(dir, "freezer.state", "THAWED")
	for _, sub := range below(dir) {
		thawAll(c, sub)
	}
}

// everyPid lists the processes of all hierarchies: a privileged container may have moved some in one of them.
func (c *Cgroup) everyPid() ([]int, error) {
	var pids []int
	for _, g := range c.groups {
		more, err := pidsBelow(g.dir, pids)
		if err != nil && !isGone(err) {
			return nil, err
		}
		pids = more
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// Destroy removes the group and the groups below it. Groups that are gone already are no error. The kernel may
// still be busy with processes that just ended, so it tries for some seconds.
func (c *Cgroup) Destroy() error {
	end := time.Now().Add(patience)
	left := make([]string, len(c.groups))
	for i, g := range c.groups {
		left[i] = g.dir
	}
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 100*time.Millisecond) {
		var last error
		left = slices.DeleteFunc(left, func(dir string) bool {
			err := remove(dir)
			if err != nil {
				last = err
			}
			return err == nil
		})
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(end) {
			pids, _ := pidsBelow(left[0], nil)
			return fmt.Errorf("%w (%d processes are left in it)", last, len(pids))
		}
		time.Sleep(pause)
	}
}

// RemoveEmpty removes the group where it holds neither processes nor groups, and reports whether it is gone everywhere.
func (c *Cgroup) RemoveEmpty() bool {
	gone := true
	for _, g := range c.groups {
		err := rmdir(g.dir)
		gone = gone && (err == nil || err == unix.ENOENT)
	}
	return gone
}

// remove takes a group and what is below it away.
func remove(dir string) error {
	err := rmdir(dir)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err == unix.EBUSY || err == unix.ENOTEMPTY {
		for _, sub := range below(dir) {
			if err := remove(sub); err != nil {
				return err
			}
		}
		err = rmdir(dir)
		if err == nil || err == unix.ENOENT {
			return nil
		}
	}
	return &os.PathError{Op: "remove cgroup", Path: dir, Err: err}
}

func rmdir(dir string) error {
	for {
		if err := unix.Rmdir(dir); err != unix.EINTR {
			return err
		}
	}
}
