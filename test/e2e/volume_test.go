package e2e

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cale/test/stack"

	"golang.org/x/sys/unix"
)

// TestVolumeCopies: a snapshot is a volume's state at one moment, exports and imports keep what files are.
func TestVolumeCopies(t *testing.T) {
	s := stack.New(t)
	s.Cale("run", "-d", "--name", "user", "-v", "data:/d", s.Busybox(), "sh", "-c",
		"mkdir /d/sub; echo one >/d/sub/file; chown 12:34 /d/sub/file; chmod 4711 /d/sub/file; ln /d/sub/file /d/hard; ln -s /etc/passwd /d/soft; chmod 1770 /d; sleep 1000").OK(t)
	stack.Until(t, "the volume is written", func() bool {
		return strings.HasPrefix(s.Cale("exec", "user", "stat", "-c", "%a", "/d").Stdout, "1770")
	})
	at := strings.TrimSpace(s.Cale("volume", "inspect", "-f", "{{.Mountpoint}}", "data").OK(t))
	attribute := unix.Setxattr(filepath.Join(at, "sub/file"), "user.note", []byte("kept"), 0) == nil

	if out := s.Cale("volume", "snapshot", "--label", "why=test", "data", "then").OK(t); out != "then\n" {
		t.Errorf("snapshot prints %q", out)
	}
	if out := s.Cale("inspect", "-f", "{{.State.Status}}", "user").OK(t); out != "running\n" {
		t.Errorf("after a snapshot the container is %s", out)
	}
	if out := s.Cale("volume", "inspect", "-f", `{{index .Labels "cale.snapshot-of"}} {{.Labels.why}}`, "then").OK(t); out != "data test\n" {
		t.Errorf("the copy's labels: %q", out)
	}
	s.Cale("exec", "user", "sh", "-c", "echo two >/d/sub/file").OK(t)
	if r := s.Cale("volume", "snapshot", "data", "then"); r.Code == 0 || !strings.Contains(r.Stderr, "exists already") {
		t.Errorf("a snapshot over another volume: %d %s", r.Code, r.Stderr)
	}
	if r := s.Cale("volume", "snapshot", "nothing"); r.Code == 0 || !strings.Contains(r.Stderr, "no such volume") {
		t.Errorf("a snapshot of nothing: %d %s", r.Code, r.Stderr)
	}
	if out := s.Cale("volume", "snapshot", "data").OK(t); !strings.HasPrefix(out, "data-20") {
		t.Errorf("without a name the copy is %q", out)
	}

	file := filepath.Join(t.TempDir(), "then.tar")
	s.Cale("volume", "export", "-o", file, "then").OK(t)
	s.Cale("volume", "import", "again", file).OK(t)
	check := func(volume string) {
		t.Helper()
		out := s.Cale("run", "--rm", "-v", volume+":/d", s.Busybox(), "sh", "-c", "cat /d/hard; stat -c '%a %u:%g %h' /d/hard; readlink /d/soft; stat -c %a /d").OK(t)
		if out != "one\n4711 12:34 2\n/etc/passwd\n1770\n" {
			t.Errorf("%s holds\n%s", volume, out)
		}
		at := strings.TrimSpace(s.Cale("volume", "inspect", "-f", "{{.Mountpoint}}", volume).OK(t))
		var b [16]byte
		if n, err := unix.Getxattr(filepath.Join(at, "hard"), "user.note", b[:]); attribute && (err != nil || string(b[:n]) != "kept") {
			t.Errorf("%s: the attribute is %q, %v", volume, b[:max(n, 0)], err)
		}
	}
	check("then")
	check("again")
	// Into one in use: files are added, others stay.
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s.Cale("exec", "user", "sh", "-c", "echo mine >/d/own").OK(t)
	s.Do(string(raw), "cale", "volume", "import", "data").OK(t)
	if out := s.Cale("exec", "user", "cat", "/d/sub/file", "/d/own").OK(t); out != "one\nmine\n" {
		t.Errorf("after an import the volume in use has %q", out)
	}
}

// TestHostileVolumeImport: names and links of an archive lead nowhere out of the volume, and a broken one leaves none.
func TestHostileVolumeImport(t *testing.T) {
	s := stack.New(t)
	outside := t.TempDir()
	archive := func(headers ...tar.Header) string {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeReg {
				h.Size = 4
			}
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if h.Typeflag == tar.TypeReg {
				w.Write([]byte("evil"))
			}
		}
		w.Close()
		return b.String()
	}
	for name, a := range map[string]string{
		"up":       archive(tar.Header{Typeflag: tar.TypeReg, Name: "../../../../../.." + outside + "/f"}),
		"absolute": archive(tar.Header{Typeflag: tar.TypeReg, Name: outside + "/f"}),
		"through":  archive(tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: outside}, tar.Header{Typeflag: tar.TypeReg, Name: "l/f"}),
		"hard":     archive(tar.Header{Typeflag: tar.TypeLink, Name: "l", Linkname: "../../../../../../etc/passwd"}),
	} {
		s.Do(a, "cale", "volume", "import", "v-"+name)
		if found, _ := os.ReadDir(outside); len(found) > 0 {
			t.Fatalf("%s: an archive wrote %s outside of its volume", name, found[0].Name())
		}
	}
	if r := s.Cale("volume", "inspect", "v-hard"); r.Code == 0 {
		t.Error("an archive with a link to the host's files became a volume")
	}
	if r := s.Do("no archive, but long enough to be taken for the beginning of one"+strings.Repeat("x", 1000), "cale", "volume", "import", "broken"); r.Code == 0 {
		t.Error("nonsense was imported")
	}
	whole := archive(tar.Header{Typeflag: tar.TypeReg, Name: "a"}, tar.Header{Typeflag: tar.TypeReg, Name: "b"})
	if r := s.Do(whole[:1100], "cale", "volume", "import", "broken"); r.Code == 0 {
		t.Error("half an archive was imported")
	}
	if r := s.Cale("volume", "inspect", "broken"); r.Code == 0 {
		t.Error("a broken archive left a volume")
	}
	if left, _ := filepath.Glob(filepath.Join(s.Root, "volumes", ".new-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
