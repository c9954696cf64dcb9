package engines

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cale/test/stack"
)

// TestPodman: Podman with --runtime cale-oci.
func TestPodman(t *testing.T) {
	need(t, "podman", "conmon")
	dir := folder(t)
	layout := filepath.Join(dir, "layout")
	if err := busybox(t).WriteLayout(layout, "busybox:latest"); err != nil {
		t.Fatal(err)
	}
	runtime := filepath.Join(stack.Programs(t), "cale-oci")
	// It would raise limits to what not every root may have.
	write(t, dir+"/containers.conf", `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "`+dir+`/tmp"
[engine.runtimes]
cale-oci = ["`+runtime+`"]
`)
	write(t, dir+"/storage.conf", `[storage]
driver = "overlay"
graphroot = "`+dir+`/root"
runroot = "`+dir+`/run"
`)
	write(t, dir+"/policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	e := engine{t: t, command: []string{"podman", "--runtime", "cale-oci"},
		env: []string{"CONTAINERS_CONF=" + dir + "/containers.conf", "CONTAINERS_STORAGE_CONF=" + dir + "/storage.conf"}}
	e.image = e.ok("pull", "-q", "--signature-policy", dir+"/policy.json", "oci:"+layout+":busybox:latest")
	verbs(e, "--cgroup-parent", "/"+parent)
	if name := e.ok("info", "--format", "{{.Host.OCIRuntime.Name}}"); name != "cale-oci" {
		t.Errorf("the runtime is %s", name)
	}
}

