package e2e

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"cale/test/stack"
)

// answers says what a TCP port of the host sends, "" if nothing does within patience.
func answers(port int) string {
	for deadline := time.Now().Add(stack.Patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err != nil {
			continue
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		raw, _ := io.ReadAll(c)
		c.Close()
		if len(raw) > 0 {
			return string(raw)
		}
	}
	return ""
}

// TestPortsFollow: published ports are reachable on whichever network leads a container out: not on an internal one,
// then by the one it is connected to, and by another when it leaves that.
func TestPortsFollow(t *testing.T) {
	each(t, func(t *testing.T, s *stack.Stack, client string) {
		do := func(args ...string) string { t.Helper(); return s.Do("", client, args...).OK(t) }
		port := stack.FreePort(t)
		defer func() {
			s.Cale("rm", "-f", "served")
			s.Cale("network", "rm", "inside", "outside", "elsewhere")
		}()
		do("network", "create", "--internal", "inside")
		do("network", "create", "outside")
		do("network", "create", "elsewhere")
		do("run", "-d", "--name", "served", "--network", "inside", "-p", fmt.Sprintf("%d:80", port), s.Busybox(), "sh", "-c", "while true; do echo hello | nc -l -p 80; done")
		if c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second); err == nil {
			c.Close()
			t.Error("a port is reachable on an internal network")
		}
		do("network", "connect", "outside", "served")
		if got := answers(port); got != "hello\n" {
			t.Errorf("by the network connected to: %q", got)
		}
		do("network", "connect", "elsewhere", "served")
		do("network", "disconnect", "outside", "served")
		if got := answers(port); got != "hello\n" {
			t.Errorf("by the network that is left: %q", got)
		}
		route := do("exec", "served", "ip", "route")
		if strings.Count(route, "default") != 1 {
			t.Errorf("the container has not one way out:\n%s", route)
		}
	})
}

// TestLinks: a link's alias is found in the hosts file on the default network, whatever address the other has got
// since, and by asking on a network of the user's, by the container it was given to alone.
func TestLinks(t *testing.T) {
	each(t, func(t *testing.T, s *stack.Stack, client string) {
		if client == "cale" {
			t.Skip("cale has networks with names for this, and no --link")
		}
		do := func(args ...string) string { t.Helper(); return s.Do("", client, args...).OK(t) }
		defer do("rm", "-f", "db", "app", "alone", "far", "near")
		do("run", "-d", "--name", "db", s.Busybox(), "sleep", "1000")
		do("run", "-d", "--name", "app", "--link", "db:store", s.Busybox(), "sleep", "1000")
		address := func() string {
			return strings.TrimSpace(do("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "db"))
		}
		if hosts := do("exec", "app", "cat", "/etc/hosts"); !strings.Contains(hosts, address()+"\tstore ") {
			t.Errorf("%s is not called store:\n%s", address(), hosts)
		}
		// Another takes the address meanwhile.
		do("stop", "-t", "0", "db")
		do("run", "-d", "--name", "alone", s.Busybox(), "sleep", "1000")
		do("start", "db")
		if hosts := do("exec", "app", "cat", "/etc/hosts"); !strings.Contains(hosts, address()+"\tstore ") {
			t.Errorf("%s is not called store after a restart:\n%s", address(), hosts)
		}
		if got := strings.TrimSpace(do("inspect", "-f", "{{json .HostConfig.Links}}", "app")); got != `["/db:/app/store"]` {
			t.Errorf("inspect shows links %s", got)
		}
		do("rename", "db", "db2")
		if got := strings.TrimSpace(do("inspect", "-f", "{{json .HostConfig.Links}}", "app")); got != `["/db2:/app/store"]` {
			t.Errorf("inspect shows links %s after a rename", got)
		}
		do("rename", "db2", "db")
		if r := s.Do("", client, "run", "--rm", "--link", "nobody:x", s.Busybox(), "true").Exit(t, 125); !strings.Contains(r.Stderr, "could not get container for nobody") {
			t.Errorf("a link to nobody: %s", r.Stderr)
		}

		do("network", "create", "own")
		defer do("network", "rm", "own")
		defer do("rm", "-f", "far", "near", "third")
		do("run", "-d", "--name", "far", "--network", "own", s.Busybox(), "sleep", "1000")
		do("run", "-d", "--name", "near", "--network", "own", "--link", "far:friend", s.Busybox(), "sleep", "1000")
		do("run", "-d", "--name", "third", "--network", "own", s.Busybox(), "sleep", "1000")
		do("exec", "near", "nslookup", "friend")
		if r := s.Do("", client, "exec", "third", "nslookup", "friend"); r.Code == 0 {
			t.Errorf("a link's name is known to others: %s", r.Stdout)
		}
	})
}

// TestEventsOfAll: what a container comes to and leaves is told, in order, by a client that only says until when.
func TestEventsOfAll(t *testing.T) {
	each(t, func(t *testing.T, s *stack.Stack, client string) {
		do := func(args ...string) string { t.Helper(); return s.Do("", client, args...).OK(t) }
		do("network", "create", "seen")
		do("volume", "create", "seenvolume")
		do("run", "--rm", "--name", "seenrun", "--network", "seen", "-v", "seenvolume:/v", s.Busybox(), "true")
		do("volume", "rm", "seenvolume")
		do("network", "rm", "seen")
		out := do("events", "--since", "0", "--until", fmt.Sprint(time.Now().Unix()+1), "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}")
		for _, want := range [][]string{
			{"network create seen", "network connect seen", "network disconnect seen", "network destroy seen"},
			{"container create seenrun", "container start seenrun", "container die seenrun", "container destroy seenrun"},
			{"volume create", "volume mount", "volume unmount", "volume destroy"},
		} {
			rest := out
			for _, w := range want {
				_, after, ok := strings.Cut(rest, w)
				if !ok {
					t.Errorf("no %q in its place in\n%s", w, out)
					break
				}
				rest = after
			}
		}
	})
}

// TestCopyOfEtc: a stopped container's hosts file is the one it had, and its working directory is there before its start.
func TestCopyOfEtc(t *testing.T) {
	each(t, func(t *testing.T, s *stack.Stack, client string) {
		do := func(args ...string) string { t.Helper(); return s.Do("", client, args...).OK(t) }
		defer do("rm", "-f", "etc", "wd")
		hosts := do("run", "--name", "etc", "--add-host", "ship:10.1.2.3", s.Busybox(), "cat", "/etc/hosts")
		if got := do("cp", "etc:/etc/hosts", "-"); !strings.Contains(got, hosts) {
			t.Errorf("copied: %q, in the container: %q", got, hosts)
		}
		do("create", "--name", "wd", "-w", "/new/place", s.Busybox(), "true")
		do("cp", "wd:/new/place", "-")
	})
}

// TestExecLimits: what limits a container limits those who join it.
func TestExecLimits(t *testing.T) {
	each(t, func(t *testing.T, s *stack.Stack, client string) {
		do := func(args ...string) string { t.Helper(); return s.Do("", client, args...).OK(t) }
		defer do("rm", "-f", "limited")
		do("run", "-d", "--name", "limited", "--ulimit", "nofile=511:511", s.Busybox(), "sleep", "1000")
		if got := do("exec", "limited", "sh", "-c", "ulimit -n"); got != "511\n" {
			t.Errorf("exec has %q", got)
		}
		do("pause", "limited")
		if r := s.Do("", client, "exec", "limited", "true"); r.Code == 0 || !strings.Contains(r.Stderr, "paused") {
			t.Errorf("exec in a paused container: %d %s", r.Code, r.Stderr)
		}
		do("unpause", "limited")
	})
}
