package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func (w *world) userNS() {
	os.Mkdir(filepath.Join(w.root(), "dev"), 0o755)
	w.spec.Linux.Namespaces = append(w.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
	w.spec.Linux.UIDMappings, w.spec.Linux.GIDMappings = ids, ids
}

func TestUserNamespace(t *testing.T) {
	w := newWorld(t)
	w.userNS()
	secret := w.hostDir("secret", "f", "x")
	os.Chmod(secret, 0o700)
	// A source that root of the namespace can't reach by name is opened by the caller.
	w.mount("/data", "bind", w.hostDir("secret/inner", "f", "mounted"), "bind")
	c := w.start()
	script := "cat /proc/self/uid_map; id -u; id -G; cat /data/f; echo; echo x >/dev/null; [ -c /dev/zero ] && echo dev; touch /new 2>&1; mount -t tmpfs t /bin && echo mounted"
	out, code, err := w.exec(c, w.process(script))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Join(strings.Fields(out), " ")
	if code != 0 || f != "0 200000 65536 0 0 mounted dev touch: /new: Permission denied mounted" {
		t.Errorf("exit status %d: %s", code, f)
	}
	ps, err := os.ReadFile("/proc/" + itoa(c.InitPid()) + "/status")
	if err != nil || !strings.Contains(string(ps), "Uid:\t200000\t") {
		t.Errorf("init's owner on the host: %v", err)
	}
	// The root belongs to the host's root; mapped, it belongs to the container's.
	w2 := newWorld(t)
	w2.userNS()
	src := w2.hostDir("src", "f", "x")
	w2.spec.Mounts = append(w2.spec.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: src, Options: []string{"bind"},
		UIDMappings: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 1000}},
		GIDMappings: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 1000}}})
	text, _, err := w2.run("stat -c %u:%g /data/f; touch /data/new && echo made")
	if err != nil && strings.Contains(err.Error(), "map owners: invalid argument") {
		t.Skip("tmpfs here takes no mapped mounts")
	}
	if err != nil {
		t.Fatal(err)
	}
	want(t, "mapped owners", text, "0:0\nmade")
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(src, "new"), &st); err != nil || st.Uid != 0 {
		t.Errorf("owner of the new file: %d, %v", st.Uid, err)
	}
}

func itoa(n int) string {
	b, _ := json.Marshal(n)
	return string(b)
}

// Namespaces of another container, among them its pid and user namespaces, are joined by path.
func TestJoinNamespaces(t *testing.T) {
	for _, user := range []bool{false, true} {
		w := newWorld(t)
		if user {
			w.userNS()
		}
		c := w.start()
		for i := range w.spec.Linux.Namespaces {
			ns := &w.spec.Linux.Namespaces[i]
			if ns.Type == specs.MountNamespace || ns.Type == specs.CgroupNamespace {
				continue
			}
			name := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net"}[ns.Type]
			if name == "" {
				name = string(ns.Type)
			}
			ns.Path = "/proc/" + itoa(c.InitPid()) + "/ns/" + name
		}
		w.spec.Linux.UIDMappings, w.spec.Linux.GIDMappings = nil, nil
		w.spec.Linux.CgroupsPath = w.group + "/d"
		w.spec.Hostname = ""
		out := w.must("for n in pid net uts ipc user; do readlink /proc/1/ns/$n; readlink /proc/self/ns/$n; done")
		f := strings.Fields(out)
		for i := 0; i+1 < len(f); i += 2 {
			if f[i] != f[i+1] {
				t.Errorf("user namespace %v: %s and %s", user, f[i], f[i+1])
			}
		}
		if len(f) != 10 {
			t.Errorf("got %q", f)
		}
	}
}

