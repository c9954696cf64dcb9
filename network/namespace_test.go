package network

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"cale/network/rtnl"
)

func TestNewNamespaceLeavesTheThreadClean(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := os.Readlink(threadNS)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(tempDir(t), "net")
	if err := NewNamespace(path); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Readlink(threadNS); err != nil || after != before {
		t.Errorf("thread is in %s, was in %s: %v", after, before, err)
	}
	fd, err := openNamespace(path)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	c, err := rtnl.OpenIn(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if l, err := c.Link("lo"); err != nil || !l.Up {
		t.Errorf("loopback %+v, %v", l, err)
	}
	if err := NewNamespace(path); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second one at the same path: %v", err)
	}
	for range 2 { // the second time there is nothing
		if err := RemoveNamespace(path); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pin is still there: %v", err)
	}
}

func TestAttachRefusesWhatIsNoNamespace(t *testing.T) {
	s := openStore(t, Config{})
	path := filepath.Join(tempDir(t), "net")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, path + "-missing"} {
		if _, err := s.Attach(t.Context(), Attach{ID: "a", NetNS: p}); err == nil {
			t.Errorf("attached to %s", p)
		}
	}
	for _, id := range []string{"", "../x", "a/b", ".x", "a b"} {
		if _, err := s.Attach(t.Context(), Attach{ID: id, NetNS: path}); !errors.Is(err, ErrInvalid) {
			t.Errorf("ID %q: %v", id, err)
		}
	}
}

// Many at once: no address, name or port twice, and nothing is left.
func TestAttachAtOnce(t *testing.T) {
	s := openStore(t, Config{})
	const many = 24
	boxes := make([]*box, many)
	for i := range boxes {
		boxes[i] = newBox(t)
	}
	var wg sync.WaitGroup
	ends := make([]*Endpoint, many)
	for i, b := range boxes {
		wg.Go(func() {
			for range 2 { // the second call finds what the first made
				e, err := s.Attach(t.Context(), Attach{ID: "c" + dec(i), NetNS: b.path, Ports: []PortMapping{{ContainerPort: 80}}})
				if err != nil {
					t.Error(err)
					return
				}
				if ends[i] != nil && ends[i].ID != e.ID {
					t.Error("attached twice")
				}
				ends[i] = e
			}
		})
	}
	wg.Wait()
	seen := map[any]bool{}
	for _, e := range ends {
		if e == nil {
			continue
		}
		for _, key := range []any{e.IPv4, e.IPv6, e.MAC, e.HostLink, e.Ports[0].HostPort} {
			if seen[key] {
				t.Errorf("%v twice", key)
			}
			seen[key] = true
		}
	}
	for i := range boxes {
		wg.Go(func() {
			if err := s.Detach(t.Context(), "c"+dec(i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.containers)+len(s.ports.byPort) > 0 {
		t.Errorf("left: %v, %v", s.containers, s.ports.byPort)
	}
}

// A host with IPv6 switched off has containers without; so has a container
// that has it off itself.
func TestWithoutIPv6(t *testing.T) {
	const off = "/proc/sys/net/ipv6/conf/all/disable_ipv6"
	b := newBox(t)
	err := rtnl.In(b.fd, func() error {
		writeSysctl("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
		return writeSysctl(off, "1")
	})
	if err != nil {
		t.Skip("no IPv6 here:", err)
	}
	b.serve(80)
	publish := []PortMapping{{ContainerPort: 80}}
	check := func(e *Endpoint) {
		t.Helper()
		if e.IPv6.IsValid() || e.Gateway6.IsValid() || len(e.Ports) != 1 {
			t.Errorf("endpoint %+v", e)
		}
		if _, err := (*box)(nil).ask("tcp", "127.0.0.1:"+dec(int(e.Ports[0].HostPort)), patience); err != nil {
			t.Error(err)
		}
	}
	s := openStore(t, Config{})
	check(attach(t, s, b, Attach{ID: "b", Ports: publish}))

	if err := s.Detach(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if err := s.Teardown(); err != nil {
		t.Fatal(err)
	}
	if err := writeSysctl(off, "1"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		writeSysctl(off, "0")
		writeSysctl("/proc/sys/net/ipv6/conf/default/disable_ipv6", "0")
	}()
	other := newBox(t)
	other.serve(80)
	check(attach(t, s, other, Attach{ID: "other", Ports: publish}))
}
