package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"cale/test/stack"
)

// TestSessionsOutliveTheEngine: what an exec session runs goes on when the engine is killed, and the next one tells how
// it is and how it ended.
func TestSessionsOutliveTheEngine(t *testing.T) {
	s := stack.New(t)
	s.Cale("run", "-d", "--name", "main", s.Busybox(), "sleep", "1000").OK(t)
	a := newAPI(t, s)
	begin := func(cmd string) string {
		t.Helper()
		var made struct{ ID string }
		code, body := a.call("POST", "/containers/main/exec", jsonBody, `{"Cmd":["sh","-c","`+cmd+`"],"Env":["A=b"]}`)
		if err := json.Unmarshal([]byte(body), &made); err != nil || code != 201 {
			t.Fatalf("%d %s", code, body)
		}
		if code, body := a.call("POST", "/exec/"+made.ID+"/start", jsonBody, `{"Detach":true}`); code != 200 {
			t.Fatalf("%d %s", code, body)
		}
		return made.ID
	}
	goes := begin("while [ ! -e /go ]; do sleep 0.05; done; echo $A > /said; exit 6")
	ends := begin("sleep 0.3; exit 5")
	both := begin("while [ ! -e /go ]; do sleep 0.05; done; exit 4")
	id := strings.TrimSpace(s.Cale("inspect", "-f", "{{.Id}}", "main").OK(t))
	s.KillEngine()
	s.Cale("ps").OK(t) // starts the next engine
	stack.Kill(t, s.Supervisor(id))

	type session struct {
		Running  bool
		ExitCode *int
		Pid      int
		Process  struct{ Arguments []string } `json:"ProcessConfig"`
	}
	inspect := func(id string) (x session) {
		t.Helper()
		code, body := a.call("GET", "/exec/"+id+"/json", "", "")
		if err := json.Unmarshal([]byte(body), &x); err != nil || code != 200 {
			t.Fatalf("%d %s", code, body)
		}
		return x
	}
	if x := inspect(goes); !x.Running || x.ExitCode != nil || x.Pid == 0 || len(x.Process.Arguments) != 2 {
		t.Errorf("%+v", x)
	}
	ended := func(id string, want int) {
		t.Helper()
		stack.Until(t, "the session has ended", func() bool { return !inspect(id).Running })
		if x := inspect(id); x.ExitCode == nil || *x.ExitCode != want {
			t.Errorf("%+v", x)
		}
	}
	ended(ends, 5)
	s.Cale("exec", "main", "touch", "/go").OK(t)
	ended(goes, 6)
	ended(both, 4)
	if out := s.Cale("exec", "main", "cat", "/said").OK(t); out != "b\n" {
		t.Errorf("the session said %q", out)
	}
}