// TestDocker: dockerd with an added runtime cale-oci, by containerd's shim for runc.
func TestDocker(t *testing.T) {
	need(t, "dockerd", "docker", "containerd", "containerd-shim-runc-v2")
	dir := folder(t)
	write(t, dir+"/daemon.json", "{}")
	write(t, dir+"/layer.tar.gz", string(busybox(t).Layers[0].Data))
	sock := "unix://" + dir + "/sock"
	e := engine{t: t, command: []string{"docker"}, env: []string{"DOCKER_HOST=" + sock, "DOCKER_CONFIG=" + dir}}
	daemon(t, e, dir+"/dockerd.log", "dockerd", "--data-root", dir+"/root", "--exec-root", dir+"/exec", "--pidfile", dir+"/pid",
		"--config-file", dir+"/daemon.json", "--host", sock, "--bridge", "none", "--iptables=false", "--cgroup-parent", "/"+parent,
		"--add-runtime", "cale-oci="+filepath.Join(stack.Programs(t), "cale-oci"))
	e.image = e.ok("import", dir+"/layer.tar.gz", "busybox")
	verbs(e, "--runtime", "cale-oci", "--network", "none")
	e.ok("run", "-d", "--runtime", "cale-oci", "--network", "none", "--name", "which", e.image, "true")
	if name := e.ok("inspect", "-f", "{{.HostConfig.Runtime}}", "which"); name != "cale-oci" {
		t.Errorf("the runtime is %s", name)
	}
	e.ok("rm", "-f", "which")
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// verbs tries what Docker's command line does with a runtime.
func verbs(e engine, flags ...string) {
	t := e.t
	run := func(more ...string) []string { return append(append([]string{"run"}, flags...), more...) }

	// What a program says, how it ends, and that it can't be run at all.
	if out := e.ok(run("--rm", e.image, "echo", "hello")...); out != "hello" {
		t.Errorf("run says %q", out)
	}
	e.says(7, "", run("--rm", e.image, "sh", "-c", "exit 7")...)
	e.says(127, "nosuch", run("--rm", e.image, "nosuch")...)
	e.says(126, "ermission denied", run("--rm", e.image, "/etc/passwd")...)

	// Who it is, and what it may.
	e.says(0, "uid=1000(user) gid=1000(user)", run("--rm", "--user", "1000:1000", e.image, "id")...)
	e.says(1, "Read-only file system", run("--rm", "--read-only", e.image, "touch", "/x")...)
	e.says(0, "CapEff:\t0000000000000000", run("--rm", "--cap-drop", "all", e.image, "grep", "CapEff", "/proc/self/status")...)
	e.says(0, "Seccomp:\t2", run("--rm", e.image, "grep", "Seccomp:", "/proc/self/status")...)
	e.says(0, "67108864", run("--rm", "--memory", "64m", e.image, "sh", "-c", memoryLimit)...)
	e.says(137, "", run("--rm", "--memory", "16m", "--memory-swap", "16m", e.image, "dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")...)

	term := stack.OnTerminal(t, e.cmd(run("--rm", "-it", e.image, "sh")...))
	terminal(t, term)

	// A container that goes on.
	e.ok(run("-d", "--name", "one", e.image, "sh", "-c", untilTerm)...)
	defer e.do("rm", "-f", "one")
	stack.Until(t, "its output is in the log", func() bool { return strings.Contains(e.ok("logs", "one"), "started") })
	if out := e.ok("exec", "one", "echo", "inside"); out != "inside" {
		t.Errorf("exec says %q", out)
	}
	e.says(9, "", "exec", "one", "sh", "-c", "exit 9")
	if r := e.do("exec", "one", "nosuch"); r.Code != 127 && r.Code != 126 { // Docker's engine of old says 126
		t.Errorf("exec of what is not there ends with %d: %s", r.Code, r.Stderr)
	}
	if r := stack.Run(e.cmd("exec", "-i", "one", "cat"), "typed"); r.Code != 0 || r.Stdout != "typed" {
		t.Errorf("exec -i ends with %d, %q, %s", r.Code, r.Stdout, r.Stderr)
	}
	terminal(t, stack.OnTerminal(t, e.cmd("exec", "-it", "one", "sh")))
	e.says(0, "sleep 0.05", "top", "one")
	e.says(0, "one", "stats", "--no-stream", "one")
	e.ok("update", "--memory", "64m", "--memory-swap", "64m", "one")
	e.says(0, "67108864", "exec", "one", "sh", "-c", memoryLimit)

	e.ok("pause", "one")
	if s := e.ok("inspect", "-f", "{{.State.Status}}", "one"); s != "paused" {
		t.Errorf("after pause it is %s", s)
	}
	e.ok("unpause", "one")
	if s := e.ok("inspect", "-f", "{{.State.Status}}", "one"); s != "running" {
		t.Errorf("after unpause it is %s", s)
	}
	e.ok("kill", "-s", "TERM", "one")
	if code := e.ok("wait", "one"); code != "3" {
		t.Errorf("killed it ends with %s", code)
	}
	e.says(0, "got the signal", "logs", "one")

	e.ok("start", "one")
	stack.Until(t, "it is as far again", func() bool { return strings.Count(e.ok("logs", "one"), "started") == 2 })
	e.ok("restart", "-t", "5", "one")
	// Only then it minds the signal.
	stack.Until(t, "it is as far again", func() bool { return strings.Count(e.ok("logs", "one"), "started") == 3 })
	e.ok("stop", "-t", "5", "one")
	if s := e.ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "one"); s != "exited 3" {
		t.Errorf("stopped it is %s", s)
	}
	e.ok("rm", "one")
}

// terminal tries a shell on a terminal: that it is one, its size, and its end.
func terminal(t *testing.T, term *stack.Terminal) {
	t.Helper()
	term.Type("tty; echo is $((40+2))\n")
	term.Expect("/dev/pts/")
	term.Expect("is 42")
	// The size arrives soon after the start.
	term.Type("until [ \"$(stty size)\" = '24 80' ]; do sleep 0.05; done; echo sized $((50+5)); exit 5\n")
	term.Expect("sized 55")
	if code := term.Exit(); code != 5 {
		t.Errorf("a shell on a terminal ends with %d, not 5", code)
	}
}
