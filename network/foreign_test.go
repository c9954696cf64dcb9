package network

import (
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Docker sets the policy of FORWARD to drop; containers work nevertheless,
// and iptables can still read its own chain.
func TestForwardPolicyDrop(t *testing.T) {
	iptables := func(command string, args ...string) string {
		out, err := exec.Command(command, args...).CombinedOutput()
		if err != nil {
			t.Skipf("needs %s on nftables: %v: %s", command, err, out)
		}
		return string(out)
	}
	commands := []string{"iptables-nft", "ip6tables-nft"}
	for _, c := range commands {
		iptables(c, "-P", "FORWARD", "DROP")
		t.Cleanup(func() { exec.Command(c, "-P", "FORWARD", "ACCEPT").Run() })
	}
	s := openStore(t, Config{})
	far := outside(t)
	far.serve(99)
	b, in1, in2 := newBox(t), newBox(t), newBox(t)
	attach(t, s, b, Attach{ID: "b"})
	create(t, s, Definition{Name: "inner", Internal: true})
	e1 := attach(t, s, in1, Attach{ID: "in1", Network: "inner"})
	attach(t, s, in2, Attach{ID: "in2", Network: "inner"})
	in1.serve(80)
	for _, addr := range []string{"198.51.100.2:99", "[2001:db8::2]:99"} {
		if _, err := b.ask("tcp", addr, patience); err != nil {
			t.Error(err)
		}
		if _, err := in1.ask("tcp", addr, time.Second); err == nil {
			t.Errorf("an internal network reaches %s", addr)
		}
	}
	if _, err := in2.ask("tcp", e1.IPv4.Addr().String()+":80", patience); err != nil {
		t.Error(err)
	}
	for _, c := range commands {
		rules := iptables(c, "-S", "FORWARD")
		if !strings.Contains(rules, "-i cale0") || strings.Count(rules, "cale0") < 2 {
			t.Errorf("%s shows %s", c, rules)
		}
	}
	for _, id := range []string{"b", "in1", "in2"} {
		s.Detach(t.Context(), id)
	}
	if err := s.Teardown(); err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		if rules := iptables(c, "-S", "FORWARD"); strings.Count(rules, "\n") != 1 {
			t.Errorf("%s: left are %s", c, rules)
		}
	}
}
