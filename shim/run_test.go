package shim_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"cale/shim"
)

// A run is a process from start to end in one call: its output is in the caller's files when the call returns, and what
// takes too long, or is not waited for any more, is gone with all that it started.
func TestRun(t *testing.T) {
	each(t, func(t *testing.T, runtime string) {
		b := newBox(t, []string{"sleep", "1000"}, nil)
		b.create(runtime, false)
		b.start("")
		request := func(id string, args ...string) shim.RunRequest {
			raw, err := json.Marshal(process(args))
			if err != nil {
				t.Fatal(err)
			}
			r := shim.RunRequest{ID: b.id, RunID: id, Spec: raw, Stdout: filepath.Join(b.bundle, id+".out"), Stderr: filepath.Join(b.bundle, id+".err")}
			for _, name := range []string{r.Stdout, r.Stderr} {
				if err := os.WriteFile(name, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			return r
		}
		r := request("a", "sh", "-c", "echo out; echo err >&2; exit 3")
		status, killed, err := b.c.Run(b.ctx(), r)
		if err != nil || killed || status != 3 {
			t.Fatalf("%d, %v, %v", status, killed, err)
		}
		for name, want := range map[string]string{r.Stdout: "out\n", r.Stderr: "err\n"} {
			if got, err := os.ReadFile(name); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		if _, _, err := b.c.Run(b.ctx(), request("none", "/no/such")); err == nil {
			t.Error("a command that isn't there was run")
		}
		before := b.processes()
		r = request("late", "sh", "-c", "sleep 600 & sleep 600")
		r.Timeout = 200 * time.Millisecond
		if status, killed, err := b.c.Run(b.ctx(), r); err != nil || !killed || status != 137 {
			t.Errorf("too long: %d, %v, %v", status, killed, err)
		}
		ctx, cancel := context.WithCancel(b.ctx())
		time.AfterFunc(200*time.Millisecond, cancel)
		if _, killed, err := b.c.Run(ctx, request("left", "sh", "-c", "sleep 600 & sleep 600")); err == nil || !killed {
			t.Errorf("nobody waits: %v, %v", killed, err)
		}
		for i := range 10 { // the end of it may be heard of before it is
			ctx, cancel := context.WithCancel(b.ctx())
			time.AfterFunc(time.Duration(i)*150*time.Microsecond, cancel)
			if _, _, err := b.c.Run(ctx, request("soon"+strconv.Itoa(i), "sleep", "600")); err == nil {
				t.Error("it ended by itself")
			}
		}
		for deadline := time.Now().Add(patience); b.processes() > before; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d processes, and %d before", b.processes(), before)
			}
		}
	})
}

// processes counts those of the container.
func (b *box) processes() int {
	b.t.Helper()
	pids, err := b.c.Pids(b.ctx(), b.id)
	if err != nil {
		b.t.Fatal(err)
	}
	n := 0
	for _, pid := range pids {
		if raw, err := os.ReadFile("/proc/" + strconv.Itoa(int(pid)) + "/cmdline"); err == nil && strings.Contains(string(raw), "sleep") {
			n++
		}
	}
	return n
}
