package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// CVE-2021-30465, CVE-2026-41579, CVE-2026-47766 and their like: an image's links lead out of the root only for a
// runtime that resolves them on the host.
func TestLinksStayInTheRoot(t *testing.T) {
	w := newWorld(t)
	victim := w.hostDir("victim", "f", "host")
	w.link(victim, "to")              // a mount's target
	w.link("../../../../../..", "up") // a mount's target's parent
	w.link(victim+"/new", "dangling") // a link to what isn't there
	src := w.hostDir("src", "f", "mounted")
	w.mount("/to", "bind", src, "bind")
	w.mount("/up/sub", "bind", src, "bind")
	w.mount("/dangling", "bind", src, "bind")
	w.mount("/file", "bind", src+"/f", "bind")
	out := w.must("cat /to/f; echo; cat /sub/f; echo; cat /dangling/f; echo; cat /file")
	want(t, "mounts", out, "mounted\nmounted\nmounted\nmounted")
	if list, _ := os.ReadDir(victim); len(list) != 1 {
		t.Errorf("the host's directory was changed: %v", list)
	}
	if _, err := os.Stat("/sub"); err == nil {
		t.Error("a directory was made in the host's root")
	}
}

// An image whose /dev is a link: devices are made where it leads in the root, or under the tmpfs there.
func TestLinkedDev(t *testing.T) {
	w := newWorld(t)
	victim := t.TempDir() // not below /dev, which is what the link replaces
	if strings.HasPrefix(victim, "/dev/") {
		victim, _ = os.MkdirTemp("/var/tmp", "cale-runtime-")
		defer os.RemoveAll(victim)
	}
	w.link(victim, "dev")
	want(t, "null", w.must("[ -c /dev/null ] && echo x > /dev/null && echo ok"), "ok")
	if list, _ := os.ReadDir(victim); len(list) != 0 {
		t.Errorf("the host's directory was changed: %v", list)
	}
}

// CVE-2019-16884, CVE-2019-19921, CVE-2023-27561: /proc and /sys that are links.
func TestLinkedProc(t *testing.T) {
	for _, name := range []string{"proc", "sys"} {
		w := newWorld(t)
		os.Remove(filepath.Join(w.root(), name))
		w.link("/elsewhere", name)
		os.MkdirAll(filepath.Join(w.root(), "elsewhere"), 0o755)
		_, _, err := w.run("true")
		if err == nil || !strings.Contains(err.Error(), "must be mounted on ordinary directory") {
			t.Errorf("/%s a link: %v", name, err)
		}
	}
}

// CVE-2025-31133, CVE-2025-52565: what masks is the host's checked device, whatever the image has at /dev/null.
func TestMasking(t *testing.T) {
	w := newWorld(t)
	w.file("secret/file", "secret")
	w.file("secretfile", "secret")
	w.file("ro/file", "fixed")
	w.file("target/file", "not masked by its other name")
	w.link("/target", "tolink")
	w.link("/nowhere", "dangling")
	w.spec.Linux.MaskedPaths = append(w.spec.Linux.MaskedPaths, "/secret", "/secretfile", "/nosuch", "/tolink", "/dangling", "/secretfile/x")
	w.spec.Linux.ReadonlyPaths = append(w.spec.Linux.ReadonlyPaths, "/ro", "/nosuch", "/dangling")
	out := w.must(`ls /secret /target; cat /secretfile; echo x >/ro/file; echo y >/secret/new; cat /ro/file; echo x >/proc/sys/kernel/domainname; stat -c %F /secretfile; cat /proc/keys /proc/timer_list; true`)
	for _, line := range strings.Split(out, "\n") {
		if strings.Contains(line, "secret") && !strings.Contains(line, "read-only") && !strings.Contains(line, "Read-only") && !strings.HasPrefix(line, "/secret:") {
			t.Errorf("got through: %q", line)
		}
	}
	if n := strings.Count(out, "Read-only file system"); n != 3 {
		t.Errorf("%d of 3 writes refused: %s", n, out)
	}
	if !strings.Contains(out, "fixed") || !strings.Contains(out, "character special file") {
		t.Errorf("got %s", out)
	}
}

