package engines

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cale/test/images"
	"cale/test/stack"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A throwaway user, with a range of IDs of its own.
const (
	userID   = 54321
	rangeID  = 700000
	userName = "caletest"
)

// user is an engine's or our runtime's command line as an ordinary user runs it.
func (e engine) user() engine {
	e.command = append([]string{"setpriv", "--reuid", fmt.Sprint(userID), "--regid", fmt.Sprint(userID), "--clear-groups", "--inh-caps=-all"}, e.command...)
	return e
}

// addUser makes the machine know the user, in this mount namespace only, and gives it a home.
func addUser(t *testing.T) (home string) {
	t.Helper()
	home = folder(t)
	for name, line := range map[string]string{
		"passwd": "%[1]s:x:%[2]d:%[2]d::%[4]s:/bin/sh", "group": "%[1]s:x:%[2]d:",
		"subuid": "%[1]s:%[3]d:65536", "subgid": "%[1]s:%[3]d:65536",
	} {
		text, err := os.ReadFile("/etc/" + name)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		line = fmt.Sprintf(line+"%.0[5]s", userName, userID, rangeID, home, "")
		own := filepath.Join(home, name)
		write(t, own, string(text)+strings.TrimSpace(line)+"\n")
		if _, err := os.Stat("/etc/" + name); err != nil {
			t.Skipf("no /etc/%s: newuidmap is not installed", name)
		}
		if err := unix.Mount(own, "/etc/"+name, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount("/etc/"+name, unix.MNT_DETACH) })
	}
	if err := os.Mkdir(home+"/xdg", 0o700); err != nil {
		t.Fatal(err)
	}
	return home
}

// program copies our runtime to where the user can run it.
func program(t *testing.T, home string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(stack.Programs(t), "cale-oci"))
	if err == nil {
		err = os.WriteFile(home+"/cale-oci", raw, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return home + "/cale-oci"
}

func own(t *testing.T, dir string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, userID, userID)
	}); err != nil {
		t.Fatal(err)
	}
	for p := dir; p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil && !os.IsPermission(err) {
			t.Fatal(err)
		}
	}
}

// rootlessBundle is a bundle of the user's, with a configuration to start from.
func rootlessBundle(t *testing.T, e engine, home string) (bundle string, config specs.Spec) {
	t.Helper()
	bundle = filepath.Join(home, "bundle")
	bin := filepath.Join(bundle, "rootfs/bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip(err)
	}
	for _, n := range []string{"busybox", "sh", "id", "cat", "sleep", "touch", "chown", "ls"} {
		if err := os.WriteFile(filepath.Join(bin, n), busybox, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	own(t, home)
	e.ok("spec", "--rootless", "--bundle", bundle)
	raw, err := os.ReadFile(bundle + "/config.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &config); err != nil {
		t.Fatal(err)
	}
	config.Process.Terminal = false
	config.Root.Readonly = false
	return bundle, config
}

func (e engine) config(bundle string, s specs.Spec) {
	e.t.Helper()
	raw, err := json.Marshal(s)
	if err != nil {
		e.t.Fatal(err)
	}
	write(e.t, bundle+"/config.json", string(raw))
}

// TestRootless: our runtime as an ordinary user runs it, with one ID or a range that newuidmap grants, with control
// groups that are delegated, refused, read-only or absent.
func TestRootless(t *testing.T) {
	need(t, "setpriv", "newuidmap")
	home := addUser(t)
	e := engine{t: t, command: []string{program(t, home)},
		env: []string{"XDG_RUNTIME_DIR=" + home + "/xdg", "HOME=" + home}}.user()
	bundle, one := rootlessBundle(t, e, home)
	run := func(id string) []string { return []string{"run", "--bundle", bundle, id} }

	one.Process.Args = []string{"sh", "-c", "id -u; cat /proc/self/setgroups"}
	e.config(bundle, one)
	e.says(0, "0\ndeny", run("one")...)

	many := one
	linux := *one.Linux
	many.Linux = &linux
	linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: userID, Size: 1}, {ContainerID: 1, HostID: rangeID, Size: 65536}}
	linux.GIDMappings = linux.UIDMappings
	process := *one.Process
	many.Process = &process
	process.User.AdditionalGids = []uint32{10, 20}
	caps := []string{"CAP_CHOWN"}
	process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	process.Args = []string{"sh", "-c", "id; touch /made; chown 5:6 /made; ls -ln /made"}
	e.config(bundle, many)
	r := e.do(run("many")...)
	var st syscall.Stat_t
	if r.Code != 0 || !strings.Contains(r.Stdout, "groups=10,20") || syscall.Stat(bundle+"/rootfs/made", &st) != nil || st.Uid != rangeID+4 || st.Gid != rangeID+5 {
		t.Errorf("a range of IDs: %d, %s%s, made by %d:%d", r.Code, r.Stdout, r.Stderr, st.Uid, st.Gid)
	}
	linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: userID, Size: 1}, {ContainerID: 1, HostID: rangeID + 100000, Size: 10}}
	e.config(bundle, many)
	e.says(1, "newuidmap", run("other")...)
	linux.UIDMappings = linux.GIDMappings

	// Another user's process can be looked at, told and ended.
	process.Args = []string{"sleep", "1000"}
	e.config(bundle, many)
	create := e.cmd("create", "--bundle", bundle, "life")
	create.Stdout, create.Stderr = nil, nil
	if err := create.Run(); err != nil {
		t.Fatal(err)
	}
	defer e.do("delete", "--force", "life")
	e.ok("start", "life")
	e.says(0, userName, "list")
	e.says(0, "uid=5 gid=5 groups=7,10,20", "exec", "--user", "5:5", "--additional-gids", "7", "life", "id")
	e.says(1, "no cgroup", "pause", "life")
	e.ok("kill", "life", "KILL")
	stack.Until(t, "it has stopped", func() bool { return strings.Contains(e.ok("state", "life"), `"stopped"`) })
	e.ok("delete", "life")

	groups(t, e, bundle, many)

	bare := one
	linux2 := *one.Linux
	bare.Linux = &linux2
	linux2.UIDMappings, linux2.GIDMappings = nil, nil
	linux2.Namespaces = nil
	for _, n := range one.Linux.Namespaces {
		if n.Type != specs.UserNamespace {
			linux2.Namespaces = append(linux2.Namespaces, n)
		}
	}
	e.config(bundle, bare)
	e.says(1, "rootless container requires user namespaces", run("bare")...)
	// As engines of users do it: they have become root of a namespace before, with mounts of its own or without.
	for _, flags := range []string{"-Ur", "-Urm"} {
		inside := e
		inside.command = append(append(e.command[:len(e.command)-1:len(e.command)-1], "unshare", flags), e.command[len(e.command)-1])
		inside.says(0, "0\ndeny", run("inside")...)
	}
}