// runc#1663: a hook's argv is exactly its args; crun 1.17: a hook that doesn't read its stdin is none that fails.
func TestHooks(t *testing.T) {
	w := newWorld(t)
	log := filepath.Join(w.dir, "log")
	hook := func(name, script string) specs.Hook {
		return specs.Hook{Path: "/bin/busybox", Args: []string{"sh", "-c", script + "; echo " + name + " >>" + log}}
	}
	inside := func(name string) specs.Hook {
		// The root is entered: only the container's files are there.
		return specs.Hook{Path: "/bin/busybox", Args: []string{"sh", "-c", "echo " + name + " >>/log; cat >>/state"}}
	}
	w.spec.Hooks = &specs.Hooks{
		Prestart:        []specs.Hook{hook("prestart", "cat >/dev/null")},
		CreateRuntime:   []specs.Hook{hook("createRuntime", "exec <&-"), {Path: "/bin/busybox", Args: []string{"cat"}}},
		CreateContainer: []specs.Hook{hook("createContainer", "readlink /proc/self/ns/mnt >"+log+".mnt; cat >"+log+".state")},
		StartContainer:  []specs.Hook{inside("startContainer")},
		Poststart:       []specs.Hook{hook("poststart", "true")},
		Poststop:        []specs.Hook{hook("poststop", "true")},
	}
	out := newOutput(t)
	defer out.close()
	w.spec.Process.Args = []string{"/bin/sh", "-c", "readlink /proc/self/ns/mnt; cat /log"}
	c, err := Create(context.Background(), w.options("hooked", out.w))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	reap(t, c.InitPid())
	if err := c.Delete(false); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(log)
	want(t, "order", string(got), "prestart\ncreateRuntime\ncreateContainer\npoststart\npoststop")
	out.close()
	mnt, _ := os.ReadFile(log + ".mnt")
	want(t, "inside", <-out.text, strings.TrimSpace(string(mnt))+"\nstartContainer")
	var state specs.State
	raw, _ := os.ReadFile(log + ".state")
	if err := json.Unmarshal(raw, &state); err != nil || state.ID != "hooked" || state.Pid != c.InitPid() || state.Status != specs.StateCreating {
		t.Errorf("state %+v, %v", state, err)
	}
	w.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/busybox", Args: []string{"cat", "/nosuch"}}}}
	if _, _, err := w.run("true"); err == nil || !strings.Contains(err.Error(), "createRuntime hook #0") || !strings.Contains(err.Error(), "/nosuch") {
		t.Errorf("hook that fails: %v", err)
	}
	w.spec.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/bin/false"}}}
	if _, _, err := w.run("sleep 1000"); err == nil || !strings.Contains(err.Error(), "poststart hook #0") {
		t.Errorf("poststart hook that fails: %v", err)
	}
	one := 1
	w.spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/busybox", Args: []string{"sleep", "100"}, Timeout: &one}}}
	if _, _, err := w.run("true"); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("hook that hangs: %v", err)
	}
}

func TestTerminal(t *testing.T) {
	w := newWorld(t)
	masters := make(chan *os.File, 1)
	give := func(o *Options) { o.Console = func(m *os.File) { masters <- m } }
	w.spec.Process.Terminal = true
	w.spec.Process.ConsoleSize = &specs.Box{Height: 33, Width: 77}
	w.spec.Process.User.UID = 1000
	w.spec.Process.Args = []string{"/bin/sh", "-c", "tty; stat -c %u /dev/console; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo tty; readlink /proc/self/fd/0; read x; echo got $x"}
	o := w.options("tty", nil)
	give(&o)
	c, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	m := <-masters
	defer m.Close()
	if ws, err := unix.IoctlGetWinsize(int(m.Fd()), unix.TIOCGWINSZ); err != nil || ws.Row != 33 || ws.Col != 77 {
		t.Errorf("size %+v, %v", ws, err)
	}
	m.WriteString("word\n")
	var b strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(b.String(), "got word") {
		n, err := m.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			break
		}
	}
	reap(t, c.InitPid())
	text := strings.ReplaceAll(b.String(), "\r", "")
	for _, s := range []string{"/dev/pts/0\n", "1000\n", "tty\n", "got word"} {
		if !strings.Contains(text, s) {
			t.Errorf("%q is missing in %q", s, text)
		}
	}
	// The same for an exec, through a console socket.
	w.spec.Process.Terminal = false
	w.spec.Process.User.UID = 0
	c = w.start(func(o *Options) { o.Spec.Linux.CgroupsPath = w.group + "/d" })
	sock := filepath.Join(w.dir, "console")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: sock})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 1)
	go func() {
		conn, err := l.AcceptUnix()
		if err != nil {
			got <- err.Error()
			return
		}
		defer conn.Close()
		oob := make([]byte, 64)
		_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 64), oob)
		if err != nil {
			got <- err.Error()
			return
		}
		msgs, _ := unix.ParseSocketControlMessage(oob[:n])
		fds, _ := unix.ParseUnixRights(&msgs[0])
		f := os.NewFile(uintptr(fds[0]), "master")
		defer f.Close()
		text, _ := io.ReadAll(f) // ends with EIO
		got <- string(text)
	}()
	p := w.process("tty")
	p.Terminal = true
	proc, err := c.Exec(context.Background(), ExecOptions{Process: p, ConsoleSocket: sock})
	if err != nil {
		t.Fatal(err)
	}
	defer proc.PidFD.Close()
	reap(t, proc.Pid)
	select {
	case s := <-got:
		if !strings.HasPrefix(s, "/dev/pts/") {
			t.Errorf("exec's terminal: %q", s)
		}
	case <-time.After(patience):
		t.Error("no terminal came")
	}
}

