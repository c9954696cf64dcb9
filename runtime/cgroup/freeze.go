package cgroup

import (
	"fmt"
	"strings"
	"time"
)

const patience = 10 * time.Second

// Freeze stops all processes of the group and waits until they are stopped.
func (c *Cgroup) Freeze() error {
	if dir, ok := c.dir("freezer"); ok {
		return c.freezeV1(dir)
	}
	dir, ok := c.dir("")
	if !ok {
		return missing("the group frozen", "freezer")
	}
	return c.freezeV2(dir, "1")
}

// Thaw lets a frozen group go on.
func (c *Cgroup) Thaw() error {
	if dir, ok := c.dir("freezer"); ok {
		return c.write(dir, "freezer.state", "THAWED")
	}
	dir, ok := c.dir("")
	if !ok {
		return missing("the group thawed", "freezer")
	}
	return c.freezeV2(dir, "0")
}

// Frozen reports whether the group is frozen (or being frozen).
func (c *Cgroup) Frozen() (bool, error) {
	if dir, ok := c.dir("freezer"); ok {
		state, err := read(dir, "freezer.state")
		if isGone(err) {
			return false, nil
		}
		return err == nil && state != "THAWED", err
	}
	dir, ok := c.dir("")
	if !ok {
		return false, nil
	}
	state, err := read(dir, "cgroup.freeze")
	if isGone(err) {
		return false, nil
	}
	return state == "1", err
}

// freezeV1 asks again and again: a process that forks while the freezer walks the list can be missed, and only a
// further write looks again. A short thaw now and then lets one pass that waits for another frozen process.
func (c *Cgroup) freezeV1(dir string) error {
	end := time.Now().Add(patience)
	for try := 1; ; try++ {
		if err := c.write(dir, "freezer.state", "FROZEN"); err != nil {
			return err
		}
		state, err := read(dir, "freezer.state")
		if err != nil {
			return err
		}
		if state == "FROZEN" {
			return nil
		}
		if time.Now().After(end) {
			_ = c.write(dir, "freezer.state", "THAWED")
			return fmt.Errorf("cgroup %s does not freeze: still %s after %s", dir, state, patience)
		}
		if try%64 == 0 {
			if err := c.write(dir, "freezer.state", "THAWED"); err != nil {
				return err
			}
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if try > 8 {
			time.Sleep(time.Duration(min(try, 64)) * 20 * time.Microsecond)
		}
	}
}

func (c *Cgroup) freezeV2(dir, want string) error {
	if err := c.write(dir, "cgroup.freeze", want); err != nil {
		return err
	}
	if c.fake {
		return nil
	}
	end := time.Now().Add(patience)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		events, err := read(dir, "cgroup.events")
		if err != nil {
			return err
		}
		if strings.Contains(events+"\n", "frozen "+want+"\n") {
			return nil
		}
		if time.Now().After(end) {
			if want == "1" {
				_ = c.write(dir, "cgroup.freeze", "0")
			}
			return fmt.Errorf("cgroup %s does not reach frozen=%s within %s", dir, want, patience)
		}
		time.Sleep(pause)
	}
}
