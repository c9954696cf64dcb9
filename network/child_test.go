package network

import (
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cale/network/rtnl"
)

// TestMacvlan: containers are machines on the network that a device of the host's is on.
func TestMacvlan(t *testing.T) {
	wan := outside(t)
	wan.serve(80)
	cfg := Config{RunDir: tempDir(t), StateDir: tempDir(t)}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	d := create(t, s, Definition{Name: "lan", Driver: Macvlan, NoIPv6: true, Options: map[string]string{"parent": "wan"},
		Subnet: netip.MustParsePrefix("198.51.100.0/24"), Range: netip.MustParsePrefix("198.51.100.128/25"), Gateway: netip.MustParseAddr("198.51.100.2")})
	a, b := newBox(t), newBox(t)
	ea, err := s.Attach(t.Context(), Attach{ID: "a", Network: "lan", NetNS: a.path, Name: "web", Ports: []PortMapping{{ContainerPort: 80, HostPort: 8080}}})
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	eb := attach(t, s, b, Attach{ID: "b", Network: "lan", Name: "db"})
	if !d.Range.Contains(ea.IPv4.Addr()) || ea.IPv4 == eb.IPv4 || len(ea.Ports) > 0 {
		t.Errorf("endpoints %+v and %+v", ea, eb)
	}
	if got, err := a.ask("tcp", "198.51.100.2:80", patience); err != nil || !strings.HasPrefix(got, ea.IPv4.Addr().String()) {
		t.Errorf("the other machine answers %q, %v", got, err)
	}
	// By the default route too: the gateway is that machine.
	far, err := rtnl.OpenIn(wan.fd)
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	if err := far.Do(rtnl.NewAddr(1, netip.MustParsePrefix("203.0.113.9/32"))); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ask("tcp", "203.0.113.9:80", patience); err != nil {
		t.Errorf("by the default route: %v", err)
	}
	b.serve(81)
	if _, err := a.ask("tcp", eb.IPv4.Addr().String()+":81", patience); err != nil {
		t.Errorf("one container asks the other: %v", err)
	}
	names := func() {
		t.Helper()
		for _, proto := range []string{"udp", "tcp"} {
			if got, err := b.lookup(proto, "web"); err != nil || len(got) != 1 || got[0] != ea.IPv4.Addr() {
				t.Errorf("%s: the other's name: %v, %v", proto, got, err)
			}
		}
	}
	names()

	// Another engine answers names again, and finds the devices.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, cfg) // which takes all away at the end
	if err := s.Reconcile(t.Context(), func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	names()
	// The container gives its device another name: it goes all the same.
	rename := exec.Command("ip", "link", "set", eb.Interface, "down", "name", "mine0")
	if err := rtnl.In(b.fd, rename.Run); err != nil {
		t.Fatal(err)
	}
	if err := s.Disconnect(t.Context(), "b", "lan"); err != nil {
		t.Fatal(err)
	}
	inside, err := rtnl.OpenIn(b.fd)
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	for _, name := range []string{eb.Interface, "mine0"} {
		if _, err := inside.Link(name); !errors.Is(err, unix.ENODEV) {
			t.Errorf("the device of a disconnected container, %s: %v", name, err)
		}
	}
	if _, err := a.ask("tcp", "198.51.100.2:80", patience); err != nil {
		t.Errorf("the other container: %v", err)
	}
}

// TestVLAN: a parent that is not there is made with the network, and goes with it.
func TestVLAN(t *testing.T) {
	outside(t)
	s := openStore(t, Config{})
	create(t, s, Definition{Name: "vlan", Driver: Macvlan, Options: map[string]string{"parent": "wan.42"}})
	a := newBox(t)
	if _, err := s.Attach(t.Context(), Attach{ID: "a", Network: "vlan", NetNS: a.path}); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	c, err := rtnl.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Link("wan.42"); err != nil {
		t.Errorf("the VLAN's device: %v", err)
	}
	create(t, s, Definition{Name: "other", Driver: Macvlan, Options: map[string]string{"parent": "wan.42"}})
	if err := s.Detach(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "vlan"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Link("wan.42"); err != nil {
		t.Errorf("the VLAN's device, of which another network is: %v", err)
	}
	if err := s.Remove(t.Context(), "other"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Link("wan.42"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("the VLAN's device after its network: %v", err)
	}
}

func TestChildDefinitions(t *testing.T) {
	outside(t)
	s := openStore(t, Config{})
	for want, options := range map[string]map[string]string{
		"no device nothere":    {"parent": "nothere"},
		"no device nothere to": {"parent": "nothere.5"},
		"loopback":             {"parent": "lo"},
		"macvlan_mode":         {"parent": "wan", "macvlan_mode": "x"},
		"device name":          {"parent": "a/b"},
		"DEVICE.VLAN":          {"parent": "wan.5000"},
	} {
		if _, err := s.Create(t.Context(), Definition{Name: "bad", Driver: Macvlan, Options: options}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", options, err)
		}
	}
	create(t, s, Definition{Name: "routed", Driver: IPvlan, NoIPv6: true, Options: map[string]string{"parent": "wan", "ipvlan_mode": "l3"}})
	for _, mode := range []string{"l2", "l4"} { // another than the parent's, and none at all
		if _, err := s.Create(t.Context(), Definition{Name: "bad", Driver: IPvlan, Options: map[string]string{"parent": "wan", "ipvlan_mode": mode}}); !errors.Is(err, ErrInvalid) {
			t.Errorf("ipvlan %s: %v", mode, err)
		}
	}
}

// TestIPvlanRouted: in mode L3 containers of different subnets on one parent reach each other, and others by routes alone.
func TestIPvlanRouted(t *testing.T) {
	wan := outside(t)
	wan.serve(80)
	s := openStore(t, Config{})
	for i, name := range []string{"one", "two"} {
		create(t, s, Definition{Name: name, Driver: IPvlan, NoIPv6: true, Options: map[string]string{"parent": "wan", "ipvlan_mode": "l3"},
			Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, byte(i), 0}), 24)})
	}
	a, b := newBox(t), newBox(t)
	if _, err := s.Attach(t.Context(), Attach{ID: "a", Network: "one", NetNS: a.path}); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	eb := attach(t, s, b, Attach{ID: "b", Network: "two"})
	b.serve(81)
	if _, err := a.ask("tcp", eb.IPv4.Addr().String()+":81", patience); err != nil {
		t.Errorf("a container of another subnet: %v", err)
	}
	route := exec.Command("ip", "route", "add", "10.77.0.0/16", "via", "198.51.100.1")
	if err := rtnl.In(wan.fd, route.Run); err != nil {
		t.Fatal(err)
	}
	if got, err := a.ask("tcp", "198.51.100.2:80", patience); err != nil || !strings.HasPrefix(got, "10.77.0.") {
		t.Errorf("another machine, which has a route: %q, %v", got, err)
	}
}