func TestSeccomp(t *testing.T) {
	for _, nnp := range []bool{true, false} {
		w := newWorld(t)
		w.spec.Process.NoNewPrivileges = nnp
		errno := uint(unix.EXDEV)
		w.spec.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow,
			Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchAARCH64},
			Syscalls:      []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat", "getcwd", "nosuchcall"}, Action: specs.ActErrno, ErrnoRet: &errno}},
		}
		out, _, err := w.run("mkdir /x; grep Seccomp: /proc/self/status | cut -f2; grep CapEff /proc/self/status | cut -f2")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out, "Invalid cross-device link") || !strings.Contains(out, "\n2\n") {
			t.Errorf("no_new_privs %v: %s", nnp, out)
		}
		// CAP_SYS_ADMIN is in the world's sets; without it none may be left over.
		w.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"}}
		want(t, "capabilities", w.must("grep CapEff /proc/self/status | cut -f2"), "0000000000000020")
		w.spec.Process.User.UID = 1000
		want(t, "a user's capabilities", w.must("grep -E 'Cap(Eff|Prm)' /proc/self/status | cut -f2"), "0000000000000000\n0000000000000000")
	}
}

func TestResources(t *testing.T) {
	w := newWorld(t)
	limit := int64(20)
	w.spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit}
	c := w.start()
	stats, err := c.Stats()
	if err != nil {
		t.Skipf("no statistics: %v", err)
	}
	if stats.Pids == nil {
		t.Skip("no pids controller")
	}
	if stats.Pids.Limit != 20 || stats.Pids.Current != 1 {
		t.Errorf("pids %+v", stats.Pids)
	}
	limit = 30
	if err := c.Update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}); err != nil {
		t.Fatal(err)
	}
	if stats, err = c.Stats(); err != nil || stats.Pids.Limit != 30 {
		t.Errorf("after the update: %+v, %v", stats.Pids, err)
	}
	// Kill reaches what a container without a pid namespace of its own has started.
	if _, code, err := w.exec(c, w.process("sleep 1000 </dev/null >/dev/null 2>&1 & true")); err != nil || code != 0 {
		t.Fatal(code, err)
	}
	if err := c.Kill(unix.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	reap(t, c.InitPid())
	deadline := time.Now().Add(patience)
	for {
		pids, err := c.Pids()
		if err != nil {
			t.Fatal(err)
		}
		if len(pids) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("processes left: %v", pids)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestRootfsMounts(t *testing.T) {
	w := newWorld(t)
	upper, work := filepath.Join(w.dir, "upper"), filepath.Join(w.dir, "work")
	for _, d := range []string{upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// More layers than fit into one option of 255 bytes.
	lowers := []string{}
	for i := range 12 {
		lowers = append(lowers, w.hostDir("layer-with-a-long-name-"+itoa(i), "file"+itoa(i), itoa(i)))
	}
	lowers = append(lowers, w.root())
	o := func(o *Options) {
		o.Rootfs = []Mount{{Type: "overlay", Source: "overlay", Options: []string{
			"lowerdir=" + strings.Join(lowers, ":"), "upperdir=" + upper, "workdir=" + work}}}
	}
	out, _, err := w.run("cat /file0 /file11; echo; echo new >/new", o)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "layers", out, "011")
	if got, _ := os.ReadFile(filepath.Join(upper, "new")); string(got) != "new\n" {
		t.Errorf("upper layer: %q", got)
	}
	os.Mkdir(filepath.Join(w.root(), "dev"), 0o755)
	want(t, "bind", w.must("cat /file3", func(o *Options) {
		o.Rootfs = []Mount{{Type: "bind", Source: w.root(), Options: []string{"rbind"}}, {Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + strings.Join(lowers, ":")}}}
	}), "3")
}

func TestTmpcopyup(t *testing.T) {
	w := newWorld(t)
	w.file("data/sub/f", "kept")
	w.link("sub/f", "data/link")
	os.Chown(filepath.Join(w.root(), "data/sub"), 7, 8)
	os.Chmod(filepath.Join(w.root(), "data"), 0o751)
	w.mount("/data", "tmpfs", "tmpfs", "tmpcopyup", "size=1m")
	want(t, "copy", w.must("cat /data/link; echo; stat -c %a:%u:%g /data /data/sub; echo x >/data/sub/f"), "kept\n751:0:0\n755:7:8")
	if got, _ := os.ReadFile(filepath.Join(w.root(), "data/sub/f")); string(got) != "kept" {
		t.Errorf("the image was changed: %q", got)
	}
}

func TestDevices(t *testing.T) {
	w := newWorld(t)
	mode := os.FileMode(0o640)
	uid := uint32(5)
	w.spec.Linux.Devices = []specs.LinuxDevice{
		{Path: "/dev/some/zero", Type: "c", Major: 1, Minor: 5, FileMode: &mode, UID: &uid, GID: &uid},
		{Path: "/dev/pipe", Type: "p"},
	}
	want(t, "nodes", w.must("stat -c %a:%u:%t:%T /dev/some/zero /dev/null; [ -p /dev/pipe ] && echo pipe"), "640:5:1:5\n666:0:1:3\npipe")
	want(t, "links", w.must("readlink /dev/fd; readlink /dev/stdout; readlink /dev/ptmx"), "/proc/self/fd\n/proc/self/fd/1\npts/ptmx")
	// The host's devices, bound as a whole, are left alone.
	for i := range w.spec.Mounts {
		if m := &w.spec.Mounts[i]; m.Destination == "/dev" {
			*m = specs.Mount{Destination: "/dev", Type: "bind", Source: "/dev", Options: []string{"rbind", "rprivate"}}
		}
	}
	w.spec.Mounts = append([]specs.Mount{}, w.spec.Mounts[0], w.spec.Mounts[1])
	w.spec.Linux.Devices = nil
	w.must("[ -c /dev/null ]")
}

// Hooks that bring files along (drivers' libraries) mount them at the root's path in the container's mount namespace,
// before the root is entered, and createContainer hooks start in it.
func TestHookMountsIntoRoot(t *testing.T) {
	w := newWorld(t)
	w.file("lib/a", "image")
	w.file("lib/b", "image")
	src := w.hostDir("src", "f", "hook")
	w.spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c",
		"mount --bind " + src + "/f " + w.root() + "/lib/a && mount --bind " + src + "/f ./lib/b"}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}}}}
	want(t, "files", w.must("cat /lib/a /lib/b"), "hookhook")
}

