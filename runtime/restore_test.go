package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"cale/runtime/landlock"
	"cale/runtime/linux"
	"cale/runtime/spec"
	"cale/wire"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The test's program is CRIU too, with this in its environment: words that say what it restores, see fakeCRIU.
const fakeEnv = "CALE_TEST_FAKE_CRIU"

func init() {
	if words := os.Getenv(fakeEnv); words != "" && len(os.Args) > 1 && os.Args[1] == "swrk" {
		if err := fakeCRIU(strings.Fields(words)); err != nil {
			fmt.Fprintln(os.Stderr, "fake criu:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// fakeCRIU answers one request to restore, as CRIU does, with a process that sleeps in the namespaces that flags=N
// says, and writes its pid to the file pid=. It leaves the name hostname= in the namespace uts=, passes over the script
// skip=, and ends where fail= would be told.
func fakeCRIU(words []string) error {
	set := map[string]string{}
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		set[key] = value
	}
	unix.CloseOnExec(3) // its end is how the other side learns of ours
	buf := make([]byte, 64<<10)
	if _, err := unix.Read(3, buf); err != nil {
		return err
	}
	flags, err := strconv.ParseUint(set["flags"], 10, 64)
	if err != nil {
		return err
	}
	child := exec.Command("/bin/busybox", "sleep", "1000")
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: uintptr(flags) | unix.CLONE_PARENT}
	if err := child.Start(); err != nil {
		return err
	}
	if err := os.WriteFile(set["pid"], strconv.AppendInt(nil, int64(child.Process.Pid), 10), 0o600); err != nil {
		return err
	}
	if name, ok := set["hostname"]; ok {
		uts, err := os.Open(set["uts"])
		if err != nil {
			return err
		}
		if err := linux.InNamespace(uts, unix.CLONE_NEWUTS, func() error { return unix.Sethostname([]byte(name)) }); err != nil {
			return err
		}
	}
	if err := os.WriteFile("/proc/self/fd/5/restore.log", []byte("(00.1) Error (fake.c:1): a fake failed\n"), 0o600); err != nil {
		return err
	}
	for _, script := range []string{"pre-restore", "setup-namespaces", "post-setup-namespaces", "post-restore", "pre-resume", "post-resume"} {
		if script == set["fail"] {
			return errors.New("told to")
		}
		if script == set["skip"] {
			continue
		}
		n := wire.AppendNum(wire.AppendString(nil, 1, script), 2, uint64(child.Process.Pid))
		b := wire.AppendBytes(wire.AppendNum(wire.AppendNum(nil, 1, 6), 2, 1), 5, n)
		if _, err := unix.Write(3, b); err != nil {
			return err
		}
		if _, err := unix.Read(3, buf); err != nil {
			return err
		}
	}
	resp := wire.AppendBytes(wire.AppendNum(wire.AppendNum(nil, 1, 2), 2, 1), 4, wire.AppendNum(nil, 1, uint64(child.Process.Pid)))
	_, err = unix.Write(3, resp)
	return err
}

// fake is a world with a fake CRIU and images it doesn't look at.
type fake struct {
	*world
	image string
	flags uint64
	pid   string
	words []string
}

func newFake(t *testing.T) *fake {
	w := newWorld(t)
	f := &fake{world: w, image: filepath.Join(w.dir, "image"), pid: filepath.Join(w.dir, "pid")}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(w.dir, "bin")
	err = errors.Join(os.Mkdir(bin, 0o755), os.Symlink(self, filepath.Join(bin, "criu")), os.Mkdir(f.image, 0o700),
		os.WriteFile(filepath.Join(f.image, descriptorsFile), []byte(`["/dev/null","/dev/null","/dev/null"]`), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	// What it restores is root with all capabilities in namespaces of its own.
	s := w.spec
	s.Process.NoNewPrivileges = false
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: linux.CapabilityNames(), Permitted: linux.CapabilityNames(), Effective: linux.CapabilityNames()}
	s.Linux.Seccomp = nil
	s.Linux.Namespaces = nil
	for _, kind := range []specs.LinuxNamespaceType{specs.MountNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.NetworkNamespace} {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind})
		flag, _ := spec.NamespaceFlag(kind)
		f.flags |= flag
	}
	return f
}

func (f *fake) restore() (*Container, error) {
	f.t.Helper()
	words := append([]string{fmt.Sprint("flags=", f.flags), "pid=" + f.pid}, f.words...)
	f.t.(*testing.T).Setenv(fakeEnv, strings.Join(words, " "))
	return Restore(context.Background(), f.options("restored", nil), CheckpointOptions{ImagePath: f.image})
}

// gone checks that nothing is left of a restore that failed.
func (f *fake) gone() {
	f.t.Helper()
	if _, err := Load(f.state(), "restored"); !errors.Is(err, ErrNotFound) {
		f.t.Errorf("left after a failure: %v", err)
	}
	text, err := os.ReadFile(f.pid)
	if err != nil {
		f.t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		f.t.Fatal(err)
	}
	if err := unix.Kill(pid, 0); err != unix.ESRCH {
		f.t.Errorf("process %d is left: %v", pid, err)
		unix.Kill(pid, unix.SIGKILL)
		var ws unix.WaitStatus
		unix.Wait4(pid, &ws, 0, nil)
	}
}

func TestRestoreAsConfigured(t *testing.T) {
	f := newFake(t)
	c, err := f.restore()
	if err != nil {
		t.Fatal(err)
	}
	reapLater(t, c.InitPid())
	if st, err := c.Status(); err != nil || st != Running {
		t.Errorf("status %s, %v", st, err)
	}
}

// Hazard class T: what the images say of namespaces, capabilities and filters is CRIU's law, so a checkpoint from
// elsewhere could run as root of the host.
func TestRestoreTakesNoPowerFromCheckpoint(t *testing.T) {
	few := []string{"CAP_CHOWN", "CAP_KILL"}
	for name, c := range map[string]struct {
		change func(f *fake)
		want   string
	}{
		"network of the host": {func(f *fake) { f.flags &^= unix.CLONE_NEWNET }, "host's net namespace"},
		"pids of the host":    {func(f *fake) { f.flags &^= unix.CLONE_NEWPID }, "host's pid namespace"},
		"mounts of the host":  {func(f *fake) { f.flags &^= unix.CLONE_NEWNS }, "host's mnt namespace"},
		"no user namespace": {func(f *fake) {
			f.spec.Linux.Namespaces = append(f.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			f.spec.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
			f.spec.Linux.GIDMappings = f.spec.Linux.UIDMappings
		}, "other mappings"},
		"capabilities": {func(f *fake) {
			f.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: few, Permitted: few, Effective: few}
		}, "capabilities that the configuration does not give"},
		"bounding set": {func(f *fake) { f.spec.Process.Capabilities.Bounding = few }, "CapBnd"},
		"no_new_privs": {func(f *fake) { f.spec.Process.NoNewPrivileges = true }, "new privileges"},
		"seccomp": {func(f *fake) {
			f.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
				{Names: []string{"mkdir"}, Action: specs.ActErrno}}}
		}, "no seccomp filter"},
		"another namespace than the one to join": {func(f *fake) {
			i := slices.IndexFunc(f.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.IPCNamespace })
			f.spec.Linux.Namespaces[i].Path = "/proc/self/ns/ipc"
		}, "not in the ipc namespace"},
		"not looked at": {func(f *fake) { f.words = []string{"skip=pre-resume"} }, "too old"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c.change(f)
			got, err := f.restore()
			if err == nil {
				reapLater(t, got.InitPid())
				t.Fatal("restored")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q, wanted one with %q", err, c.want)
			}
			f.gone()
		})
	}
}

