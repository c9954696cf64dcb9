package e2e

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cale/test/stack"
)

// TestScriptedBuild: an image made by hand, as a user of Buildah would.
func TestScriptedBuild(t *testing.T) {
	s := stack.New(t)
	dir := folder(t, map[string]string{"app/run": "#!/bin/sh\ncat /srv/*\n", "app/sub/deep": "deep", "one": "1", "two": "2"})
	in := func(name string) string { return filepath.Join(dir, name) }
	b := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(s.Cale(append([]string{"builder"}, args...)...).OK(t))
	}
	base := b("from", s.Busybox())
	if base != "busybox-working-container" {
		t.Errorf("the first working container is called %q", base)
	}
	if other := b("from", "--name", "mine", s.Busybox()); other != "mine" {
		t.Errorf("the named one is called %q", other)
	}
	if got := b("run", base, "--", "sh", "-c", "echo one > /srv1; id -u; pwd"); got != "0\n/" {
		t.Errorf("run prints %q", got)
	}
	if got := strings.TrimSpace(s.Do("typed", "cale", "builder", "run", base, "cat").OK(t)); got != "typed" {
		t.Errorf("run with an input prints %q", got)
	}
	if r := s.Cale("builder", "run", "-e", "A=b", "-u", "1000", "--workingdir", "/tmp", base, "sh", "-c", "echo $A $(id -u) $PWD; exit 5"); r.Code != 5 || r.Stdout != "b 1000 /tmp\n" {
		t.Errorf("run: %+v", r)
	}
	// Files, folders' contents, and who owns them.
	b("config", "--workingdir", "/srv", base)
	b("copy", base, in("app"))
	b("copy", "--chown", "user:users", "--chmod", "640", base, in("one"), in("two"), "/files/")
	b("copy", base, in("one"), "/renamed")
	if got := b("run", base, "sh", "-c", "stat -c '%n %U:%G %a' /srv/run /srv/sub/deep /files/one /files/two /renamed"); got !=
		"/srv/run root:root 644\n/srv/sub/deep root:root 644\n/files/one user:users 640\n/files/two user:users 640\n/renamed root:root 644" {
		t.Errorf("copied: %s", got)
	}
	b("copy", "--from", base, "mine", "/files", "/from")
	if got := b("run", "mine", "stat", "-c", "%n %u %a", "/from/one"); got != "/from/one 1000 640" {
		t.Errorf("copied from the other: %s", got)
	}
	// Archives and URLs.
	f, err := os.Create(in("files.tar"))
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(f)
	if err := tw.WriteHeader(&tar.Header{Name: "packed/file", Mode: 0o600, Uid: 7, Size: 2}); err != nil {
		t.Fatal(err)
	}
	tw.Write([]byte("pf"))
	if tw.Close() != nil || f.Close() != nil {
		t.Fatal("no archive")
	}
	b("add", base, in("files.tar"), "/unpacked")
	b("add", base, serveFile(t, "from the web"), "/web")
	b("copy", base, in("files.tar"), "/as/it/is/")
	if got := b("run", base, "sh", "-c", "stat -c %u:%a /unpacked/packed/file; cat /web; ls /as/it/is"); got != "7:600\nfrom the webfiles.tar" {
		t.Errorf("added: %s", got)
	}
	// By hand.
	at := b("mount", base)
	if err := os.WriteFile(filepath.Join(at, "srv/by-hand"), []byte("by hand\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := b("run", base, "sh", "-c", "cat /srv/by-hand; echo more > /more"); got != "by hand" {
		t.Errorf("what was made by hand: %s", got)
	}
	if raw, err := os.ReadFile(filepath.Join(at, "more")); string(raw) != "more\n" {
		t.Errorf("what the command made: %q, %v", raw, err)
	}
	if got := b("mount"); got != base+" "+at {
		t.Errorf("mount prints %q", got)
	}
	// What the image is to be like.
	b("config", "--cmd", `["sh", "/srv/run"]`, "--env", "SET=value", "--env", "GONE=1", "--label", "by=hand", "-p", "80", "-p", "81/udp", "-v", "/data", "-u", "user",
		"--stop-signal", "INT", base)
	b("config", "--env", "GONE-", "-p", "81/udp-", base)
	s.Cale("container", "prune", "-f").OK(t) // leaves them alone
	if got := b("containers", "-q"); strings.Count(got, "\n") != 1 {
		t.Errorf("containers: %q", got)
	}
	b("commit", "--rm", base, "made")
	format := "{{json .Config.Cmd}} {{.Config.WorkingDir}} {{.Config.User}} {{json .Config.ExposedPorts}} {{json .Config.Volumes}} {{json .Config.Labels}} {{.Config.StopSignal}}"
	if got := s.Cale("inspect", "-f", format, "made").OK(t); got != `["sh","/srv/run"] /srv user {"80/tcp":{}} {"/data":{}} {"by":"hand"} INT`+"\n" {
		t.Errorf("the image: %s", got)
	}
	if got := s.Do("", "cale", "run", "--rm", "made").Stdout; !strings.HasPrefix(got, "by hand\n#!/bin/sh") {
		t.Errorf("the image prints %q", got)
	}
	if got := s.Cale("run", "--rm", "made", "sh", "-c", "echo $SET$GONE").OK(t); got != "value\n" {
		t.Errorf("the image's variables: %q", got)
	}
	if _, err := os.Stat(at); err == nil {
		t.Error("a mount is left")
	}
	// From nothing.
	b("rm", "-a")
	scratch := b("from", "scratch")
	b("copy", scratch, "/bin/busybox", "/bin/echo")
	b("config", "--entrypoint", `["/bin/echo"]`, scratch)
	b("config", "--healthcheck", "CMD true", "--healthcheck-interval", "7s", "--healthcheck-retries", "2", scratch)
	b("commit", scratch, "scratched")
	if got := s.Cale("inspect", "-f", "{{json .Config.Healthcheck}}", "scratched").OK(t); got != `{"Interval":7000000000,"Retries":2,"Test":["CMD-SHELL","true"]}`+"\n" {
		t.Errorf("the health check: %s", got)
	}
	b("push", "-q", "scratched", "docker://"+s.Registry+"/from/scratch")
	s.Cale("pull", "-q", s.Registry+"/from/scratch").OK(t)
	if got := s.Cale("run", "--rm", "scratched", "hello").OK(t); got != "hello\n" {
		t.Errorf("from scratch: %q", got)
	}
	b("rm", scratch)
	if got := s.Cale("images", "-q", "--filter", "dangling=true").OK(t); got != "" {
		t.Errorf("images are left: %q", got)
	}
	for _, c := range []struct{ args, says string }{
		{"run nothing true", "No such container"}, {"copy " + scratch + " x", "No such container"}, {"rm", "container ID must be specified"},
	} {
		if r := s.Cale(append([]string{"builder"}, strings.Fields(c.args)...)...); r.Code == 0 || !strings.Contains(r.Stderr, c.says) {
			t.Errorf("%s: %+v", c.args, r)
		}
	}
}
