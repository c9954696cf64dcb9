package cgroup

import (
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestMemoryLimitsChange(t *testing.T) {
	c := newGroup(t, nil)
	dir, ok := c.dir("memory")
	if !ok {
		t.Skip("no memory controller")
	}
	swap := exists(dir + "/memory.memsw.limit_in_bytes")
	const mb = 1 << 20
	for _, m := range [][2]int64{{64 * mb, 128 * mb}, {256 * mb, 512 * mb}, {32 * mb, 32 * mb}, {512 * mb, -1}, {16 * mb, 16 * mb}, {-1, 0}, {64 * mb, 64 * mb}} {
		limit := &specs.LinuxMemory{Limit: p(m[0])}
		if swap && m[1] != 0 {
			limit.Swap = p(m[1])
		}
		if err := c.Apply(&specs.LinuxResources{Memory: limit}); err != nil {
			t.Fatalf("%d, %d: %v", m[0], m[1], err)
		}
		s, err := c.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if int64(s.Memory.Limit) != m[0] || swap && m[1] != 0 && int64(s.Memory.SwapLimit) != m[1] {
			t.Errorf("set %d, %d: got %d, %d", m[0], m[1], s.Memory.Limit, s.Memory.SwapLimit)
		}
	}
	if err := c.Apply(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(int64(8 * mb)), Swap: p(int64(4 * mb))}}); err == nil {
		t.Error("memory and swap below memory: no error")
	}
}

func TestOOM(t *testing.T) {
	const limit = 24 << 20
	c := openGroup(t)
	if _, ok := c.dir("memory"); !ok && !c.v2 {
		t.Skip("no memory controller")
	}
	if err := c.Create(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(int64(limit))}}); err != nil {
		t.Fatal(err)
	}
	events, stop, err := c.WatchOOM()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	cmd := start(t, c, "eat")
	select {
	case <-events:
	case <-time.After(30 * time.Second):
		t.Fatal("no event within 30 s")
	}
	_, _ = cmd.Process.Wait()
	eventually(t, "a count of one kill", func() bool { s, err := c.Stats(); return err == nil && s.Memory.OOMKills > 0 })
	if err := c.Destroy(); err != nil {
		t.Fatal(err)
	}
	closed := time.After(30 * time.Second)
	for {
		select {
		case _, ok := <-events:
			if !ok {
				return
			}
		case <-closed:
			t.Fatal("the channel is open 30 s after the group's end")
		}
	}
}

func TestWatchStops(t *testing.T) {
	c := newGroup(t, nil)
	if _, ok := c.dir("memory"); !ok && !c.v2 {
		t.Skip("no memory controller")
	}
	events, stop, err := c.WatchOOM()
	if err != nil {
		t.Fatal(err)
	}
	stop()
	stop()
	select {
	case _, ok := <-events:
		if ok {
			t.Error("an event out of nothing")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("still open after 30 s")
	}
}
