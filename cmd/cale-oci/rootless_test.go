package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// rootless is a bundle of a user without rights: one mapped user, the host's network, no control group.
type rootless struct {
	t    *testing.T
	dir  string
	spec specs.Spec
}

const rootlessUser = 54321

func newRootless(t *testing.T) *rootless {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs a static /bin/busybox (Debian: busybox-static)")
	}
	if b, err := os.ReadFile("/proc/sys/user/max_user_namespaces"); err != nil || strings.TrimSpace(string(b)) == "0" {
		t.Skip("user namespaces are off")
	}
	dir, err := os.MkdirTemp("/dev/shm", "cale-oci-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"cale-oci": program, "rootfs/data/f": []byte("below\n")}
	for _, n := range []string{"sh", "id", "sleep", "cat", "ls"} {
		files["rootfs/bin/"+n] = busybox
	}
	for name, data := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, rootlessUser, rootlessUser)
	}); err != nil {
		t.Fatal(err)
	}
	r := &rootless{t: t, dir: dir}
	if out, code := r.run("spec", "--rootless"); code != 0 {
		t.Fatal(out)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &r.spec); err != nil {
		t.Fatal(err)
	}
	r.spec.Process.Terminal = false
	return r
}

// run runs the program as the user.
func (r *rootless) run(args ...string) (string, int) {
	r.t.Helper()
	cmd := exec.Command(filepath.Join(r.dir, "cale-oci"), append([]string{"--root", filepath.Join(r.dir, "state")}, args...)...)
	cmd.Env = append(os.Environ(), "CALE_OCI_TEST=1")
	cmd.Dir = r.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: rootlessUser, Gid: rootlessUser}}
	out, err := os.Create(filepath.Join(r.dir, "out")) // not a pipe: what create makes would hold on to it
	if err != nil {
		r.t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		r.t.Fatal(err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// configure writes the configuration, for a shell script.
func (r *rootless) configure(script string) {
	r.t.Helper()
	r.spec.Process.Args = []string{"sh", "-c", script}
	raw, err := json.Marshal(r.spec)
	if err == nil {
		err = os.WriteFile(filepath.Join(r.dir, "config.json"), raw, 0o644)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rootless) want(code int, text string, args ...string) {
	r.t.Helper()
	if out, c := r.run(args...); c != code || !strings.Contains(out, text) {
		r.t.Errorf("%q: exit status %d, %q; want %d, %q", args, c, out, code, text)
	}
}

// A user without rights runs containers too.
func TestRootless(t *testing.T) {
	r := newRootless(t)
	r.configure("exec sleep 1000")
	r.want(0, "", "create", "one")
	defer r.run("delete", "--force", "one")
	r.want(0, "0\n", "exec", "one", "id", "-u") // before it is started
	r.want(0, "", "start", "one")
	r.want(0, "", "exec", "one", "sh", "-c", "[ $(id -u) = 0 ] && [ $$ != 1 ]")
	r.want(0, "", "kill", "one", "KILL")
}

// CVE-2024-25621: what is kept of a user's containers is that user's alone, whatever the umask; the directory it lies in
// is left as it is.
func TestRootlessStateIsPrivate(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	r := newRootless(t)
	parent := filepath.Join(r.dir, "run")
	if err := errors.Join(os.Mkdir(parent, 0o751), os.Chown(parent, rootlessUser, rootlessUser)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", parent)
	r.configure("exec sleep 1000")
	state := filepath.Join(parent, "cale-oci")
	r.want(0, "", "--root=", "create", "private") // the default
	defer r.run("--root=", "delete", "--force", "private")
	for dir, mode := range map[string]fs.FileMode{parent: 0o751, state: 0o700, filepath.Join(state, "private"): 0o700} {
		st, err := os.Stat(dir)
		if err != nil || st.Mode().Perm() != mode || st.Sys().(*syscall.Stat_t).Uid != rootlessUser {
			t.Errorf("%s: %v, %v; want %v", dir, st, err, mode)
		}
	}
}

// What a user without rights can't have is refused, in runc's words.
func TestRootlessLimits(t *testing.T) {
	r := newRootless(t)
	limit := int64(10)
	r.spec.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}
	r.configure("true")
	r.want(1, "cannot set pids limit: container could not join or create cgroup: ", "run", "limited")
	r.spec.Linux.Resources = nil
	r.spec.Linux.CgroupsPath = "/cale-nobodys/c"
	r.configure("true")
	r.want(1, "unable to apply cgroup configuration: ", "run", "grouped")
}

// CVE-2023-25809: the control groups that a container of a user without rights sees can't be written, whatever that user
// may do to them. And nothing is said of the group that the container doesn't have.
func TestRootlessCgroups(t *testing.T) {
	r := newRootless(t)
	r.configure("while read dev dir type options rest; do case $dir,$options in /sys/fs/cgroup*,ro,*) ;; /sys/fs/cgroup*) " +
		"last=$dir; while read d dir2 t o r; do [ $dir2 != $dir ] || last=$o; done </proc/mounts; " +
		"case $last in ro,*) ;; *) echo $dir can be written;; esac;; esac; done </proc/mounts; ls /sys/fs/cgroup >/dev/null && echo seen")
	if out, code := r.run("run", "grouped"); code != 0 || out != "seen\n" {
		t.Errorf("exit status %d: %s", code, out)
	}
}

func TestRootlessHooks(t *testing.T) {
	for _, kind := range []string{"createContainer", "startContainer"} {
		r := newRootless(t)
		hooks := []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo told >&2; exit 3"}}}
		r.spec.Hooks = &specs.Hooks{CreateContainer: hooks}
		if kind == "startContainer" {
			r.spec.Hooks = &specs.Hooks{StartContainer: hooks}
		}
		r.configure("echo ran")
		r.want(1, "error running "+kind+" hook #0: exit status 3, output: told", "run", "hooked")
	}
}

func TestRootlessTmpcopyup(t *testing.T) {
	r := newRootless(t)
	r.spec.Mounts = append(r.spec.Mounts, specs.Mount{Destination: "/data", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
	r.configure("cat /data/f && echo new >/data/f && cat /data/f")
	r.want(0, "below\nnew\n", "run", "copied")
	if text, err := os.ReadFile(filepath.Join(r.dir, "rootfs/data/f")); err != nil || string(text) != "below\n" {
		t.Errorf("the root's own file: %q, %v", text, err)
	}
}

// The namespaces of another of the user's containers can be joined.
func TestRootlessJoin(t *testing.T) {
	r := newRootless(t)
	r.configure("exec sleep 1000")
	pidFile := filepath.Join(r.dir, "pid")
	r.want(0, "", "run", "--detach", "--pid-file", pidFile, "first")
	defer r.run("delete", "--force", "first")
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for i := range r.spec.Linux.Namespaces {
		n := &r.spec.Linux.Namespaces[i]
		switch n.Type {
		case specs.UserNamespace, specs.PIDNamespace:
			n.Path = "/proc/" + strconv.Itoa(pid) + "/ns/" + string(n.Type)
		}
	}
	r.spec.Linux.UIDMappings, r.spec.Linux.GIDMappings = nil, nil
	r.configure("cat /proc/1/cmdline; id -u")
	r.want(0, "sleep\x001000\x000\n", "run", "second")
}

// The listener of a filter that asks is handed over, although the caller has no rights over its child's descriptors.
func TestRootlessListener(t *testing.T) {
	r := newRootless(t)
	socket := filepath.Join(r.dir, "agent")
	// By hand: package net would bring the C library into the program that the tests run.
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	err = unix.Bind(l, &unix.SockaddrUnix{Name: socket})
	if err == nil {
		err = unix.Listen(l, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(socket, 0o777)
	r.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: socket,
		Syscalls: []specs.LinuxSyscall{{Names: []string{"acct"}, Action: specs.ActNotify}}}
	r.configure("echo ran")
	r.want(0, "ran\n", "run", "asked")
	poll := []unix.PollFd{{Fd: int32(l), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 0); n != 1 {
		t.Fatalf("nobody came to the agent: %v", err)
	}
	conn, _, err := unix.Accept(l)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(conn)
	oob := make([]byte, 64)
	_, n, _, _, err := unix.Recvmsg(conn, make([]byte, 1<<16), oob, 0)
	if err != nil {
		t.Fatal(err)
	}
	var fds []int
	if msgs, err := unix.ParseSocketControlMessage(oob[:n]); err == nil && len(msgs) > 0 {
		fds, _ = unix.ParseUnixRights(&msgs[0])
	}
	if len(fds) != 1 {
		t.Errorf("the agent got %d descriptors", len(fds))
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
}