// A hook that fails after the end is told of, in runc's words and crun's, and keeps nothing of the container.
func TestFailingPoststop(t *testing.T) {
	w := newWorld(t)
	fail := specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "echo why; exit 3"}}
	w.spec.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/true"}, fail, fail}}
	var warnings []string
	o := w.options("failing", nil)
	w.spec.Process.Args = []string{"/bin/true"}
	c, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	reap(t, c.InitPid())
	c.Warn = func(s string) { warnings = append(warnings, s) }
	if err := c.Delete(false); err != nil {
		t.Error(err)
	}
	const text = "poststop hook failed with exit code 3: exit status 3, output: why"
	want(t, "warnings", strings.Join(warnings, "\n"), "error running poststop hook #1: "+text+"\nerror running poststop hook #2: "+text)
	if _, err := Load(w.state(), "failing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("load: %v", err)
	}
}

// A name that is no system call is left out of a profile, unless crun's annotation asks for an error.
func TestUnknownSyscallAnnotation(t *testing.T) {
	w := newWorld(t)
	errno := uint(1)
	w.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"swapon", "no_such_call"}, Action: specs.ActErrno, ErrnoRet: &errno}}}
	w.must("true")
	w.spec.Annotations = map[string]string{"run.oci.seccomp_fail_unknown_syscall": "0"}
	w.must("true")
	w.spec.Annotations["run.oci.seccomp_fail_unknown_syscall"] = "1"
	if _, _, err := w.run("true"); err == nil || !strings.Contains(err.Error(), `unknown system call "no_such_call"`) {
		t.Errorf("error: %v", err)
	}
	if left, _ := os.ReadDir(w.state()); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
