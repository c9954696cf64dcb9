package network

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The host's own rules for incoming traffic hold for published ports where a network obeys them: ufw's deny closes one,
// and the container still sees who connects. (https://github.com/moby/moby/issues/22054)
func TestHostFirewall(t *testing.T) {
	rule := func(command string, args ...string) {
		t.Helper()
		if out, err := exec.Command(command, args...).CombinedOutput(); err != nil {
			t.Skipf("needs %s on nftables: %v: %s", command, err, out)
		}
	}
	both := func(args ...string) {
		t.Helper()
		rule("iptables-nft", args...)
		rule("ip6tables-nft", args...)
	}
	both("-S", "INPUT")
	t.Cleanup(func() {
		exec.Command("iptables-nft", "-F", "INPUT").Run()
		exec.Command("ip6tables-nft", "-F", "INPUT").Run()
	})
	// As hardened hosts have it.
	if err := writeSysctl("/proc/sys/net/ipv4/conf/all/rp_filter", "1"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { writeSysctl("/proc/sys/net/ipv4/conf/all/rp_filter", "0") })
	s := openStore(t, Config{Firewall: FirewallHost})
	create(t, s, Definition{Name: "open", Options: map[string]string{optFirewall: FirewallPublished}})
	far := outside(t)
	box1, box2, client := newBox(t), newBox(t), newBox(t)
	box1.serve(80)
	box2.serve(80)
	ports := func(port uint16) []PortMapping {
		return []PortMapping{{HostPort: port, ContainerPort: 80}, {HostPort: port, ContainerPort: 80, Protocol: "udp"}}
	}
	e := attach(t, s, box1, Attach{ID: "obeys", Ports: ports(8080)})
	attach(t, s, box2, Attach{ID: "open", Network: "open", Ports: ports(8081)})
	attach(t, s, client, Attach{ID: "client"})

	hosts := []string{"198.51.100.1", "[2001:db8::1]"}
	open := func(when string, port int, reach bool) {
		t.Helper()
		for _, host := range hosts {
			for _, proto := range []string{"tcp", "udp"} {
				addr := fmt.Sprintf("%s:%d", host, port)
				wait := patience
				if !reach {
					wait = 1500 * time.Millisecond
				}
				seen, err := far.ask(proto, addr, wait)
				switch {
				case reach && err != nil:
					t.Errorf("%s %s %s: %v", when, proto, addr, err)
				case reach && !strings.HasPrefix(seen, "198.51.100.2:") && !strings.HasPrefix(seen, "[2001:db8::2]:"):
					t.Errorf("%s %s %s: the container sees %s instead of the peer", when, proto, addr, seen)
				case !reach && err == nil:
					t.Errorf("%s %s %s answers", when, proto, addr)
				}
			}
		}
	}
	open("without rules", 8080, true)
	open("without rules", 8081, true)
	begin := time.Now()
	if _, err := far.ask("tcp", "198.51.100.1:8080", patience); err != nil || time.Since(begin) > 700*time.Millisecond {
		t.Errorf("a connection takes %s: %v", time.Since(begin), err)
	}
	for _, addr := range []string{"127.0.0.1", "198.51.100.1", e.Gateway.String()} {
		if _, err := (*box)(nil).ask("tcp", addr+":8080", patience); err != nil {
			t.Errorf("the host itself: %v", err)
		}
	}
	if _, err := client.ask("tcp", "198.51.100.1:8080", patience); err != nil {
		t.Errorf("another container: %v", err)
	}
	for _, proto := range []string{"tcp", "udp"} {
		both("-A", "INPUT", "-p", proto, "--dport", "8080:8081", "-j", "DROP")
	}
	open("denied", 8080, false)
	open("denied where networks don't obey", 8081, true)
	if _, err := (*box)(nil).ask("tcp", "127.0.0.1:8080", patience); err != nil {
		t.Errorf("what the host sends to itself is no incoming traffic: %v", err)
	}
	both("-I", "INPUT", "-i", "wan", "-p", "tcp", "--dport", "8080", "-j", "ACCEPT")
	if _, err := far.ask("tcp", "198.51.100.1:8080", patience); err != nil {
		t.Errorf("allowed again: %v", err)
	}
	s.Detach(context.Background(), "obeys")
	s.Detach(context.Background(), "open")
	s.Detach(context.Background(), "client")
	if err := s.Teardown(); err != nil {
		t.Fatal(err)
	}
	out, _ := exec.Command("nft", "list", "tables").CombinedOutput()
	if strings.Contains(string(out), gateTable) {
		t.Errorf("left: %s", out)
	}
	device, _ := s.gateDevices()
	if _, err := s.route.Link(device); err == nil {
		t.Errorf("device %s is left", device)
	}
}