// An image directory from elsewhere has links and pipes where files are expected.
func TestRestoreFollowsNoLinkInImages(t *testing.T) {
	f := newFake(t)
	victim := filepath.Join(f.dir, "victim")
	if err := os.WriteFile(victim, []byte(`["pipe:[1]","pipe:[1]","pipe:[1]"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(f.image, "restore.log")); err != nil {
		t.Fatal(err)
	}
	c, err := f.restore()
	if err != nil {
		t.Fatal(err)
	}
	reapLater(t, c.InitPid())
	if err := c.Delete(true); err != nil {
		t.Fatal(err)
	}
	note := filepath.Join(f.image, descriptorsFile)
	for kind, put := range map[string]func() error{
		"link": func() error { return os.Symlink(victim, note) },
		"fifo": func() error { return unix.Mkfifo(note, 0o600) },
	} {
		if err := errors.Join(os.Remove(note), put()); err != nil {
			t.Fatal(err)
		}
		if c, err := f.restore(); err == nil {
			reapLater(t, c.InitPid())
			t.Errorf("%s: restored", kind)
			c.Delete(true)
		}
		if log := logErrors(note); log != nil {
			t.Errorf("%s: read %q", kind, log)
		}
	}
	// Saving replaces what is there.
	if err := errors.Join(os.Remove(note), os.Symlink(victim, note)); err != nil {
		t.Fatal(err)
	}
	saved := &Container{rec: record{Stdio: [3]string{"pipe:[2]", "pipe:[3]", "pipe:[4]"}}}
	if err := saved.writeDescriptors(f.image); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(victim); err != nil || !strings.Contains(string(text), "pipe:[1]") {
		t.Errorf("behind the link: %s, %v", text, err)
	}
	if st, err := os.Lstat(note); err != nil || !st.Mode().IsRegular() {
		t.Errorf("the note: %v, %v", st, err)
	}
}

// What CRIU does not save is not silently lost.
func TestLandlockIsNotSaved(t *testing.T) {
	f := newFake(t)
	c := f.start()
	f.spec.Annotations = map[string]string{landlock.Annotation: "{}"}
	c.spec = f.spec // as if it had been made so, on a kernel that may have no Landlock
	for what, err := range map[string]error{
		"checkpoint": c.Checkpoint(context.Background(), CheckpointOptions{ImagePath: filepath.Join(f.dir, "saved")}),
		"restore":    func() error { _, err := f.restore(); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), landlock.Annotation) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Nothing is made of what can't be followed.
func TestRestoreNeedsGroup(t *testing.T) {
	f := newFake(t)
	o := f.options("restored", nil)
	o.NoCgroup = true
	if _, err := Restore(context.Background(), o, CheckpointOptions{ImagePath: f.image}); err == nil || !strings.Contains(err.Error(), "without a control group") {
		t.Errorf("error %v", err)
	}
	if _, err := Load(f.state(), "restored"); !errors.Is(err, ErrNotFound) {
		t.Errorf("left after a failure: %v", err)
	}
}

// A pod's name is not what a checkpoint was called, also if restoring fails after CRIU has set that.
func TestFailedRestoreLeavesHostname(t *testing.T) {
	f := newFake(t)
	pod := exec.Command("/bin/busybox", "sleep", "1000")
	pod.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUTS, Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // whose end is the signal's reason
	defer runtime.UnlockOSThread()
	if err := pod.Start(); err != nil {
		t.Fatal(err)
	}
	defer pod.Wait()
	defer pod.Process.Kill()
	path := fmt.Sprintf("/proc/%d/ns/uts", pod.Process.Pid)
	uts, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer uts.Close()
	if err := linux.InNamespace(uts, unix.CLONE_NEWUTS, func() error { return unix.Sethostname([]byte("pod")) }); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(f.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UTSNamespace })
	f.spec.Linux.Namespaces[i].Path = path
	f.flags &^= unix.CLONE_NEWUTS
	f.words = []string{"hostname=saved", "uts=" + path, "fail=post-restore"}
	if c, err := f.restore(); err == nil {
		reapLater(t, c.InitPid())
		t.Fatal("restored")
	}
	f.gone()
	var names unix.Utsname
	if err := linux.InNamespace(uts, unix.CLONE_NEWUTS, func() error { return unix.Uname(&names) }); err != nil {
		t.Fatal(err)
	}
	want(t, "name", unix.ByteSliceToString(names.Nodename[:]), "pod")
}
