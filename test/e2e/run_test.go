// Package e2e holds the tests that a user could type: the real programs, a real kernel, a real registry, and the real
// docker command line beside our own.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cale/test/stack"
)

// clients are the command lines that must behave alike. Docker's is tested where it is installed.
func clients(t *testing.T) []string {
	out := []string{"cale"}
	for _, c := range []string{"/usr/bin/docker", "/usr/local/bin/docker"} {
		if _, err := os.Stat(c); err == nil {
			out = append(out, c)
		}
	}
	return out
}

func each(t *testing.T, do func(t *testing.T, s *stack.Stack, client string)) {
	s := stack.New(t)
	for _, c := range clients(t) {
		t.Run(strings.Trim(strings.ReplaceAll(c, "/", "-"), "-"), func(t *testing.T) { do(t, s, c) })
	}
}

// TestRun: what run prints and how it exits.
func TestRun(t *testing.T) {
	each(t, func(t *testing.T, s *stack.Stack, client string) {
		image := s.Busybox()
		volume := filepath.Join(t.TempDir(), "v")
		if err := os.MkdirAll(volume, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(volume, "file"), []byte("from the host\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name   string
			args   []string // after run --rm
			input  string
			code   int
			stdout string // all of it, unless it begins with ~: then a part
			stderr string // a part
		}{
			{name: "output", args: []string{image, "echo", "hello"}, stdout: "hello\n"},
			{name: "both streams", args: []string{image, "sh", "-c", "echo out; echo err >&2"}, stdout: "out\n", stderr: "err\n"},
			{name: "exit code", args: []string{image, "sh", "-c", "exit 7"}, code: 7},
			{name: "killed by a signal", args: []string{image, "sh", "-c", "sh -c 'kill -9 $$'; exit $?"}, code: 137},
			{name: "no such command", args: []string{image, "/nonexistent"}, code: 127, stderr: "nonexistent"},
			{name: "no such command in PATH", args: []string{image, "nonexistent"}, code: 127, stderr: "executable file not found in $PATH"},
			{name: "not executable", args: []string{image, "/etc/passwd"}, code: 126, stderr: "permission denied"},
			{name: "a directory", args: []string{image, "/etc"}, code: 126},
			{name: "stdin", args: []string{"-i", image, "cat"}, input: "through\n", stdout: "through\n"},
			{name: "stdin that ends at once", args: []string{"-i", image, "cat"}, stdout: ""},
			{name: "environment", args: []string{"-e", "A=1", "-e", "B=x y", image, "sh", "-c", `echo "$A $B"`}, stdout: "1 x y\n"},
			{name: "working directory", args: []string{"-w", "/new/dir", image, "pwd"}, stdout: "/new/dir\n"},
			{name: "user by number", args: []string{"-u", "1234:56", image, "id"}, stdout: "~uid=1234 gid=56"},
			{name: "user that isn't there", args: []string{"-u", "nobodyatall", image, "id"}, code: 125, stderr: "nobodyatall"},
			{name: "user with trailing text", args: []string{"-u", "1000x", image, "id"}, code: 125, stderr: "1000x"},
			{name: "user beyond 32 bits", args: []string{"-u", "4294967296", image, "id"}, code: 125, stderr: "4294967296"},
			{name: "hostname", args: []string{"--hostname", "ship", image, "hostname"}, stdout: "ship\n"},
			{name: "hosts file", args: []string{"--hostname", "ship", image, "grep", "-o", "-m1", "ship$", "/etc/hosts"}, stdout: "ship\n"},
			{name: "entrypoint", args: []string{"--entrypoint", "echo", image, "a", "b"}, stdout: "a b\n"},
			{name: "bind mount", args: []string{"-v", volume + ":/v", image, "cat", "/v/file"}, stdout: "from the host\n"},
			{name: "read-only bind mount", args: []string{"-v", volume + ":/v:ro", image, "touch", "/v/x"}, code: 1, stderr: "Read-only"},
			{name: "read-only root", args: []string{"--read-only", image, "touch", "/x"}, code: 1, stderr: "Read-only"},
			{name: "tmpfs", args: []string{"--tmpfs", "/t:size=1m", image, "sh", "-c", "df /t | tail -1 | awk '{print $2}'"}, stdout: "1024\n"},
			{name: "no network", args: []string{"--network", "none", image, "ls", "/sys/class/net"}, stdout: "lo\n"},
			{name: "bridge", args: []string{image, "ls", "/sys/class/net"}, stdout: "eth0\nlo\n"},
			{name: "memory limit", args: []string{"--memory", "64m", image, "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true"}, stdout: "67108864\n"},
			{name: "pids limit", args: []string{"--pids-limit", "77", image, "sh", "-c", "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true"}, stdout: "77\n"},
			{name: "capabilities by default", args: []string{image, "grep", "CapEff", "/proc/self/status"}, stdout: "CapEff:\t00000000a80425fb\n"},
			{name: "inheritable capabilities", args: []string{image, "grep", "CapInh", "/proc/self/status"}, stdout: "CapInh:\t0000000000000000\n"},
			{name: "capabilities dropped", args: []string{"--cap-drop", "ALL", "--cap-add", "CHOWN", image, "grep", "CapEff", "/proc/self/status"}, stdout: "CapEff:\t0000000000000001\n"},
			{name: "seccomp by default", args: []string{image, "grep", "Seccomp:", "/proc/self/status"}, stdout: "Seccomp:\t2\n"},
			{name: "seccomp off", args: []string{"--security-opt", "seccomp=unconfined", image, "grep", "Seccomp:", "/proc/self/status"}, stdout: "Seccomp:\t0\n"},
			{name: "no new privileges", args: []string{"--security-opt", "no-new-privileges", image, "grep", "NoNewPrivs", "/proc/self/status"}, stdout: "NoNewPrivs:\t1\n"},
			{name: "masked path", args: []string{image, "sh", "-c", "cat /proc/kcore | wc -c"}, stdout: "0\n"},
			{name: "read-only path", args: []string{image, "sh", "-c", "echo 1 > /proc/sys/kernel/domainname"}, code: 1, stderr: "Read-only"},
			{name: "process 1", args: []string{image, "sh", "-c", "echo $$"}, stdout: "1\n"},
			{name: "no descriptor leaks", args: []string{image, "ls", "/proc/1/fd"}, stdout: "0\n1\n2\n3\n"},
			{name: "an unknown flag", args: []string{"--nonsense", image}, code: 125, stderr: "nonsense"},
			{name: "a bad reference", args: []string{"UPPER/Case", "true"}, code: 125, stderr: "must be lowercase"},
			{name: "no such registry", args: []string{"127.0.0.1:1/none", "true"}, code: 125, stderr: "127.0.0.1:1"},
			{name: "no such image", args: []string{s.Registry + "/none", "true"}, code: 125, stderr: "none"},
			{name: "a bad volume", args: []string{"-v", "::", image, "true"}, code: 125},
			{name: "a bad port", args: []string{"-p", "70000:80", image, "true"}, code: 125},
			{name: "a bad runtime", args: []string{"--runtime", "nosuch", image, "true"}, code: 125, stderr: "nosuch"},
			{name: "a bad network", args: []string{"--network", "nosuch", image, "true"}, code: 125, stderr: "nosuch"},
		} {
			t.Run(c.name, func(t *testing.T) {
				if c.name == "a directory" && client == "/usr/bin/docker" {
					t.Skip("docker 20.10 knows only permission denied as a reason for 126")
				}
				r := s.Do(c.input, client, append([]string{"run", "--rm"}, c.args...)...).Exit(t, c.code)
				if part, ok := strings.CutPrefix(c.stdout, "~"); ok {
					if !strings.Contains(r.Stdout, part) {
						t.Errorf("stdout is %q, without %q", r.Stdout, part)
					}
				} else if c.code == 0 && r.Stdout != c.stdout {
					t.Errorf("stdout is %q, not %q (stderr %q)", r.Stdout, c.stdout, r.Stderr)
				}
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

// TestLife: a container from create to rm, as scripts drive it.
func TestLife(t *testing.T) {
	each(t, func(t *testing.T, s *stack.Stack, client string) {
		do := func(args ...string) stack.Result { return s.Do("", client, args...) }
		name := fmt.Sprintf("life%d", os.Getpid())
		id := strings.TrimSpace(do("create", "--name", name, "-e", "X=1", s.Busybox(), "sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done").OK(t))
		if len(id) != 64 {
			t.Fatalf("create printed %q, not an id", id)
		}
		defer do("rm", "-f", name)
		status := func() string { return strings.TrimSpace(do("inspect", "-f", "{{.State.Status}}", name).OK(t)) }
		if got := status(); got != "created" {
			t.Errorf("a new container is %s", got)
		}
		do("create", "--name", name, s.Busybox()).Exit(t, 1)
		do("start", name).OK(t)
		if got := status(); got != "running" {
			t.Errorf("a started container is %s", got)
		}
		if out := do("ps", "--format", "{{.Names}} {{.Image}}", "-f", "name="+name).OK(t); out != name+" "+s.Busybox()+"\n" {
			t.Errorf("ps says %q", out)
		}
		stack.Until(t, "the log has a line", func() bool { return do("logs", name).OK(t) == "up\n" })
		if out := do("exec", name, "sh", "-c", "echo $X; exit 5").Exit(t, 5).Stdout; out != "1\n" {
			t.Errorf("exec printed %q", out)
		}
		do("exec", name, "nonexistent").Exit(t, 127)
		if out := s.Do("in\n", client, "exec", "-i", name, "cat").OK(t); out != "in\n" {
			t.Errorf("exec -i printed %q", out)
		}
		do("pause", name).OK(t)
		if got := status(); got != "paused" {
			t.Errorf("a paused container is %s", got)
		}
		do("unpause", name).OK(t)
		do("rm", name).Exit(t, 1)
		do("stop", "-t", "30", name).OK(t)
		if got := strings.TrimSpace(do("wait", name).OK(t)); got != "3" {
			t.Errorf("the exit code is %s, not the trap's 3", got)
		}
		do("exec", name, "true").Exit(t, 1)
		do("restart", "-t", "1", name).OK(t)
		do("kill", "-s", "KILL", name).OK(t)
		stack.Until(t, "the container has exited", func() bool { return status() == "exited" })
		if out := do("inspect", "-f", "{{.State.ExitCode}}", name).OK(t); out != "137\n" {
			t.Errorf("the exit code after KILL is %s", out)
		}
		do("rm", name).OK(t)
		do("inspect", name).Exit(t, 1)
		do("rm", name).Exit(t, 1)
	})
}

// TestImages: tag, images, rmi, and a pull from one engine's registry by another.
func TestImages(t *testing.T) {
	each(t, func(t *testing.T, s *stack.Stack, client string) {
		do := func(args ...string) stack.Result { return s.Do("", client, args...) }
		do("tag", s.Busybox(), "mine:1").OK(t)
		if out := do("images", "--format", "{{.Repository}}:{{.Tag}}", "mine").OK(t); out != "mine:1\n" {
			t.Errorf("images says %q", out)
		}
		if out := do("run", "--rm", "mine:1", "echo", "ok").OK(t); out != "ok\n" {
			t.Errorf("run printed %q", out)
		}
		do("rmi", "mine:1").OK(t)
		do("rmi", "mine:1").Exit(t, 1)
		do("image", "inspect", s.Busybox()).OK(t)

		other := stack.New(t)
		from := s.Busybox()
		out := other.Do("", client, "pull", from).OK(t)
		for _, want := range []string{"Pull complete", "Digest: sha256:", "Downloaded newer image"} {
			if !strings.Contains(out, want) {
				t.Errorf("pull's output has no %q:\n%s", want, out)
			}
		}
		if out := other.Do("", client, "pull", from).OK(t); !strings.Contains(out, "Image is up to date") {
			t.Errorf("a second pull says %q", out)
		}
		if out := other.Do("", client, "run", "--rm", from, "echo", "pulled").OK(t); out != "pulled\n" {
			t.Errorf("the pulled image prints %q", out)
		}
		other.Do("", client, "rmi", from).OK(t)
		other.Do("", client, "pull", s.Registry+"/none").Exit(t, 1)
		if out := other.Do("", client, "images", "-q", from).OK(t); out != "" {
			t.Errorf("an image is left: %q", out)
		}
	})
}

// TestPublishedPort: a server in a container is reached through the host.
func TestPublishedPort(t *testing.T) {
	s := stack.New(t)
	port := stack.FreePort(t)
	name := "web"
	s.Cale("run", "-d", "--name", name, "-p", fmt.Sprintf("%d:80", port), s.Busybox(), "sh", "-c",
		"mkdir -p /www; echo served > /www/index.html; exec httpd -f -p 80 -h /www").OK(t)
	if out := s.Cale("port", name).OK(t); !strings.Contains(out, fmt.Sprintf("80/tcp -> 0.0.0.0:%d", port)) {
		t.Errorf("port says %q", out)
	}
	get := func(host string) string {
		out, _ := exec.Command("curl", "-s", "-m", "5", fmt.Sprintf("http://%s:%d/", host, port)).Output()
		return string(out)
	}
	stack.Until(t, "127.0.0.1 answers", func() bool { return get("127.0.0.1") == "served\n" })
	// A connection over [::1] that lingers keeps the port from nobody.
	loopbacks := []string{"127.0.0.1"}
	if _, err := os.Stat("/proc/net/if_inet6"); err == nil {
		loopbacks = append(loopbacks, "[::1]")
	}
	all := func() bool {
		for _, a := range loopbacks {
			if get(a) != "served\n" {
				return false
			}
		}
		return true
	}
	stack.Until(t, "every loopback address answers", all)
	s.Cale("restart", "-t", "0", name).OK(t)
	stack.Until(t, "every loopback address answers after a restart", all)
	// Another container on the same port fails with one clear line, and leaves nothing running.
	r := s.Cale("run", "--rm", "-p", fmt.Sprintf("%d:80", port), s.Busybox(), "true").Exit(t, 125)
	if !strings.Contains(r.Stderr, "already allocated") {
		t.Errorf("a busy port says %q", r.Stderr)
	}
	// The port outlives the engine.
	s.KillEngine()
	if got := get("127.0.0.1"); got != "served\n" {
		t.Errorf("without the engine the port answers %q", got)
	}
	s.Cale("ps").OK(t)
	stack.Until(t, "every loopback address answers by the next engine", all)
	s.Cale("rm", "-f", name).OK(t)
	if got := get("127.0.0.1"); got != "" {
		t.Errorf("a removed container's port answers %q", got)
	}
}

// TestEngineKilled: containers, their logs and their exit codes outlive the engine.
func TestEngineKilled(t *testing.T) {
	s := stack.New(t)
	s.Cale("run", "-d", "--name", "stays", s.Busybox(), "sh", "-c", "i=0; while [ $i -lt 100000 ]; do echo $i; i=$((i+1)); sleep 0.05; done").OK(t)
	s.Cale("run", "-d", "--name", "ends", s.Busybox(), "sh", "-c", "while [ ! -e /go ]; do sleep 0.05; done; echo last words; exit 42").OK(t)
	s.Cale("exec", "ends", "true").OK(t)
	pid := strings.TrimSpace(s.Cale("inspect", "-f", "{{.State.Pid}}", "ends").OK(t))
	s.KillEngine()
	// The container goes on and ends while no engine looks.
	if err := os.WriteFile("/proc/"+pid+"/root/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	stack.Until(t, "the container has ended", func() bool {
		_, err := os.Stat("/proc/" + pid + "/root/etc")
		return err != nil
	})
	if out := strings.TrimSpace(s.Cale("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "ends").OK(t)); out != "exited 42" {
		t.Errorf("the next engine says %q of the container that ended", out)
	}
	if out := s.Cale("logs", "ends").OK(t); out != "last words\n" {
		t.Errorf("its log is %q", out)
	}
	if out := strings.TrimSpace(s.Cale("inspect", "-f", "{{.State.Status}}", "stays").OK(t)); out != "running" {
		t.Errorf("the other one is %q", out)
	}
	if out := s.Cale("exec", "stays", "echo", "in").OK(t); out != "in\n" {
		t.Errorf("exec after the crash prints %q", out)
	}
	lines := strings.Fields(s.Cale("logs", "stays").OK(t))
	for i, l := range lines {
		if l != fmt.Sprint(i) {
			t.Fatalf("line %d of the log is %q: one is missing", i, l)
		}
	}
	if len(lines) == 0 {
		t.Error("the log is empty")
	}
	s.Cale("rm", "-f", "stays", "ends").OK(t)
}

// TestNothingLeft: after containers came and went in every way, the kernel has nothing of theirs.
func TestNothingLeft(t *testing.T) {
	s := stack.New(t)
	mounts := func() string {
		raw, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		var ours []string
		for _, l := range strings.Split(string(raw), "\n") {
			if strings.Contains(l, filepath.Dir(s.Root)) {
				ours = append(ours, l)
			}
		}
		return strings.Join(ours, "\n")
	}
	s.Cale("run", "--rm", s.Busybox(), "true").OK(t)
	s.Cale("run", "--rm", s.Busybox(), "nonexistent").Exit(t, 127)
	s.Cale("run", "--rm", "-u", "nobodyatall", s.Busybox(), "true").Exit(t, 125)
	s.Cale("run", "-d", "--name", "aa", s.Busybox(), "sleep", "1000").OK(t)
	s.Cale("rm", "-f", "aa").OK(t)
	stack.Until(t, "no mount is left", func() bool { return mounts() == "" })
	stack.Until(t, "no control group is left", func() bool {
		left, _ := filepath.Glob("/sys/fs/cgroup/*/" + s.CgroupParent() + "/*/cgroup.procs")
		return len(left) == 0
	})
	for _, dir := range []string{filepath.Join(s.Root, "containers"), filepath.Join(s.Run, "pods")} {
		entries, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if len(entries) > 0 {
			t.Errorf("%s still has %v", dir, entries)
		}
	}
}
