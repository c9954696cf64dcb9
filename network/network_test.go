package network

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cale/network/nft"
	"cale/network/rtnl"
)

func create(t testing.TB, s *Store, d Definition) Definition {
	t.Helper()
	d, err := s.Create(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestUserNetworksAreIsolated(t *testing.T) {
	s := openStore(t, Config{})
	far := outside(t)
	far.serve(99)
	create(t, s, Definition{Name: "one"})
	create(t, s, Definition{Name: "two"})
	create(t, s, Definition{Name: "inner", Internal: true})
	a, b, in1, in2 := newBox(t), newBox(t), newBox(t), newBox(t)
	for _, x := range []*box{a, b, in1, in2} {
		x.serve(80)
	}
	ea := attach(t, s, a, Attach{ID: "a", Network: "one", Ports: []PortMapping{{ContainerPort: 80}}})
	attach(t, s, b, Attach{ID: "b", Network: "two"})
	e1 := attach(t, s, in1, Attach{ID: "in1", Network: "inner", Ports: []PortMapping{{ContainerPort: 80}}})
	attach(t, s, in2, Attach{ID: "in2", Network: "inner"})

	if _, err := b.ask("tcp", netip.AddrPortFrom(ea.IPv4.Addr(), 80).String(), time.Second); err == nil {
		t.Error("two networks are connected")
	}
	published := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), ea.Ports[0].HostPort).String()
	if _, err := b.ask("tcp", published, patience); err != nil {
		t.Errorf("a published port from another network: %v", err)
	}
	if e1.Gateway.IsValid() || len(e1.Ports) > 0 {
		t.Errorf("internal endpoint has gateway %v, ports %v", e1.Gateway, e1.Ports)
	}
	if _, err := in2.ask("tcp", netip.AddrPortFrom(e1.IPv4.Addr(), 80).String(), patience); err != nil {
		t.Errorf("inside of an internal network: %v", err)
	}
	addRouteVia(t, in1, "default", s.List()[3].Gateway.String())
	for _, addr := range []string{"198.51.100.2:99", published} {
		if _, err := in1.ask("tcp", addr, time.Second); err == nil {
			t.Errorf("an internal network reaches %s", addr)
		}
	}
	if err := s.Remove(t.Context(), "one"); !errors.Is(err, ErrInUse) {
		t.Errorf("remove a used network: %v", err)
	}
}

func TestConnectAndDisconnectWhileRunning(t *testing.T) {
	s := openStore(t, Config{})
	far := outside(t)
	far.serve(99)
	create(t, s, Definition{Name: "one"})
	a, b := newBox(t), newBox(t)
	b.serve(80)
	first := attach(t, s, a, Attach{ID: "a"})
	eb := attach(t, s, b, Attach{ID: "b", Network: "one"})
	second := attach(t, s, a, Attach{ID: "a", Network: "one"})
	if !first.Default || second.Default || second.Interface != "eth1" {
		t.Fatalf("first %+v, second %+v", first, second)
	}
	if _, err := a.ask("tcp", netip.AddrPortFrom(eb.IPv4.Addr(), 80).String(), patience); err != nil {
		t.Error(err)
	}
	if err := s.Disconnect(t.Context(), "a", Bridge); err != nil {
		t.Fatal(err)
	}
	if e, _ := s.Endpoint("a"); e == nil || !e.Default || e.Network != "one" {
		t.Errorf("default route went to %+v", e)
	}
	for _, addr := range []string{"198.51.100.2:99", "[2001:db8::2]:99"} {
		if _, err := a.ask("tcp", addr, patience); err != nil {
			t.Errorf("by the network that is left: %v", err)
		}
	}
	if err := s.Disconnect(t.Context(), "a", Bridge); !errors.Is(err, ErrNotFound) {
		t.Errorf("disconnect twice: %v", err)
	}
}

