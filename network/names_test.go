package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"cale/network/dns"
	"cale/network/rtnl"
)

// resolver asks 127.0.0.11 inside the box, over UDP or TCP.
func (b *box) resolver(proto string) *net.Resolver {
	return &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, _, _ string) (c net.Conn, err error) {
		err = rtnl.In(b.fd, func() error {
			c, err = net.DialTimeout(proto, "127.0.0.11:53", patience)
			return err
		})
		return c, err
	}}
}

func (b *box) lookup(proto, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return b.resolver(proto).LookupNetIP(ctx, "ip", name)
}

// outer is the host's DNS: it knows "example.test".
type outer struct{}

func (outer) Lookup(_ netip.Addr, name string) ([]netip.Addr, bool, bool) {
	if name == "example.test" {
		return []netip.Addr{netip.MustParseAddr("203.0.113.1")}, true, true
	}
	return nil, true, true
}
func (outer) Reverse(_, _ netip.Addr) string         { return "" }
func (outer) Upstream(_ netip.Addr) []netip.AddrPort { return nil }

func TestNames(t *testing.T) {
	upstream, err := dns.ListenPort(netip.MustParseAddr("127.0.0.1"), dnsPort, outer{})
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	conf := filepath.Join(tempDir(t), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver 127.0.0.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer func(old []string) { resolvPaths = old }(resolvPaths)
	resolvPaths = []string{conf}

	s := openStore(t, Config{})
	for _, d := range []Definition{{Name: "one"}, {Name: "two"}, {Name: "inner", Internal: true}} {
		create(t, s, d)
	}
	a, b, c, in := newBox(t), newBox(t), newBox(t), newBox(t)
	ea := attach(t, s, a, Attach{ID: "0123456789abcdef", Network: "one", Name: "web", Hostname: "host-a", Aliases: []string{"Www", "shared"}})
	eb := attach(t, s, b, Attach{ID: "b", Network: "one", Name: "db", Aliases: []string{"shared"}})
	attach(t, s, c, Attach{ID: "c", Network: "two", Name: "other"})
	attach(t, s, in, Attach{ID: "in", Network: "inner", Name: "lonely"})
	if ea.DNS != resolverAddr {
		t.Fatalf("name server %s", ea.DNS)
	}
	for _, proto := range []string{"udp", "tcp"} {
		for _, name := range []string{"web", "WEB", "web.one", "host-a", "www", "0123456789ab", "web."} {
			got, err := b.lookup(proto, name)
			want := []netip.Addr{ea.IPv4.Addr(), ea.IPv6.Addr()}
			if err != nil || len(got) != 2 || !slices.Contains(got, want[0]) || !slices.Contains(got, want[1]) {
				t.Errorf("%s %s: %v, %v, want %v", proto, name, got, err, want)
			}
		}
		if got, err := b.lookup(proto, "example.test"); err != nil || len(got) != 1 || got[0].String() != "203.0.113.1" {
			t.Errorf("%s: from outside: %v, %v", proto, got, err)
		}
	}
	if got, err := a.lookup("udp", "shared"); err != nil || len(got) != 4 {
		t.Errorf("a shared alias: %v, %v", got, err)
	}
	if got, err := c.lookup("udp", "web"); err == nil {
		t.Errorf("another network's name: %v", got)
	}
	if got, err := in.lookup("udp", "example.test"); err == nil {
		t.Errorf("an internal network learns %v from outside", got)
	}
	if got, err := in.lookup("udp", "lonely"); err != nil || len(got) != 2 {
		t.Errorf("its own name: %v, %v", got, err)
	}
	if got, err := a.resolver("udp").LookupAddr(t.Context(), eb.IPv4.Addr().String()); err != nil || len(got) != 1 || got[0] != "db.one." {
		t.Errorf("reverse: %v, %v", got, err)
	}
	if got, err := a.resolver("udp").LookupAddr(t.Context(), eb.IPv6.Addr().String()); err != nil || len(got) != 1 || got[0] != "db.one." {
		t.Errorf("reverse: %v, %v", got, err)
	}

	// On two networks both are known; on the one that is left, that one's.
	attach(t, s, a, Attach{ID: "0123456789abcdef", Network: "two", Name: "web"})
	if _, err := a.lookup("udp", "other"); err != nil {
		t.Error(err)
	}
	if _, err := a.lookup("udp", "db"); err != nil {
		t.Error(err)
	}
	if err := s.Disconnect(t.Context(), "0123456789abcdef", "two"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.lookup("udp", "db"); err != nil {
		t.Error(err)
	}
	var notFound *net.DNSError
	if got, err := a.lookup("udp", "other"); !errors.As(err, &notFound) {
		t.Errorf("a network that was left: %v, %v", got, err)
	}

	// A new daemon answers what the old one's containers ask.
	if err := s.Rename("b", "database"); err != nil {
		t.Fatal(err)
	}
	s.dns.close()
	s2, err := Open(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s2.Close()
	if err := s2.Reconcile(t.Context(), func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if got, err := a.lookup("udp", "database"); err != nil || len(got) != 2 {
		t.Errorf("after a restart: %v, %v", got, err)
	}
}