// CVE-2024-21626: a working directory that leads out by a descriptor.
func TestCwdOutside(t *testing.T) {
	w := newWorld(t)
	host, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	unix.FcntlInt(host.Fd(), unix.F_SETFD, 0)
	c := w.start()
	for fd := 3; fd < int(host.Fd())+3; fd++ {
		for _, dir := range []string{"/proc/self/fd/", "/proc/self/fd/../fd/"} {
			w.spec.Process.Cwd = dir + string(rune('0'+fd%10))
			if fd > 9 {
				w.spec.Process.Cwd = dir + "1" + string(rune('0'+fd%10))
			}
			p := w.process("ls -d /work /usr 2>/dev/null; ls; true")
			out, _, err := w.exec(c, p)
			if err == nil && strings.Contains(out, "usr") {
				t.Errorf("exec with cwd %s sees the host: %s", w.spec.Process.Cwd, out)
			}
			out, _, err = w.run("ls; true", func(o *Options) { o.Spec.Linux.CgroupsPath = w.group + "/d" })
			if err == nil && strings.Contains(out, "usr") {
				t.Errorf("run with cwd %s sees the host: %s", w.spec.Process.Cwd, out)
			}
		}
	}
}

// runc#3952, #3911, #4971: the mode of a tmpfs is its option, else that of the directory it covers, else 1777.
func TestTmpfsModes(t *testing.T) {
	w := newWorld(t)
	for name, mode := range map[string]uint32{"narrow": 0o710, "wide": 0o7777} {
		p := filepath.Join(w.root(), name)
		os.Mkdir(p, 0o755)
		if err := unix.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
	}
	w.mount("/narrow", "tmpfs", "tmpfs")
	w.mount("/wide", "tmpfs", "tmpfs")
	w.mount("/missing", "tmpfs", "tmpfs")
	w.mount("/set", "tmpfs", "tmpfs", "mode=0444")
	want(t, "missing directory", w.must("stat -c %a /missing"), "1777")
	for range 2 {
		want(t, "modes", w.must("stat -c %a /narrow /wide /set"), "710\n7777\n444")
	}
}

// runc#4401: directories made below a set-group-ID one keep the bit.
func TestSetgidParents(t *testing.T) {
	w := newWorld(t)
	p := filepath.Join(w.root(), "setgid")
	os.Mkdir(p, 0o755)
	if err := unix.Chmod(p, 0o7755); err != nil {
		t.Fatal(err)
	}
	w.mount("/setgid/a/b/c", "tmpfs", "tmpfs")
	want(t, "modes", w.must("stat -c %a /setgid/a /setgid/a/b"), "2755\n2755")
}

// runc#3715: rights decide, those of the process.
func TestExecutionRights(t *testing.T) {
	w := newWorld(t)
	data, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	w.file("tool/x", "")
	if err := os.WriteFile(filepath.Join(w.root(), "tool/busybox"), data, 0o700); err != nil {
		t.Fatal(err)
	}
	w.spec.Process.User = specs.User{UID: 1000, GID: 1000}
	w.spec.Process.Args = []string{"/tool/busybox", "true"}
	w.spec.Process.Capabilities = nil
	if _, _, err := w.runSpec(); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("without the right: %v", err)
	}
	caps := []string{"CAP_DAC_OVERRIDE"}
	w.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Inheritable: caps, Permitted: caps, Ambient: caps}
	if _, code, err := w.runSpec(); err != nil || code != 0 {
		t.Errorf("with CAP_DAC_OVERRIDE: %d, %v", code, err)
	}
}

// CVE-2022-29162 and others: nothing is inheritable that wasn't asked for.
func TestCapabilities(t *testing.T) {
	w := newWorld(t)
	w.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "cap_kill", "CAP_NOSUCH"}, Effective: []string{"CAP_CHOWN"}, Permitted: []string{"CAP_CHOWN"}}
	want(t, "sets", w.must("grep Cap /proc/self/status | cut -f2"), strings.Join([]string{
		"0000000000000000", "0000000000000001", "0000000000000001", "0000000000000021", "0000000000000000"}, "\n"))
	w.spec.Process.Capabilities = nil
	want(t, "none", w.must("grep CapEff /proc/self/status | cut -f2"), "0000000000000000")
}