func TestDefinitions(t *testing.T) {
	s := openStore(t, Config{})
	d := create(t, s, Definition{Name: "given", Subnet: netip.MustParsePrefix("10.200.3.0/24"), Gateway: netip.MustParseAddr("10.200.3.254"),
		Range: netip.MustParsePrefix("10.200.3.128/25"), Subnet6: netip.MustParsePrefix("fd00:1::/64"),
		Options: map[string]string{optBridge: "given0", optMTU: "1400", optICC: "false"}, Labels: map[string]string{"a": "b"}})
	a, b := newBox(t), newBox(t)
	a.serve(80)
	e := attach(t, s, a, Attach{ID: "a", Network: "given"})
	if e.IPv4.String() != "10.200.3.128/24" && !d.Range.Contains(e.IPv4.Addr()) || e.Gateway != d.Gateway {
		t.Errorf("endpoint %+v", e)
	}
	e2 := attach(t, s, b, Attach{ID: "b", Network: d.ID[:12], IPv4: netip.MustParseAddr("10.200.3.7"), MAC: "02:00:00:00:00:07"})
	if e2.IPv4.String() != "10.200.3.7/24" || e2.MAC != "02:00:00:00:00:07" {
		t.Errorf("endpoint %+v", e2)
	}
	if _, err := b.ask("tcp", netip.AddrPortFrom(e.IPv4.Addr(), 80).String(), time.Second); err == nil {
		t.Error("containers talk though enable_icc is false")
	}
	if l, err := s.route.Link("given0"); err != nil || l.MTU != 1400 {
		t.Errorf("bridge %+v, %v", l, err)
	}
	for _, c := range []struct {
		d    Definition
		want error
	}{
		{Definition{Name: "given"}, ErrExists},
		{Definition{Name: "bridge"}, ErrForbidden},
		{Definition{Name: "-x"}, ErrInvalid},
		{Definition{Name: "x", Subnet: netip.MustParsePrefix("10.200.0.0/16")}, ErrForbidden},
		{Definition{Name: "x", Subnet: netip.MustParsePrefix("10.201.0.0/16"), Gateway: netip.MustParseAddr("10.202.0.1")}, ErrInvalid},
		{Definition{Name: "x", Options: map[string]string{optBridge: "a-name-of-16-byte"}}, ErrInvalid},
		{Definition{Name: "x", Driver: "overlay"}, ErrNotFound},
	} {
		if _, err := s.Create(t.Context(), c.d); !errors.Is(err, c.want) {
			t.Errorf("%+v: got %v, want %v", c.d, err, c.want)
		}
	}
	c := newBox(t)
	for _, ip := range []string{"10.200.3.7", "10.200.3.254", "10.200.3.255", "10.1.1.1"} {
		if _, err := s.Attach(t.Context(), Attach{ID: "c", Network: "given", NetNS: c.path, IPv4: netip.MustParseAddr(ip)}); err == nil {
			t.Errorf("address %s is given away", ip)
		}
	}
	s.Detach(t.Context(), "a")
	s.Detach(t.Context(), "b")
	if err := s.Remove(t.Context(), "given"); err != nil {
		t.Error(err)
	}
	if _, err := s.Inspect("given"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if _, err := s.route.Link("given0"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("the bridge is still there: %v", err)
	}
}

// The default subnet and those of user networks keep off the host's routes.
func TestSubnetsAvoidRoutes(t *testing.T) {
	s := openStore(t, Config{})
	outside(t)
	for _, dst := range []string{"10.88.4.0/24", "10.89.0.0/16"} {
		if out, err := exec.Command("ip", "route", "add", dst, "via", "198.51.100.2").CombinedOutput(); err != nil {
			t.Skipf("needs ip: %s", out)
		}
	}
	e := attach(t, s, newBox(t), Attach{ID: "a"})
	if e.IPv4.Overlaps(netip.MustParsePrefix("10.88.0.0/16")) {
		t.Errorf("got %s", e.IPv4)
	}
	if d := create(t, s, Definition{Name: "x"}); d.Subnet.Overlaps(netip.MustParsePrefix("10.89.0.0/16")) {
		t.Errorf("got %s", d.Subnet)
	}
}

// After kill -9 of the daemon: the kernel's side works on; the next store
// adopts the living, removes the dead, sweeps what nobody knows, and repairs.
func TestReconcile(t *testing.T) {
	dir := tempDir(t)
	cfg := Config{RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state")}
	old, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	d := create(t, old, Definition{Name: "one"})
	alive, dead, broken := newBox(t), newBox(t), newBox(t)
	alive.serve(80)
	broken.serve(80)
	publish := []PortMapping{{ContainerPort: 80}}
	ea := attach(t, old, alive, Attach{ID: "alive", Ports: publish})
	ed := attach(t, old, dead, Attach{ID: "dead", Network: "one", Ports: publish})
	eb := attach(t, old, broken, Attach{ID: "broken", Network: "one", Ports: publish})
	// The process dies: sockets close, nothing else happens.
	old.ports.close()
	old.dns.close()
	for _, c := range []*rtnl.Conn{old.route, old.trash, old.filter} {
		c.Close()
	}
	at := func(e *Endpoint) string {
		return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), e.Ports[0].HostPort).String()
	}
	var host *box
	if _, err := host.ask("tcp", at(ea), patience); err != nil {
		t.Errorf("while no daemon runs: %v", err)
	}
	// Meanwhile a link is lost, one is left by a crash in Attach, and somebody
	// flushes the ruleset.
	c, err := rtnl.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	bridge, err := c.Link(d.Bridge)
	if err != nil {
		t.Fatal(err)
	}
	stray := linkPrefix + "0123456789ab"
	if err := c.Do(rtnl.DelLink(eb.HostLink), rtnl.NewVeth(rtnl.Veth{Name: stray, Master: bridge.Index, Peer: "stray", PeerNS: -1})); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.RunDir, "endpoints", "half.json.tmp"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}

	s := openStore(t, cfg)
	if err := s.Reconcile(t.Context(), func(id string) bool { return id != "dead" }); err != nil {
		t.Fatal(err)
	}
	for _, e := range []*Endpoint{ea, eb} {
		if _, err := host.ask("tcp", at(e), patience); err != nil {
			t.Errorf("%s: %v", e.Container, err)
		}
	}
	if _, ok := s.Endpoint("dead"); ok {
		t.Error("the dead still has an endpoint")
	}
	for _, name := range []string{ed.HostLink, stray} {
		if _, err := c.Link(name); !errors.Is(err, unix.ENODEV) {
			t.Errorf("link %s is still there: %v", name, err)
		}
	}
	if _, err := host.ask("tcp", at(ed), time.Second); err == nil {
		t.Error("the dead one's port answers")
	}
	if got, err := s.Inspect("one"); err != nil || got.Subnet != d.Subnet || len(got.Endpoints) != 1 {
		t.Errorf("network %+v, %v", got, err)
	}
	if _, err := s.Attach(t.Context(), Attach{ID: "new", NetNS: dead.path, Ports: []PortMapping{{HostPort: ea.Ports[0].HostPort, ContainerPort: 80}}}); !errors.Is(err, ErrPortInUse) {
		t.Errorf("the living one's port is given away: %v", err)
	}
	// Twice changes nothing.
	if err := s.Reconcile(t.Context(), func(id string) bool { return id != "dead" }); err != nil {
		t.Fatal(err)
	}
	if _, err := host.ask("tcp", at(ea), patience); err != nil {
		t.Error(err)
	}
}

