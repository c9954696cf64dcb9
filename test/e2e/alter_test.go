package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cale/test/stack"
)

// refuses says whether nobody answers on a TCP port of the host.
func refuses(port int) bool {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 2*time.Second)
	if err == nil {
		c.Close()
	}
	return err != nil
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestAlterPorts: ports come and go while a container runs, those that stay keep their connections, and it is so after a
// restart of engine and container. (https://github.com/moby/moby/issues/2045)
func TestAlterPorts(t *testing.T) {
	s := stack.New(t)
	says := func(when string, port int, want string) {
		t.Helper()
		if got := answers(port); got != want {
			t.Errorf("%s: port %d says %q, not %q", when, port, got, want)
		}
	}
	one, two, other := freePort(t), freePort(t), freePort(t)
	s.Cale("run", "-d", "--name", "web", "-p", fmt.Sprintf("%d:80", one), s.Busybox(), "sh", "-c",
		"(while :; do echo eighty | nc -l -p 80; done) & while :; do echo ninety | nc -l -p 90; done").OK(t)
	says("the first port answers", one, "eighty\n")
	s.Cale("update", "--publish-add", fmt.Sprintf("%d:90", two), "web").OK(t)
	says("the second port answers", two, "ninety\n")
	says("the first port still answers", one, "eighty\n")
	s.Cale("update", "--publish-rm", "80", "--publish-add", fmt.Sprintf("%d:80", other), "web").OK(t)
	says("the other port answers", other, "eighty\n")
	if !refuses(one) {
		t.Error("the port that was taken away answers")
	}
	if out := s.Cale("port", "web").OK(t); strings.Contains(out, fmt.Sprint(one)) || !strings.Contains(out, fmt.Sprint(two)) {
		t.Errorf("port prints %q", out)
	}

	// What can't be changes nothing.
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	before := s.Cale("inspect", "-f", "{{json .HostConfig.PortBindings}}", "web").OK(t)
	if r := s.Cale("update", "--publish-rm", "90", "--publish-add", fmt.Sprintf("%d:90", taken), "web"); r.Code == 0 || !strings.Contains(r.Stderr, "in use") {
		t.Errorf("a port in use: %d %s", r.Code, r.Stderr)
	}
	if r := s.Cale("update", "--publish-rm", "1234", "web"); r.Code == 0 || !strings.Contains(r.Stderr, "does not publish 1234/tcp") {
		t.Errorf("a port that isn't published: %d %s", r.Code, r.Stderr)
	}
	if after := s.Cale("inspect", "-f", "{{json .HostConfig.PortBindings}}", "web").OK(t); after != before {
		t.Errorf("after errors the ports are %s, not %s", after, before)
	}
	says("the second port answers after errors", two, "ninety\n")

	s.KillEngine()
	says("ports are there without an engine", two, "ninety\n")
	says("ports are there without an engine", other, "eighty\n")
	s.Cale("restart", "-t", "0", "web").OK(t)
	says("ports are there after a restart", two, "ninety\n")
	says("ports are there after a restart", other, "eighty\n")
	if !refuses(one) {
		t.Error("after a restart the port that was taken away answers")
	}
	s.Cale("stop", "-t", "0", "web").OK(t)
	s.Cale("update", "--publish-rm", fmt.Sprintf("%d:80", other), "--publish-add", fmt.Sprintf("%d:80", one), "web").OK(t)
	s.Cale("start", "web").OK(t)
	says("a stopped container's ports are changed for its next start", one, "eighty\n")
}