// groups tries control groups: what is asked of those that may not be made is an error, else they are done without.
func groups(t *testing.T, e engine, bundle string, s specs.Spec) {
	t.Helper()
	linux := *s.Linux
	s.Linux = &linux
	run := []string{"run", "--bundle", bundle, "grouped"}
	process := *s.Process
	s.Process = &process
	process.Args = []string{"cat", "/proc/self/cgroup"}
	limit := int64(30)
	linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}
	e.config(bundle, s)
	e.says(1, "cannot set pids limit: container could not join or create cgroup", run...)
	linux.CgroupsPath = "/" + parent + "/refused"
	e.config(bundle, s)
	e.says(1, "unable to apply cgroup configuration", run...)

	// Delegated, as an administrator does it.
	linux.CgroupsPath = "/" + parent + "/user/c"
	e.config(bundle, s)
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if len(dirs) == 0 {
		dirs = []string{"/sys/fs/cgroup/cgroup.procs"}
	}
	for _, procs := range dirs {
		dir := filepath.Join(filepath.Dir(procs), parent, "user")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
			for _, d := range []string{filepath.Dir(dir), dir} {
				if value, err := os.ReadFile(filepath.Join(filepath.Dir(d), name)); err == nil {
					_ = os.WriteFile(filepath.Join(d, name), value, 0)
				}
			}
		}
		for _, name := range []string{"", "cgroup.procs", "tasks", "cgroup.subtree_control"} {
			_ = os.Chown(filepath.Join(dir, name), userID, userID)
		}
	}
	e.config(bundle, s)
	// On version 2 who moves has to come from below, too.
	within := e
	script := `for d in /sys/fs/cgroup /sys/fs/cgroup/*; do d=$d/` + parent + `/user; [ ! -e $d/cgroup.controllers ] ||
		{ mkdir -p $d/self; echo 0 >$d/self/cgroup.procs; }; done; exec "$@"`
	within.command = append([]string{"sh", "-c", script, "sh"}, e.command...)
	if r := within.do(run...); r.Code != 0 || !strings.Contains(r.Stdout, "/"+parent+"/user/c") && !strings.Contains(r.Stdout, ":/\n") {
		t.Errorf("a delegated group: %d, %s%s", r.Code, r.Stdout, r.Stderr)
	}
	linux.Resources = nil

	linux.CgroupsPath = ""
	e.config(bundle, s)
	for what, script := range map[string]string{
		"read-only": "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mount -o remount,bind,ro $d 2>/dev/null; done; exec \"$@\"",
		"absent":    "mount -t tmpfs none /sys/fs/cgroup && exec \"$@\"",
	} {
		hidden := e
		hidden.command = append([]string{"unshare", "-m", "sh", "-c", script, "sh"}, e.command...)
		if r := hidden.do(run...); r.Code != 0 {
			t.Errorf("%s groups: %d, %s", what, r.Code, r.Stderr)
		}
	}
}

// TestRootlessPodman: Podman as an ordinary user with our runtime.
func TestRootlessPodman(t *testing.T) {
	need(t, "podman", "conmon", "setpriv", "newuidmap")
	home := addUser(t)
	img, err := images.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	if err := img.WriteLayout(home+"/layout", "busybox:latest"); err != nil {
		t.Fatal(err)
	}
	write(t, home+"/containers.conf", `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
`)
	write(t, home+"/policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	runtime := program(t, home)
	own(t, home)
	e := engine{t: t, command: []string{"podman", "--runtime", runtime, "--storage-driver", "vfs"},
		env: []string{"XDG_RUNTIME_DIR=" + home + "/xdg", "HOME=" + home, "TMPDIR=" + home, "CONTAINERS_CONF=" + home + "/containers.conf", "USER=" + userName}}.user()
	e.image = e.ok("pull", "-q", "--signature-policy", home+"/policy.json", "oci:"+home+"/layout:busybox:latest")
	e.says(0, "uid=1000(user)", "run", "--rm", "--user", "1000:1000", e.image, "id")
	e.ok("run", "-d", "--name", "one", e.image, "sleep", "1000")
	defer e.do("rm", "-f", "-t", "0", "one")
	e.says(0, "uid=0(root)", "exec", "one", "id")
	e.says(0, "sleep 1000", "top", "one")
	e.ok("kill", "one")
	if code := e.ok("wait", "one"); code != "137" {
		t.Errorf("killed it ends with %s", code)
	}
}
