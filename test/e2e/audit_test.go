package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cale/test/stack"
)

// TestAudit: every request that changes something is on record, with who, what, and how it ended; those that only look
// are not.
func TestAudit(t *testing.T) {
	s := stack.New(t)
	s.Cale("run", "-d", "--name", "web", s.Busybox(), "sleep", "1000").OK(t)
	s.Cale("exec", "web", "echo", "hello there").OK(t)
	s.Cale("rename", "web", "shop").OK(t)
	s.Cale("stop", "-t", "0", "shop").OK(t)
	s.Cale("start", "nothing")
	s.Cale("volume", "create", "vol").OK(t)
	s.Cale("network", "create", "net1").OK(t)
	s.Cale("network", "rm", "net1").OK(t)
	s.Cale("pull", s.Registry+"/missing")
	s.Cale("ps", "-a").OK(t)
	s.Cale("logs", "shop").OK(t)
	s.Cale("inspect", "shop").OK(t)
	s.Do("FROM "+s.Busybox()+"\nRUN true\n", "cale", "build", "-t", "made", "-").OK(t)
	s.Cale("rm", "shop").OK(t)
	s.Cale("rmi", "made").OK(t)

	type entry struct {
		API, Action, Request, Object, Made, Outcome string
		Command                                     []string
		Peer                                        *struct{ UID, PID int }
	}
	raw, err := os.ReadFile(filepath.Join(s.Root, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	var all []entry
	for line := range bytes.Lines(raw) {
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if e.Peer == nil || e.Peer.PID == 0 || e.Peer.UID != os.Getuid() {
			t.Errorf("nobody did this: %s", line)
		}
		if strings.HasPrefix(e.Request, "GET ") || e.Outcome == "" {
			t.Errorf("on record: %s", line)
		}
		all = append(all, e)
	}
	for _, want := range []entry{
		{API: "docker", Action: "container create", Object: s.Busybox(), Outcome: "done", Command: []string{"sleep", "1000"}},
		{API: "docker", Action: "container start", Outcome: "done"},
		{API: "docker", Action: "container exec", Object: "web", Outcome: "done", Command: []string{"echo", "hello there"}},
		{API: "docker", Action: "exec start", Outcome: "begun"},
		{API: "docker", Action: "container rename", Object: "web", Outcome: "done"},
		{API: "docker", Action: "container stop", Object: "shop", Outcome: "done"},
		{API: "docker", Action: "container start", Object: "nothing", Outcome: "No such container"},
		{API: "docker", Action: "volume create", Object: "vol", Outcome: "done"},
		{API: "docker", Action: "network create", Object: "net1", Outcome: "done"},
		{API: "docker", Action: "network remove", Object: "net1", Outcome: "done"},
		{API: "docker", Action: "image create", Object: s.Registry + "/missing", Outcome: "not found"},
		{API: "build", Action: "build", Outcome: "done"},
		{API: "docker", Action: "container remove", Object: "shop", Outcome: "done"},
		{API: "docker", Action: "image remove", Object: "made", Outcome: "done"},
	} {
		found := false
		for _, e := range all {
			found = found || e.API == want.API && e.Action == want.Action && strings.Contains(e.Outcome, want.Outcome) &&
				(want.Object == "" || strings.HasPrefix(e.Object, want.Object)) && (want.Command == nil || strings.Join(e.Command, "|") == strings.Join(want.Command, "|"))
		}
		if !found {
			t.Errorf("no %+v in\n%s", want, raw)
		}
	}
}
