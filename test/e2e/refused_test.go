package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cale/test/stack"
)

// TestRefused: what a user asks for that can't be is refused with the reason, before or at the start, and leaves nothing.
func TestRefused(t *testing.T) {
	each(t, func(t *testing.T, s *stack.Stack, client string) {
		image := s.Busybox()
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name   string
			args   []string // after run --rm
			stderr string
		}{
			{"another platform than the image's", []string{"--platform", "linux/arm64", image, "true"}, "no matching manifest for linux/arm64"},
			{"a bad platform", []string{"--platform", "bogus", image, "true"}, `"bogus": unknown operating system or architecture`},
			{"an alias on the default bridge", []string{"--network", "bridge", "--network-alias", "x", image, "true"}, "network-scoped aliases are only supported for user-defined networks"},
			{"an address on the default bridge", []string{"--network", "bridge", "--ip", "10.88.0.77", image, "true"}, "user specified IP address is supported on user defined networks only"},
			{"oom_score_adj out of range", []string{"--oom-score-adj", "5000", image, "true"}, "Invalid value 5000, range for oom score adj is [-1000, 1000]"},
			{"a processor that isn't there", []string{"--cpuset-cpus", "8000", image, "true"}, "Requested CPUs are not available - requested 8000, available: 0"},
			{"a bad list of processors", []string{"--cpuset-cpus", "a", image, "true"}, "Invalid value a for cpuset cpus"},
			{"a memory node that isn't there", []string{"--cpuset-mems", "8000", image, "true"}, "Requested memory nodes are not available - requested 8000, available: 0"},
			{"too many processors", []string{"--cpus", "8000", image, "true"}, "range of CPUs is from 0.01 to "},
			{"a bad stop timeout", []string{"--stop-timeout", "-5", image, "true"}, "invalid stop timeout -5"},
			{"a file over a directory", []string{"-v", file + ":/etc", image, "true"}, "Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type"},
			{"a directory over a file", []string{"-v", filepath.Dir(file) + ":/etc/passwd", image, "true"}, "Are you trying to mount a directory onto a file (or vice-versa)?"},
			{"a bad option of a tmpfs", []string{"--tmpfs", "/x:size=1z", image, "true"}, "option size=1z"},
			{"a relative target of a bind", []string{"-v", "/tmp:x", image, "true"}, "invalid mount path: 'x' mount path must be absolute"},
		} {
			t.Run(c.name, func(t *testing.T) {
				r := s.Do("", client, append([]string{"run", "--rm"}, c.args...)...).Exit(t, 125)
				if !strings.Contains(r.Stderr, c.stderr) {
					t.Errorf("stderr is %q, without %q", r.Stderr, c.stderr)
				}
			})
		}
		if left := s.Cale("ps", "-aq").OK(t); left != "" {
			t.Errorf("containers are left: %s", s.Cale("ps", "-a").Stdout)
		}
	})
}

