package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cale/test/stack"
)

// TestOverSSH: an engine on another machine, by ssh. The machine here is this one, and ssh a script that does with its
// arguments what ssh does.
func TestOverSSH(t *testing.T) {
	s := stack.New(t)
	dir := t.TempDir()
	script := "#!/bin/sh\necho \"$*\" >>" + dir + "/asked\nwhile [ \"$1\" != -- ]; do shift; done\n[ \"$2\" = there ] || { echo \"ssh: no host $2\" >&2; exit 255; }\nshift 2\nexec sh -c \"$*\"\n"
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	s.Cale("pull", s.Busybox()).OK(t)
	if out := s.Do("by ssh\n", "cale", "-H", "ssh://me@there:2222", "run", "-i", "--rm", s.Busybox(), "cat").OK(t); out != "by ssh\n" {
		t.Errorf("output %q", out)
	}
	if out := s.Cale("-H", "ssh://there", "images", "-q").OK(t); strings.TrimSpace(out) == "" {
		t.Error("no images")
	}
	asked, _ := os.ReadFile(filepath.Join(dir, "asked"))
	if !strings.HasPrefix(string(asked), "-T -o ConnectTimeout=30 -l me -p 2222 -- there cale system dial-stdio\n") {
		t.Errorf("ssh was asked %q", asked)
	}
	if r := s.Cale("-H", "ssh://nowhere", "ps").Exit(t, 1); strings.Count(r.Stderr, "no host nowhere") != 1 || !strings.Contains(r.Stderr, "exit status 255") {
		t.Errorf("no such host: %q", r.Stderr)
	}
	if r := s.Cale("-H", "ssh://me:secret@there", "ps").Exit(t, 1); !strings.Contains(r.Stderr, "password does not belong") || strings.Contains(r.Stderr, "secret") {
		t.Errorf("a password in the address: %q", r.Stderr)
	}
}