func TestRulesComeBackAfterFlush(t *testing.T) {
	s := openStore(t, Config{})
	a, b := newBox(t), newBox(t)
	a.serve(80)
	ea := attach(t, s, a, Attach{ID: "a", Ports: []PortMapping{{ContainerPort: 80}}})
	flush := nft.Batch{Table: s.cfg.Name}
	flush.DelTable()
	if err := flush.Run(s.filter); err != nil {
		t.Fatal(err)
	}
	attach(t, s, b, Attach{ID: "b", Ports: []PortMapping{{ContainerPort: 80}}})
	if _, err := (*box)(nil).ask("tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), ea.Ports[0].HostPort).String(), patience); err != nil {
		t.Error(err)
	}
}

func TestTeardownLeavesNothing(t *testing.T) {
	s := openStore(t, Config{Name: "cale-abcdef"})
	a := newBox(t)
	create(t, s, Definition{Name: "one"})
	attach(t, s, a, Attach{ID: "a"})
	attach(t, s, a, Attach{ID: "a", Network: "one"})
	if err := s.Teardown(); !errors.Is(err, ErrInUse) {
		t.Errorf("teardown in use: %v", err)
	}
	if err := s.Detach(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.Teardown(); err != nil {
		t.Fatal(err)
	}
	links, err := s.route.Links()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Kind == "bridge" || l.Kind == "veth" {
			t.Errorf("left: %+v", l)
		}
	}
	if tables, err := nft.Tables(s.filter); err != nil || slices.Contains(tables, "cale-abcdef") {
		t.Errorf("tables %v, %v", tables, err)
	}
	files, _ := os.ReadDir(s.leaseDir())
	if len(files) > 0 {
		t.Errorf("leases %v", files)
	}
	// And all of it comes again.
	attach(t, s, a, Attach{ID: "a", Network: "one"})
}

// A bridge takes 1023 ports; the network takes more. The namespaces are one
// and the same: what counts is the number of pairs.
func TestMoreContainersThanABridgeHasPorts(t *testing.T) {
	if testing.Short() {
		t.Skip("makes more than a thousand interfaces")
	}
	s := openStore(t, Config{})
	first, last := newBox(t), newBox(t)
	first.serve(80)
	e := attach(t, s, first, Attach{ID: "first"})
	n, _ := s.find(Bridge)
	crowd := newBox(t)
	for i := range 1022 {
		v := rtnl.Veth{Name: "fill" + dec(i), Master: n.index, Peer: "p" + dec(i), PeerNS: crowd.fd}
		if err := s.route.Do(rtnl.NewVeth(v)); err != nil {
			t.Fatal(i, err)
		}
	}
	attach(t, s, last, Attach{ID: "last"})
	if _, err := last.ask("tcp", netip.AddrPortFrom(e.IPv4.Addr(), 80).String(), patience); err != nil {
		t.Error(err)
	}
	addr, err := (*box)(nil).ask("tcp", netip.AddrPortFrom(e.IPv4.Addr(), 80).String(), patience)
	if err != nil || !strings.HasPrefix(addr, e.Gateway.String()) {
		t.Errorf("host: seen as %s, %v", addr, err)
	}
}

func dec(i int) string { return strconv.Itoa(i) }

// A container may talk at once. Without care every second one waits a second:
// its first packet meets a bridge port that does not yet know it is up.
func TestFirstPacketIsNotLost(t *testing.T) {
	s := openStore(t, Config{})
	far := outside(t)
	far.serve(99)
	slow := 0
	const tries = 12
	for i := range tries {
		b := newBox(t)
		attach(t, s, b, Attach{ID: "c" + dec(i)})
		start := time.Now()
		if _, err := b.ask("tcp", "198.51.100.2:99", patience); err != nil {
			t.Fatal(err)
		}
		if time.Since(start) > 900*time.Millisecond {
			slow++
		}
	}
	if slow > tries/2 {
		t.Errorf("%d of %d containers waited a second for their first answer", slow, tries)
	}
}