// runc#4688: HOME.
func TestHome(t *testing.T) {
	w := newWorld(t)
	w.file("etc/passwd", "user:x:2000:2000::/home/user:/bin/sh\nbad line\n")
	w.spec.Process.User.UID = 2000
	want(t, "in passwd", w.must("echo $HOME"), "/home/user")
	w.spec.Process.User.UID = 3000
	want(t, "not in passwd", w.must("echo $HOME"), "/")
	w.spec.Process.Env = append(w.spec.Process.Env, "HOME=/set", "A=1", "A=2")
	want(t, "set", w.must("echo $HOME $A; env | grep -c ^A="), "/set 2\n1")
	// CVE-2023-0778's cousin: a passwd file that blocks or never ends.
	os.Remove(filepath.Join(w.root(), "etc/passwd"))
	if err := unix.Mkfifo(filepath.Join(w.root(), "etc/passwd"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.spec.Process.Env = w.spec.Process.Env[:len(w.spec.Process.Env)-3]
	want(t, "fifo", w.must("echo $HOME"), "/")
}

// runc#3674: the host's devices keep their owner.
func TestStdioOwner(t *testing.T) {
	w := newWorld(t)
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	w.spec.Process.User.UID = 1000
	w.must("echo x > /proc/self/fd/1", func(o *Options) { o.Stdin = null })
	var st unix.Stat_t
	if err := unix.Stat("/dev/null", &st); err != nil || st.Uid != 0 {
		t.Errorf("/dev/null belongs to %d (%v)", st.Uid, err)
	}
}

// runc#5095: recursive attributes reach the mounts below.
func TestRecursiveOptions(t *testing.T) {
	w := newWorld(t)
	src := w.hostDir("src", "f", "x")
	sub := w.hostDir("src/sub", "f", "x")
	if err := unix.Mount("tmpfs", sub, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(sub, unix.MNT_DETACH)
	w.mount("/atime", "bind", src, "rbind", "rnoatime")
	w.mount("/strict", "bind", src, "rbind", "rstrictatime")
	w.mount("/rro", "bind", src, "rbind", "rro")
	w.mount("/ro", "bind", src, "rbind", "ro", "nosuid", "noexec")
	w.mount("/flat", "bind", src, "bind")
	out := w.must("mount | grep -E ' on /(atime|strict|rro|ro|flat)'")
	opts := map[string]string{}
	for _, l := range strings.Split(strings.TrimSpace(out), "\n") {
		f := strings.Fields(l)
		opts[f[2]] = strings.Trim(f[5], "()")
	}
	for _, c := range []struct {
		path, option string
		has          bool
	}{
		{"/atime", "noatime", true}, {"/atime/sub", "noatime", true},
		{"/strict", "relatime", false}, {"/strict/sub", "relatime", false},
		{"/rro", "ro", true}, {"/rro/sub", "ro", true},
		{"/ro", "ro", true}, {"/ro", "nosuid", true}, {"/ro", "noexec", true}, {"/ro/sub", "ro", false},
	} {
		has := strings.Contains(","+opts[c.path]+",", ","+c.option+",")
		if has != c.has || opts[c.path] == "" {
			t.Errorf("%s: %q has %s: %v", c.path, opts[c.path], c.option, has)
		}
	}
	if _, ok := opts["/flat/sub"]; ok {
		t.Error("bind took a mount below along")
	}
}

// podman#28592, crun#2122, crun#2059: mounts travel as the propagation says, and nothing else does.
func TestPropagation(t *testing.T) {
	w := newWorld(t)
	src := w.hostDir("src", "f", "x")
	if err := unix.Mount("tmpfs", src, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(src, unix.MNT_DETACH)
	if err := unix.Mount("", src, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"late", "inside"} {
		os.Mkdir(filepath.Join(src, d), 0o755)
	}
	w.mount("/slave", "bind", src, "rbind", "rslave")
	w.mount("/shared", "bind", src, "rbind", "rshared")
	w.mount("/private", "bind", src, "rbind", "rprivate")
	c := w.start()
	late := filepath.Join(src, "late")
	if err := unix.Mount("late", late, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(late, unix.MNT_DETACH)
	out, _, err := w.exec(c, w.process("grep -c 'slave/late' /proc/mounts; grep -c 'shared/late' /proc/mounts; grep -c 'private/late' /proc/mounts; mount -t tmpfs inner /shared/inside; mount -t tmpfs inner /slave/inside; mount -t tmpfs inner /private/inside"))
	if err != nil {
		t.Fatal(err)
	}
	want(t, "late mount in slave, shared, private", out, "1\n1\n0")
	host, _ := os.ReadFile("/proc/self/mountinfo")
	if n := strings.Count(string(host), filepath.Join(src, "inside")); n != 1 {
		t.Errorf("%d of the container's 3 mounts on the host, want the shared one", n)
	}
	unix.Unmount(filepath.Join(src, "inside"), unix.MNT_DETACH)
}

// runc#4635: an exec sees the container's clock.
func TestTimeNamespace(t *testing.T) {
	if _, err := os.Stat("/proc/self/ns/time"); err != nil {
		t.Skip("the kernel has no time namespaces")
	}
	w := newWorld(t)
	w.spec.Linux.Namespaces = append(w.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	w.spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 7881000}, "monotonic": {Secs: 3000, Nanosecs: 5}}
	c := w.start()
	out, _, err := w.exec(c, w.process("cut -d. -f1 /proc/uptime; readlink /proc/self/ns/time; readlink /proc/1/ns/time"))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(out)
	if len(f) != 3 || f[1] != f[2] || len(f[0]) < 7 {
		t.Errorf("exec sees %q", f)
	}
}

// CVE-2024-40635, CVE-2026-30892: numbers that are no IDs.
func TestIdentityBounds(t *testing.T) {
	w := newWorld(t)
	w.spec.Process.User.UID = 1<<32 - 1
	if _, _, err := w.run("id"); err == nil {
		t.Error("uid -1 was taken")
	}
	w.spec.Process.User = specs.User{UID: 1<<31 + 5, GID: 1 << 31}
	want(t, "large uid", w.must("id -u; id -g"), "2147483653\n2147483648")
}

// CVE-2022-0811 and others: only what belongs to the container's namespaces can be set.
func TestSysctls(t *testing.T) {
	w := newWorld(t)
	w.spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1", "net/ipv4/conf/lo/forwarding": "0"}
	want(t, "values", w.must("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced"), "1\n1")
	for _, key := range []string{"kernel.core_pattern", "vm.swappiness", "kernel.hostname", "net.../kernel/core_pattern", "/kernel/core_pattern", "net", "", "net.ipv4.ip_forward+1\x00"} {
		w.spec.Linux.Sysctl = map[string]string{key: "1"}
		if _, _, err := w.run("true"); err == nil {
			t.Errorf("%q was taken", key)
		}
	}
}

// runc's mount order tests: a source below the root's own path is what earlier mounts have put there, and a
// destination given as such a host path is meant in the root.
func TestSourcesInTheRoot(t *testing.T) {
	w := newWorld(t)
	w.mount("/a/sub", "tmpfs", "tmpfs")
	w.mount("/a/sub/x", "bind", w.hostDir("src", "f", "mounted"), "bind")
	w.mount("/copy", "bind", w.root()+"/a", "rbind")
	w.mount(w.root()+"/stripped", "bind", w.root()+"/a/sub/x", "bind")
	want(t, "sources", w.must("cat /copy/sub/x/f; echo; cat /stripped/f"), "mounted\nmounted")
}

// runc's no_pivot test: a root that was only moved must not leave the host's whole /proc where the kernel can see it,
// or a user namespace in the container can mount one that isn't masked.
func TestNoPivotHidesProc(t *testing.T) {
	w := newWorld(t)
	script := `unshare -mrpf sh -c "mount -t proc none /mnt && echo exposed"; true`
	os.Link(filepath.Join(w.root(), "bin/busybox"), filepath.Join(w.root(), "bin/unshare"))
	os.Mkdir(filepath.Join(w.root(), "mnt"), 0o755)
	for _, noPivot := range []bool{false, true} {
		out := w.must(script+"; ls -d /proc/1 /sys/kernel", func(o *Options) { o.NoPivot = noPivot })
		if strings.Contains(out, "exposed") || !strings.Contains(out, "/proc/1\n/sys/kernel") {
			t.Errorf("no pivot %v: %s", noPivot, out)
		}
	}
}

// CVE-2024-25621: what is kept of containers is nobody else's to look into, whatever the caller's umask.
func TestStateIsPrivate(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	w := newWorld(t)
	w.spec.Process.Args = []string{"/bin/sleep", "1000"}
	c := w.start()
	dir := filepath.Join(w.state(), c.ID())
	for _, d := range []string{w.state(), dir} {
		if st, err := os.Stat(d); err != nil || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", d, st.Mode(), err)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		if st, err := f.Info(); err != nil || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", f.Name(), st.Mode(), err)
		}
	}
}
