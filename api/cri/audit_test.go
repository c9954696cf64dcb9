package cri

import (
	"strconv"
	"testing"
	"time"

	"cale/audit"
)

// A probe is written down when it is new, ends otherwise, or an hour has gone by.
func TestProbesAreAuditedOnce(t *testing.T) {
	var p probes
	now := time.Now()
	kubelet := &audit.Peer{PID: 7}
	entry := func(peer *audit.Peer, command, outcome string) *audit.Entry {
		return &audit.Entry{Peer: peer, Object: "c", Command: []string{command}, Outcome: outcome}
	}
	for i, test := range []struct {
		e     *audit.Entry
		after time.Duration
		want  bool
	}{
		{entry(kubelet, "true", "done"), 0, true},
		{entry(kubelet, "true", "done"), time.Minute, false},
		{entry(kubelet, "true", "exit status 1"), time.Minute, true},
		{entry(kubelet, "false", "done"), time.Minute, true},
		{entry(&audit.Peer{PID: 8}, "true", "done"), time.Minute, true},
		{entry(nil, "true", "done"), time.Minute, true},
		{entry(kubelet, "true", "done"), 59 * time.Minute, false},
		{entry(kubelet, "true", "done"), 61 * time.Minute, true},
	} {
		if got := p.first(test.e, now.Add(test.after)); got != test.want {
			t.Errorf("%d: written down: %v", i, got)
		}
	}
	for i := range 3 * mostProbes {
		p.first(entry(kubelet, strconv.Itoa(i), "done"), now)
	}
	if len(p.seen) > mostProbes {
		t.Errorf("%d are remembered", len(p.seen))
	}
}
