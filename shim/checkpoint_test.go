package shim_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"cale/shim"
	"cale/shim/stdio"
)

func needCRIU(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("criu"); err != nil {
		t.Skip("needs criu")
	}
	if out, err := exec.Command("criu", "check").CombinedOutput(); err != nil {
		t.Skipf("criu can't work here: %s", strings.TrimSpace(string(out)))
	}
}

// A container goes on in another one, with its pipes or its terminal: whoever attaches there talks to the same
// process.
func TestCheckpoint(t *testing.T) {
	each(t, func(t *testing.T, runtime string) {
		for name, terminal := range map[string]bool{"pipes": false, "terminal": true} {
			t.Run(name, func(t *testing.T) { testCheckpoint(t, runtime, terminal) })
		}
	})
}

func testCheckpoint(t *testing.T, runtime string, terminal bool) {
	needCRIU(t)
	script := []string{"sh", "-c", "n=0; while read x; do n=$((n+1)); echo $n $x.; done"}
	b := newBox(t, script, func(s *specs.Spec) { s.Process.Terminal = terminal })
	b.uri.Stdin = true
	b.create(runtime, terminal)
	a := b.attach("", true)
	b.start("")
	say(t, a, "one\n", "1 one.")
	image := filepath.Join(t.TempDir(), "image")
	if err := b.c.Checkpoint(b.ctx(), b.id, shim.CheckpointRequest{Path: image}); err != nil {
		t.Fatal(err)
	}
	say(t, a, "two\n", "2 two.")
	image += "2"
	if err := b.c.Checkpoint(b.ctx(), b.id, shim.CheckpointRequest{Path: image, Exit: true}); err != nil {
		t.Fatal(err)
	}
	if e := b.wait(""); e.Status != 137 {
		t.Errorf("exit status %d", e.Status)
	}
	if _, err := b.c.Delete(b.ctx(), b.id, ""); err != nil {
		t.Fatal(err)
	}
	r := shim.CreateRequest{ID: b.id, Bundle: b.bundle, Terminal: terminal, Runtime: runtime, Checkpoint: image,
		Stdin: b.uri.String(), Stdout: b.uri.String()}
	if !terminal {
		r.Stderr = r.Stdout
	}
	if pid, err := b.c.Create(b.ctx(), r); err != nil || pid != 0 {
		t.Fatalf("pid %d, %v", pid, err)
	}
	a = b.attach("", true)
	if pid, err := b.c.Start(b.ctx(), b.id, ""); err != nil || pid == 0 {
		t.Fatalf("pid %d, %v", pid, err)
	}
	say(t, a, "three\n", "3 three.")
	b.exec("e", false, false, "echo", "also here")
	e := b.attach("e", false)
	b.start("e")
	if out, _ := output(t, e); out != "also here\n" {
		t.Errorf("exec: %q", out)
	}
	if err := b.c.Kill(b.ctx(), b.id, "", 9, false); err != nil {
		t.Error(err)
	}
	if e := b.wait(""); e.Status != 137 {
		t.Errorf("exit status %d", e.Status)
	}
	if log := b.log(); !strings.Contains(log, "2 two.") || !strings.Contains(log, "3 three.") {
		t.Errorf("log: %q", log)
	}
}

// say sends a line and waits for an answer among what comes.
func say(t *testing.T, c *stdio.Conn, line, answer string) {
	t.Helper()
	if _, err := c.Write([]byte(line)); err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	var all strings.Builder
	go func() {
		for !strings.Contains(all.String(), answer) {
			_, p, err := c.Next()
			if err != nil {
				got <- err
				return
			}
			all.Write(p)
		}
		got <- nil
	}()
	select {
	case err := <-got:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatalf("no answer to %q", line)
	}
}
