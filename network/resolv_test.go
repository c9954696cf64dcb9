package network

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestHostDNS(t *testing.T) {
	dir := t.TempDir()
	stub, real := filepath.Join(dir, "stub"), filepath.Join(dir, "real")
	addr := netip.MustParseAddr
	for _, c := range []struct {
		name, stub, real string
		want             DNS
	}{
		{"plain", "# x\nsearch a.test b.test\nnameserver 192.0.2.1\nnameserver 2001:db8::1\noptions ndots:2 edns0\n", "",
			DNS{Servers: []netip.Addr{addr("192.0.2.1"), addr("2001:db8::1")}, Search: []string{"a.test", "b.test"}, Options: []string{"ndots:2", "edns0"}}},
		{"systemd-resolved", "nameserver 127.0.0.53\nsearch a.test\n", "nameserver 192.0.2.7\n",
			DNS{Servers: []netip.Addr{addr("192.0.2.7")}, Search: []string{"a.test"}}},
		{"only loopback", "nameserver 127.0.0.1\nnameserver ::1\n", "", DNS{Servers: fallbackDNS}},
		{"link-local with a zone", "nameserver fe80::1%eth0\nnameserver 192.0.2.1\n", "", DNS{Servers: []netip.Addr{addr("192.0.2.1")}}},
		{"empty", "", "", DNS{Servers: fallbackDNS}},
		{"nonsense", "nameserver\nnameserver x\nfoo bar\n", "", DNS{Servers: fallbackDNS}},
	} {
		os.WriteFile(stub, []byte(c.stub), 0o600)
		os.WriteFile(real, []byte(c.real), 0o600)
		if got, err := hostDNS([]string{stub, real}); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v, want %+v", c.name, got, err, c.want)
		}
		if again := ParseResolv(WriteResolv(c.want)); !reflect.DeepEqual(again, c.want) {
			t.Errorf("%s: written and read: %+v", c.name, again)
		}
	}
	if got, err := hostDNS([]string{filepath.Join(dir, "missing")}); err != nil || len(got.Servers) == 0 {
		t.Errorf("no file: %+v, %v", got, err)
	}
}

func TestWriteHosts(t *testing.T) {
	got := string(WriteHosts([]HostEntry{{netip.MustParseAddr("10.88.0.2"), []string{"a", "b"}}, {Names: []string{"x"}}, {Addr: netip.MustParseAddr("::2")}}))
	if want := loopbackHosts + "10.88.0.2\ta b\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPool(t *testing.T) {
	p := newPool(netip.MustParsePrefix("10.0.0.0/29"), netip.Prefix{})
	gateway := netip.MustParseAddr("10.0.0.1")
	p.used[gateway] = true
	var got []netip.Addr
	for {
		a, err := p.take(netip.Addr{})
		if err != nil {
			break
		}
		got = append(got, a)
	}
	if len(got) != 5 || got[0].String() != "10.0.0.2" || got[4].String() != "10.0.0.6" {
		t.Errorf("got %v", got)
	}
	p.give(got[3])
	p.give(got[1])
	if a, err := p.take(netip.Addr{}); err != nil || a != got[1] {
		t.Errorf("after the last comes the first that is free: %v, %v", a, err)
	}
	p.give(got[1])
	if a, _ := p.take(netip.Addr{}); a != got[3] {
		t.Errorf("what was just given back rests: %v", a)
	}
	if a := nth(netip.MustParsePrefix("10.0.255.0/16"), 300); a.String() != "10.0.1.44" {
		t.Errorf("nth: %v", a)
	}
}
