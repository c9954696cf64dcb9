package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// Every way in: the host's loopback and own addresses, another machine,
// another container, the container itself; IPv4 and IPv6; TCP and UDP.
func TestPublishedPortAnswersFromEverywhere(t *testing.T) {
	for _, bridged := range []string{"0", "1"} {
		t.Run("bridge-nf-call="+bridged, func(t *testing.T) {
			for _, path := range []string{bridgeFilter4, bridgeFilter6} {
				if err := writeSysctl(path, bridged); err != nil && bridged == "1" {
					t.Skip("no br_netfilter:", err)
				}
			}
			testPublishedPort(t)
		})
	}
}

func testPublishedPort(t *testing.T) {
	s := openStore(t, Config{})
	far := outside(t)
	server, client := newBox(t), newBox(t)
	server.serve(80)
	e := attach(t, s, server, Attach{ID: "server", Ports: []PortMapping{{ContainerPort: 80}, {ContainerPort: 80, Protocol: "udp"}}})
	attach(t, s, client, Attach{ID: "client"})
	if len(e.Ports) != 4 {
		t.Fatalf("ports %v, want two protocols in two families", e.Ports)
	}
	tcp, udp := e.Ports[0].HostPort, e.Ports[2].HostPort
	if e.Ports[0].Protocol != "tcp" || e.Ports[2].Protocol != "udp" || tcp == 0 || udp == 0 {
		t.Fatalf("ports %v", e.Ports)
	}
	from := map[string]*box{"host": nil, "other machine": far, "other container": client, "itself": server}
	for _, c := range []struct{ from, addr string }{
		{"host", "127.0.0.1"}, {"host", "127.1.2.3"}, {"host", "[::1]"}, {"host", "198.51.100.1"}, {"host", "[2001:db8::1]"},
		{"host", e.Gateway.String()}, {"host", "[" + e.Gateway6.String() + "]"},
		{"other machine", "198.51.100.1"}, {"other machine", "[2001:db8::1]"},
		{"other container", "198.51.100.1"}, {"other container", "[2001:db8::1]"},
		{"other container", e.Gateway.String()}, {"other container", "[" + e.Gateway6.String() + "]"},
		{"itself", "198.51.100.1"}, {"itself", "[2001:db8::1]"},
	} {
		for proto, port := range map[string]uint16{"tcp": tcp, "udp": udp} {
			addr := fmt.Sprintf("%s:%d", c.addr, port)
			seen, err := from[c.from].ask(proto, addr, patience)
			if err != nil {
				t.Errorf("%s %s from %s: %v", proto, addr, c.from, err)
				continue
			}
			if c.from == "other machine" && !strings.HasPrefix(seen, "198.51.100.2:") && !strings.HasPrefix(seen, "[2001:db8::2]:") {
				t.Errorf("%s %s from %s: the container sees %s instead of the peer", proto, addr, c.from, seen)
			}
		}
	}
}

func TestContainersReachOutAndEachOtherAndNothingElse(t *testing.T) {
	s := openStore(t, Config{})
	far := outside(t)
	far.serve(99)
	a, b := newBox(t), newBox(t)
	a.serve(80)
	ea := attach(t, s, a, Attach{ID: "a"})
	attach(t, s, b, Attach{ID: "b"})
	for _, addr := range []string{"198.51.100.2:99", "[2001:db8::2]:99"} {
		seen, err := a.ask("tcp", addr, patience)
		if err != nil {
			t.Errorf("out to %s: %v", addr, err)
		}
		if !strings.HasPrefix(seen, "198.51.100.1:") && !strings.HasPrefix(seen, "[2001:db8::1]:") {
			t.Errorf("out to %s: seen as %s", addr, seen)
		}
	}
	for _, ip := range []netip.Addr{ea.IPv4.Addr(), ea.IPv6.Addr()} {
		if _, err := b.ask("tcp", netip.AddrPortFrom(ip, 80).String(), patience); err != nil {
			t.Errorf("to a neighbour at %s: %v", ip, err)
		}
		if _, err := (*box)(nil).ask("tcp", netip.AddrPortFrom(ip, 80).String(), patience); err != nil {
			t.Errorf("from the host to %s: %v", ip, err)
		}
	}
	// What is on the host's loopback stays there, CVE-2020-8558.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	addRoute(t, a, "127.0.0.1/32")
	if _, err := a.ask("tcp", l.Addr().String(), time.Second); err == nil {
		t.Error("a container reached the host's loopback")
	}
	// A machine beside the host does not reach what was not published.
	addRouteVia(t, far, ea.IPv4.Masked().String(), "198.51.100.1")
	if _, err := far.ask("tcp", netip.AddrPortFrom(ea.IPv4.Addr(), 80).String(), time.Second); err == nil {
		t.Error("another machine reached an unpublished port")
	}
}