// TestAlterMounts: mounts come and go while a container runs, and are there after a restart.
func TestAlterMounts(t *testing.T) {
	s := stack.New(t)
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "f"), []byte("host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Cale("run", "-d", "--name", "box", "-v", "first:/first", s.Busybox(), "sleep", "1000").OK(t)
	s.Cale("exec", "box", "sh", "-c", "ln -s /tmp /link; echo 1 >/first/f").OK(t)
	update := func(args ...string) {
		t.Helper()
		if r := s.Cale(append(append([]string{"update"}, args...), "box")...); r.Code != 0 || r.Stderr != "" {
			t.Fatalf("update %v: %d %s", args, r.Code, r.Stderr)
		}
	}
	in := func(script string) string {
		r := s.Cale("exec", "box", "sh", "-c", script)
		return r.Stdout + r.Stderr
	}
	update("--volume-add", host+":/data:ro", "--volume-add", "second:/link/deep/er", "--mount-add", "type=tmpfs,target=/scratch,tmpfs-size=65536",
		"--mount-add", "type=bind,source="+host+"/f,target=/etc/one")
	check := func(when string) {
		t.Helper()
		if got := in("cat /data/f /etc/one; touch /data/x 2>/dev/null || echo read-only; df -k /scratch | tail -1 | awk '{print $2}'; grep -c ' /tmp/deep/er ' /proc/self/mountinfo; grep ' /scratch ' /proc/self/mountinfo | grep -c nosuid"); got != "host\nhost\nread-only\n64\n1\n1\n" {
			t.Errorf("%s the container sees\n%s", when, got)
		}
	}
	check("while it runs")
	in("echo kept >/tmp/deep/er/f")
	if r := s.Cale("update", "--mount-add", "type=volume,target=/data", "box"); r.Code == 0 || !strings.Contains(r.Stderr, "Duplicate mount point") {
		t.Errorf("two mounts on one place: %d %s", r.Code, r.Stderr)
	}
	if r := s.Cale("volume", "rm", "second"); r.Code == 0 {
		t.Error("a volume in use was removed")
	}
	s.KillEngine()
	s.Cale("restart", "-t", "0", "box").OK(t)
	check("after a restart")
	if got := in("cat /tmp/deep/er/f"); got != "kept\n" {
		t.Errorf("the volume has %q", got)
	}

	update("--mount-rm", "/data", "--mount-rm", "/link/deep/er", "--mount-rm", "/scratch", "--mount-rm", "/first")
	if got := in("ls /data; ls /first; grep -c -e /scratch -e deep /proc/self/mountinfo"); got != "0\n" {
		t.Errorf("after unmounting the container sees\n%s", got)
	}
	s.Cale("volume", "rm", "second", "first").OK(t)
	if r := s.Cale("update", "--mount-rm", "/data", "box"); r.Code == 0 || !strings.Contains(r.Stderr, "has no mount on /data") {
		t.Errorf("unmounting nothing: %d %s", r.Code, r.Stderr)
	}
	// Something else is there by now: that is not taken away.
	update("--volume-add", host+":/swap/acpi")
	in("mv /swap /away; ln -s /proc /swap")
	if r := s.Cale("update", "--mount-rm", "/swap/acpi", "box"); r.Code != 0 || !strings.Contains(r.Stderr, "next start") {
		t.Errorf("unmounting where a link leads elsewhere: %d %s", r.Code, r.Stderr)
	}
	if got := in("grep -c ' /proc/acpi ' /proc/self/mountinfo"); got != "1\n" {
		t.Errorf("what hides a part of /proc was taken away")
	}
	// Nor is a volume given up that has only moved.
	update("--volume-add", "third:/moved/deep")
	in("mv /moved /gone; echo kept >/gone/deep/f")
	if r := s.Cale("update", "--mount-rm", "/moved/deep", "box"); r.Code != 0 || !strings.Contains(r.Stderr, "next start") {
		t.Errorf("unmounting what was moved: %d %s", r.Code, r.Stderr)
	}
	if r := s.Cale("volume", "rm", "third"); r.Code == 0 {
		t.Error("a volume was removed that is mounted")
	}
	s.Cale("restart", "-t", "0", "box").OK(t)
	s.Cale("volume", "rm", "third").OK(t)
	// With a read-only root a place that isn't there comes with the next start.
	s.Cale("run", "-d", "--name", "ro", "--read-only", s.Busybox(), "sleep", "1000").OK(t)
	if r := s.Cale("update", "--volume-add", host+":/new", "ro"); r.Code != 0 || !strings.Contains(r.Stderr, "comes with the next start") {
		t.Errorf("a mount on a read-only root: %d %s", r.Code, r.Stderr)
	}
	s.Cale("restart", "-t", "0", "ro").OK(t)
	if out := s.Cale("exec", "ro", "cat", "/new/f").OK(t); out != "host\n" {
		t.Errorf("after the start there is %q", out)
	}
}

// TestAlterNetworks: cale update connects and disconnects too.
func TestAlterNetworks(t *testing.T) {
	s := stack.New(t)
	s.Cale("network", "create", "n1").OK(t)
	defer s.Cale("network", "rm", "n1")
	s.Cale("run", "-d", "--name", "box", s.Busybox(), "sleep", "1000").OK(t)
	defer s.Cale("rm", "-f", "box")
	s.Cale("update", "--network-add", "n1", "box").OK(t)
	if out := s.Cale("exec", "box", "ls", "/sys/class/net").OK(t); !strings.Contains(out, "eth1") {
		t.Errorf("interfaces: %q", out)
	}
	s.Cale("update", "--network-rm", "n1", "box").OK(t)
	s.Cale("update", "--network-add", "name=n1,alias=crate", "box").OK(t)
	s.Cale("run", "--rm", "--network", "n1", s.Busybox(), "ping", "-c", "1", "crate").OK(t)
	if r := s.Cale("update", "--network-add", "name=n1,alais=crate", "box").Exit(t, 1); !strings.Contains(r.Stderr, "invalid field key alais") {
		t.Errorf("a misspelt setting says %q", r.Stderr)
	}
	s.Cale("update", "--network-rm", "n1", "box").OK(t)
	// The kernel takes a link away soon after.
	stack.Until(t, "the interface to go", func() bool {
		return !strings.Contains(s.Cale("exec", "box", "ls", "/sys/class/net").OK(t), "eth1")
	})
}
