package cgroup

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// WatchOOM sends on the channel whenever the group ran out of memory (events close together may be one). The
// channel is closed when the group is removed (on v2: or has no process left) or stop is called.
func (c *Cgroup) WatchOOM() (events <-chan struct{}, stop func(), err error) {
	if c.v2 {
		return watchV2(c.groups[0].dir)
	}
	dir, ok := c.dir("memory")
	if !ok {
		return nil, nil, missing("a watch for lack of memory", "memory")
	}
	return c.watchV1(dir)
}

// watchV1 has the kernel count memory shortages in an eventfd.
func (c *Cgroup) watchV1(dir string) (<-chan struct{}, func(), error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, nil, fmt.Errorf("watch for lack of memory: %w", err)
	}
	event := os.NewFile(uintptr(fd), "eventfd")
	control, err := openRetry(dir+"/memory.oom_control", unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		event.Close()
		return nil, nil, &os.PathError{Op: "open", Path: dir + "/memory.oom_control", Err: err}
	}
	// The registration keeps what it needs of the control file.
	err = c.write(dir, "cgroup.event_control", fmt.Sprintf("%d %d", fd, control))
	unix.Close(control)
	if err != nil {
		event.Close()
		return nil, nil, err
	}
	ch := make(chan struct{}, 1)
	go func() {
		defer event.Close()
		defer close(ch)
		var buf [8]byte
		for {
			if _, err := event.Read(buf[:]); err != nil {
				return
			}
			// Removal of the group is told the same way.
			if !exists(dir + "/cgroup.event_control") {
				return
			}
			tell(ch)
		}
	}()
	return ch, sync.OnceFunc(func() { event.Close() }), nil
}

func tell(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default: // one is waiting to be read already
	}
}

// watchV2 watches the kernel's counts in memory.events, and in cgroup.events whether anybody is left.
func watchV2(dir string) (<-chan struct{}, func(), error) {
	changed, end, err := watchFiles(dir+"/memory.events", dir+"/cgroup.events")
	if err != nil {
		return nil, nil, fmt.Errorf("watch for lack of memory: %w", err)
	}
	count, err := oomKills(dir)
	if err != nil {
		end()
		return nil, nil, err
	}
	ch, stop := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer end()
		defer close(ch)
		for {
			select {
			case <-changed:
			case <-stop:
				return
			}
			state, gone := read(dir, "cgroup.events") // first: who was killed last is counted by then
			now, err := oomKills(dir)
			if err == nil && now > count {
				tell(ch)
				count = now
			}
			if err != nil || gone != nil || strings.Contains(state+"\n", "populated 0\n") {
				return
			}
		}
	}()
	return ch, sync.OnceFunc(func() { close(stop) }), nil
}

func oomKills(dir string) (uint64, error) { return countOOM(dir, "memory.events") }

func countOOM(dir, file string) (uint64, error) {
	text, err := read(dir, file)
	kills := uint64(0)
	keyed(text, func(key string, n uint64) {
		if key == "oom_kill" {
			kills = n
		}
	})
	return kills, err
}

// OOMKills counts the processes of the group that the kernel has killed for want of memory.
func (c *Cgroup) OOMKills() (uint64, error) {
	controller, file := "", "memory.events"
	if !c.v2 {
		controller, file = "memory", "memory.oom_control"
	}
	dir, ok := c.dir(controller)
	if !ok {
		return 0, missing("memory limits", "memory")
	}
	return countOOM(dir, file)
}