// TestAsDocker: small things that scripts see, beside what run prints.
func TestAsDocker(t *testing.T) {
	each(t, func(t *testing.T, s *stack.Stack, client string) {
		do := func(args ...string) stack.Result { return s.Do("", client, args...) }
		do("run", "-d", "--name", "ship", "--hostname", "ship", s.Busybox(), "sleep", "1000").OK(t)
		for _, dir := range []string{"/proc", "/sys"} {
			if r := do("cp", "/etc/hostname", "ship:"+dir+"/x").Exit(t, 1); !strings.Contains(r.Stderr, "cannot copy to "+dir) {
				t.Errorf("cp to %s: %s", dir, r.Stderr)
			}
		}
		size := do("images", "--format", "{{.Size}}", s.Busybox()).OK(t)
		do("exec", "ship", "true").OK(t)
		if now := do("images", "--format", "{{.Size}}", s.Busybox()).OK(t); now != size || now == "" {
			t.Errorf("the image had %q when it was unpacked, and has %q now", size, now)
		}
		if out := do("start", "ship").OK(t); out != "ship\n" {
			t.Errorf("start of a running container prints %q", out)
		}
		if out := do("run", "--rm", "--network", "container:ship", s.Busybox(), "sh", "-c", "hostname; cat /etc/hostname; grep -c ship /etc/hosts").OK(t); !strings.HasPrefix(out, "ship\nship\n") {
			t.Errorf("in the other's network the names are %q", out)
		}
		if r := do("exec", "-u", "nosuch", "ship", "true").Exit(t, 1); !strings.Contains(r.Stdout+r.Stderr, "unable to find user nosuch: no matching entries in passwd file") {
			t.Errorf("exec as an unknown user says %q %q", r.Stdout, r.Stderr)
		}
		do("stop", "-t", "0", "ship").OK(t)
		if out := do("stop", "-t", "0", "ship").OK(t); out != "ship\n" {
			t.Errorf("stop of a stopped container prints %q", out)
		}
		do("rm", "ship").OK(t)

		do("create", "--name", "limited", "--memory", "20m", s.Busybox(), "true").OK(t)
		swap := func() string { return do("inspect", "-f", "{{.HostConfig.MemorySwap}}", "limited").OK(t) }
		if out := swap(); out != "41943040\n" && out != "-1\n" {
			t.Errorf("memory and swap are limited to %q", out)
		} else if out != "-1\n" {
			if r := do("update", "--memory", "100m", "limited").Exit(t, 1); !strings.Contains(r.Stderr, "Memory limit should be smaller than already set memoryswap limit") {
				t.Errorf("update says %q", r.Stderr)
			}
		}
		do("rm", "limited").OK(t)
	})
}

// TestNetworkModes: the built-in networks go with nothing. (Docker's older command line only knows one network.)
func TestNetworkModes(t *testing.T) {
	s := stack.New(t)
	r := s.Cale("run", "--rm", "--network", "bridge", "--network", "none", s.Busybox(), "true").Exit(t, 125)
	if want := "conflicting options: cannot attach both user-defined and non-user-defined network-modes"; !strings.Contains(r.Stderr, want) {
		t.Errorf("two networks say %q", r.Stderr)
	}
	r = s.Cale("run", "--rm", "--network-alias", "x", s.Busybox(), "true").Exit(t, 125)
	if !strings.Contains(r.Stderr, "network-scoped aliases are only supported for user-defined networks") {
		t.Errorf("an alias without a network says %q", r.Stderr)
	}
	for _, c := range []struct{ name, mode string }{{"bridged", "bridge"}, {"hosted", "host"}} {
		s.Cale("create", "--name", c.name, "--network", c.mode, s.Busybox(), "true").OK(t)
	}
	for _, c := range []struct{ line, says string }{
		{"network connect host bridged", "cannot be disconnected from host network or connected to host network"},
		{"network disconnect host hosted", "cannot be disconnected from host network or connected to host network"},
		{"network connect none bridged", "networks in private (none) mode"},
		{"update --network-add host bridged", "connected to host network"},
	} {
		if r := s.Cale(strings.Fields(c.line)...).Exit(t, 1); !strings.Contains(r.Stderr, c.says) {
			t.Errorf("%s says %q", c.line, r.Stderr)
		}
	}
	s.Cale("start", "bridged").OK(t)
	if r := s.Cale("run", "--rm", "--kernel-memory", "20m", s.Busybox(), "true").Exit(t, 0); !strings.Contains(r.Stderr, "Kernel memory limitation discarded") {
		t.Errorf("a kernel memory limit says %q", r.Stderr)
	}
}

