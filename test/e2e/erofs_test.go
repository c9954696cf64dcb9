package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cale/layer/erofs"
	"cale/test/stack"
)

// TestErofsLayers: layers that are EROFS images run, are changed, committed, built on, copied from, checked and removed
// as directories are, survive the engine, and leave no mount behind.
func TestErofsLayers(t *testing.T) {
	// The kernel mounts images from files on a disk, and not on tmpfs.
	t.Setenv("TMPDIR", "/var/tmp")
	if os.Getuid() != 0 {
		t.Skip("containers on a real kernel need root")
	}
	if err := erofs.Supported("/var/tmp"); err != nil {
		t.Skip(err)
	}
	s := stack.New(t)
	box := s.Busybox()
	s.Cale("pull", "-q", box).OK(t)
	layers, err := filepath.Glob(filepath.Join(s.Root, "layers/*/image"))
	if err != nil || len(layers) == 0 {
		t.Fatalf("no layer is an image: %v", err)
	}
	out := s.Cale("run", "--name", "changed", box, "sh", "-c", "echo new >/etc/new; rm /bin/busybox; ls -ld /tmp").OK(t)
	if !strings.HasPrefix(out, "drwxrwxrwt") {
		t.Errorf("%q", out)
	}
	if out := s.Cale("diff", "changed").OK(t); !strings.Contains(out, "A /etc/new\n") || !strings.Contains(out, "D /bin/busybox\n") {
		t.Errorf("%q", out)
	}
	s.Cale("run", "-d", "--name", "lives", box, "sleep", "1000").OK(t)
	s.KillEngine()
	if out := s.Cale("exec", "lives", "echo", "alive").OK(t); out != "alive\n" {
		t.Errorf("%q", out)
	}
	s.Cale("commit", "changed", "made:1").OK(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+box+" AS a\nRUN echo built >/built\nFROM "+box+"\nCOPY --from=a /built /b\nRUN cat /b\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Cale("build", "-q", "-t", "built:1", dir).OK(t)
	if out := s.Cale("run", "--rm", "--read-only", "built:1", "cat", "/b").OK(t); out != "built\n" {
		t.Errorf("%q", out)
	}
	if out := s.Cale("run", "--rm", "--userns", "auto", box, "stat", "-c", "%u", "/etc/passwd"); out.Code != 0 || out.Stdout != "0\n" {
		t.Errorf("in a user namespace: %+v", out)
	}
	if out := s.Cale("run", "--rm", "--mount", "type=image,source="+box+",target=/mnt", box, "ls", "/mnt/etc/passwd").OK(t); out != "/mnt/etc/passwd\n" {
		t.Errorf("%q", out)
	}
	if out := s.Cale("system", "check").OK(t); !strings.Contains(out, "Problems: 0") {
		t.Error(out)
	}
	// One wrong bit is found, and put right from what was pulled.
	s.Cale("rm", "-f", "changed", "lives").OK(t)
	f, err := os.OpenFile(layers[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	f.ReadAt(b[:], 5000)
	f.WriteAt([]byte{b[0] ^ 1}, 5000)
	f.Close()
	if r := s.Cale("system", "check", "--repair"); !strings.Contains(r.Stdout, "unpacked again") {
		t.Errorf("%+v", r)
	}
	s.Cale("system", "check").OK(t)
	if out := s.Cale("run", "--rm", box, "echo", "hello").OK(t); out != "hello\n" {
		t.Errorf("%q", out)
	}
	s.Cale("rmi", "-f", box, "made:1", "built:1").OK(t)
}