func TestPortOnOneAddressOnly(t *testing.T) {
	s := openStore(t, Config{})
	far := outside(t)
	b := newBox(t)
	b.serve(80)
	e := attach(t, s, b, Attach{ID: "b", Ports: []PortMapping{
		{HostIP: netip.MustParseAddr("127.0.0.1"), ContainerPort: 80},
		{HostIP: netip.MustParseAddr("2001:db8::1"), ContainerPort: 80},
	}})
	p4, p6 := e.Ports[0].HostPort, e.Ports[1].HostPort
	if _, err := (*box)(nil).ask("tcp", fmt.Sprintf("127.0.0.1:%d", p4), patience); err != nil {
		t.Error(err)
	}
	if _, err := far.ask("tcp", fmt.Sprintf("[2001:db8::1]:%d", p6), patience); err != nil {
		t.Error(err)
	}
	for _, addr := range []string{fmt.Sprintf("198.51.100.1:%d", p4), fmt.Sprintf("198.51.100.1:%d", p6)} {
		if _, err := far.ask("tcp", addr, patience); err == nil {
			t.Errorf("%s answers", addr)
		}
	}
}

func TestPortConflicts(t *testing.T) {
	s := openStore(t, Config{})
	a, b := newBox(t), newBox(t)
	e := attach(t, s, a, Attach{ID: "a", Ports: []PortMapping{{ContainerPort: 80}}})
	port := e.Ports[0].HostPort
	try := func(m PortMapping) error {
		t.Helper()
		_, err := s.Attach(t.Context(), Attach{ID: "b", NetNS: b.path, Ports: []PortMapping{m}})
		if _, ok := s.Endpoint("b"); ok != (err == nil) {
			t.Errorf("endpoint exists: %v, error: %v", ok, err)
		}
		return err
	}
	err := try(PortMapping{HostPort: port, ContainerPort: 80})
	want := fmt.Sprintf("Bind for 0.0.0.0:%d failed: port is already allocated", port)
	if !errors.Is(err, ErrPortInUse) || !strings.Contains(fmt.Sprint(err), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := try(PortMapping{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: port, ContainerPort: 80}); !errors.Is(err, ErrPortInUse) {
		t.Errorf("one address of a port taken on all: %v", err)
	}
	// A program of the host's listens; then it ends, leaving TIME_WAIT behind.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken := uint16(l.Addr().(*net.TCPAddr).Port)
	err = try(PortMapping{HostPort: taken, ContainerPort: 80})
	if !errors.Is(err, ErrPortInUse) || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("port of a program: %v", err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server.Close() // the active closer gets TIME_WAIT
	c.Close()
	l.Close()
	if err := try(PortMapping{HostPort: taken, ContainerPort: 80}); err != nil {
		t.Errorf("port in TIME_WAIT only: %v", err)
	}
	// A published port is taken for programs as well.
	if l, err := net.Listen("tcp", fmt.Sprintf(":%d", taken)); err == nil {
		l.Close()
		t.Error("a program listens on a published port")
	}
	// Given back, it is free for everybody.
	if err := s.Detach(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	l, err = net.Listen("tcp", fmt.Sprintf(":%d", taken))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestPortRanges(t *testing.T) {
	s := openStore(t, Config{})
	a, b := newBox(t), newBox(t)
	a.serve(81)
	// A range that is free in this namespace: nobody else is here.
	e := attach(t, s, a, Attach{ID: "a", Ports: []PortMapping{{HostPort: 7000, HostPortEnd: 7002, ContainerPort: 80, ContainerPortEnd: 82}}})
	if len(e.Ports) != 6 || e.Ports[2].HostPort != 7001 || e.Ports[2].ContainerPort != 81 {
		t.Fatalf("ports %v", e.Ports)
	}
	if _, err := (*box)(nil).ask("tcp", "127.0.0.1:7001", patience); err != nil {
		t.Error(err)
	}
	// One container port takes the first free one of a range.
	e = attach(t, s, b, Attach{ID: "b", Ports: []PortMapping{{HostPort: 7000, HostPortEnd: 7009, ContainerPort: 80}}})
	if e.Ports[0].HostPort != 7003 || e.Ports[1].HostPort != 7003 {
		t.Errorf("ports %v, want 7003", e.Ports)
	}
	for _, bad := range []PortMapping{
		{HostPort: 10, HostPortEnd: 12, ContainerPort: 80, ContainerPortEnd: 81},
		{HostPort: 12, HostPortEnd: 10, ContainerPort: 80},
		{ContainerPort: 0},
		{ContainerPort: 80, Protocol: "icmp"},
	} {
		if _, err := s.Attach(t.Context(), Attach{ID: "c", NetNS: b.path, Ports: []PortMapping{bad}}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