// TestCgroupParent: groups that were made for --cgroup-parent go with the last container below them, whoever ended it.
func TestCgroupParent(t *testing.T) {
	s := stack.New(t)
	parent := fmt.Sprintf("%s-asked", s.CgroupParent())
	there := func() int {
		dirs, err := filepath.Glob("/sys/fs/cgroup/*/" + parent)
		if err != nil {
			t.Fatal(err)
		}
		v2, err := filepath.Glob("/sys/fs/cgroup/" + parent)
		if err != nil {
			t.Fatal(err)
		}
		return len(dirs) + len(v2)
	}
	for _, name := range []string{"one", "two"} {
		s.Cale("run", "-d", "--name", name, "--cgroup-parent", "/"+parent+"/in", s.Busybox(), "sleep", "1000").OK(t)
	}
	s.Cale("rm", "-f", "one").OK(t)
	if there() == 0 {
		t.Fatal("the group is gone, or never was, while a container is below it")
	}
	s.KillEngine()
	s.Cale("rm", "-f", "two").OK(t)
	if n := there(); n != 0 {
		t.Errorf("the group is left in %d hierarchies", n)
	}
}

// TestRegistryStays: the next engine serves where this one did, until that is stopped.
func TestRegistryStays(t *testing.T) {
	s := stack.New(t)
	s.KillEngine()
	if out := s.Cale("registry").OK(t); out != s.Registry+"\n" {
		t.Errorf("after a crash the registry serves on %q, not on %s", out, s.Registry)
	}
	s.Cale("pull", s.Busybox()).OK(t)
	// An address that somebody else has meanwhile is no reason not to start, nor to forget it.
	s.KillEngine()
	other, err := net.Listen("tcp", s.Registry)
	if err != nil {
		t.Skip("the port is somebody else's already: ", err)
	}
	out := s.Cale("registry").OK(t)
	other.Close()
	if out != "" {
		t.Errorf("a registry serves on %q, which is taken", out)
	}
	s.KillEngine()
	if out := s.Cale("registry").OK(t); out != s.Registry+"\n" {
		t.Errorf("once its address is free the registry serves on %q, not on %s", out, s.Registry)
	}
	s.Cale("registry", "--stop", s.Registry).OK(t)
	s.KillEngine()
	if out := s.Cale("registry").OK(t); out != "" {
		t.Errorf("a registry that was stopped serves on %q", out)
	}
}

// TestForegroundOutlived: an engine that dies leaves a foreground command with one clear line, and the container running.
func TestForegroundOutlived(t *testing.T) {
	s := stack.New(t)
	ended := make(chan stack.Result, 2)
	go func() { ended <- s.Cale("run", "--name", "front", s.Busybox(), "sleep", "1000") }()
	stack.Until(t, "the container runs", func() bool { return s.Cale("ps", "-q", "-f", "status=running").Stdout != "" })
	go func() { ended <- s.Cale("exec", "front", "sleep", "1000") }()
	stack.Until(t, "the command runs", func() bool { return strings.Count(s.Cale("top", "front").Stdout, "sleep 1000") == 2 })
	s.KillEngine()
	for range 2 {
		if r := <-ended; r.Code != 125 || !strings.Contains(r.Stderr, "the engine ended; ") {
			t.Errorf("%s ended with %d: %s", strings.Join(r.Args, " "), r.Code, r.Stderr)
		}
	}
	if out := s.Cale("inspect", "-f", "{{.State.Status}}", "front").OK(t); out != "running\n" {
		t.Errorf("the container is %q", out)
	}
}

// TestStartedAtOnce: of the engines that several commands start at the same moment one serves them all, and the others
// leave without a word.
func TestStartedAtOnce(t *testing.T) {
	s := stack.New(t)
	s.KillEngine()
	results := make(chan stack.Result)
	for range 5 {
		go func() { results <- s.Cale("ps", "-q") }()
	}
	for range 5 {
		(<-results).OK(t)
	}
	raw, err := os.ReadFile(filepath.Join(s.Run, "caled.log"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), "another caled") {
		t.Errorf("caled.log tells of those that left:\n%s", raw)
	}
}
