package cgroup

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestMain doubles as the processes the tests put into groups.
func TestMain(m *testing.M) {
	if f := children[os.Getenv("CALE_TEST_CGROUP")]; f != nil {
		f()
		return
	}
	os.Exit(m.Run())
}

var children = map[string]func(){
	"sleep": func() { time.Sleep(time.Hour) },
	// work takes a little of the processor and of memory, again and again.
	"work": func() {
		for range 1000 {
			hoard = append(hoard, make([]byte, 4096))
			hoard[len(hoard)-1][0] = 1
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Hour)
	},
	// fork starts processes that start more, as fast as it can.
	"fork": func() {
		for {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), "CALE_TEST_CGROUP=sleep")
			if cmd.Start() != nil {
				time.Sleep(time.Millisecond)
			}
		}
	},
	// join enters the group on its own, as a container's first process does, and shows where it is.
	"join": func() {
		for _, file := range strings.Fields(os.Getenv("CALE_TEST_FILES")) {
			if err := os.WriteFile(file, []byte("0"), 0); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
		}
	},
	// eat takes memory until it is stopped from doing so.
	"eat": func() {
		time.Sleep(100 * time.Millisecond)
		for {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			hoard = append(hoard, b)
		}
	},
}

var hoard [][]byte

// newGroup makes a group of the kernel's, with a name of its own.
func newGroup(t testing.TB, res *specs.LinuxResources) *Cgroup {
	t.Helper()
	c := openGroup(t)
	if err := c.Create(res); err != nil {
		t.Fatal(err)
	}
	return c
}

func openGroup(t testing.TB) *Cgroup {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	parent := "/cale-test-" + strings.ToLower(rand.Text()[:10])
	c, err := Open(parent+"/c", Options{})
	if err != nil {
		t.Skip(err)
	}
	if unix.Access(c.groups[0].mount, unix.W_OK) != nil {
		t.Skip("the cgroup hierarchy is read-only")
	}
	t.Cleanup(func() {
		p, err := Open(parent, Options{})
		if err == nil {
			err = errors.Join(p.Kill(), p.Destroy())
		}
		if err != nil {
			t.Error(err)
		}
	})
	return c
}

// start runs a child and puts it into the group.
func start(t testing.TB, c *Cgroup, what string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "CALE_TEST_CGROUP="+what)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if c != nil {
		if err := c.AddProc(cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	return cmd
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

func p[T any](v T) *T { return &v }

func TestLifeOfAGroup(t *testing.T) {
	c := newGroup(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: p(int64(50))}})
	if !c.Exists() {
		t.Fatal("a created group does not exist")
	}
	if err := c.Create(nil); err != nil {
		t.Errorf("again: %v", err)
	}
	a, b := start(t, c, "work"), start(t, c, "work")
	pids, err := c.Pids()
	if err != nil || len(pids) != 2 {
		t.Fatalf("got %v, %v, want two processes", pids, err)
	}
	_, memory := c.dir("memory")
	// Only what they do from now on counts here.
	eventually(t, "counters that move", func() bool {
		s, err := c.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if s.Pids != nil && (s.Pids.Current < 2 || s.Pids.Limit != 50) {
			t.Errorf("pids: %+v", s.Pids)
		}
		if memory && (s.Memory == nil || s.Memory.Limit != noLimit) {
			t.Errorf("memory: %+v", s.Memory)
		}
		return s.CPU != nil && s.CPU.Total > 0 && (!memory || s.Memory.Usage > 0)
	})
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = a.Process.Wait()
	_, _ = b.Process.Wait()
	if err := c.Destroy(); err != nil {
		t.Fatal(err)
	}
	if c.Exists() {
		t.Error("a destroyed group exists")
	}
	if err := c.Destroy(); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := c.Kill(); err != nil {
		t.Errorf("kill in a destroyed group: %v", err)
	}
	if pids, err := c.Pids(); len(pids) != 0 || err != nil {
		t.Errorf("pids of a destroyed group: %v, %v", pids, err)
	}
}

func TestFreeze(t *testing.T) {
	c := newGroup(t, nil)
	cmd := start(t, c, "sleep")
	for range 3 {
		if err := c.Freeze(); err != nil {
			t.Fatal(err)
		}
		if frozen, err := c.Frozen(); err != nil || !frozen {
			t.Errorf("frozen: %v, %v", frozen, err)
		}
		if err := c.Thaw(); err != nil {
			t.Fatal(err)
		}
		if frozen, err := c.Frozen(); err != nil || frozen {
			t.Errorf("thawed: %v, %v", frozen, err)
		}
	}
	if err := c.Freeze(); err != nil {
		t.Fatal(err)
	}
	// Kill has to get through to frozen processes.
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = cmd.Process.Wait()
}

func TestKillForkBomb(t *testing.T) {
	c := newGroup(t, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: p(int64(60))}})
	if _, ok := c.dir("pids"); !ok && !c.v2 {
		t.Skip("no pids controller to hold the bomb")
	}
	cmd := start(t, c, "fork")
	eventually(t, "several processes", func() bool { pids, _ := c.Pids(); return len(pids) > 5 })
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = cmd.Process.Wait()
	if err := c.Destroy(); err != nil {
		t.Fatal(err)
	}
}

// A container may have made groups of its own, frozen ones too.
func TestGroupsBelow(t *testing.T) {
	c := newGroup(t, nil)
	for _, g := range c.groups {
		if err := os.MkdirAll(g.dir+"/a/b", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := c.listing() + "/a/b"
	cmd := start(t, nil, "sleep")
	if err := os.WriteFile(dir+"/cgroup.procs", []byte(fmt.Sprint(cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	if pids, err := c.Pids(); err != nil || len(pids) != 1 || pids[0] != cmd.Process.Pid {
		t.Errorf("pids: %v, %v", pids, err)
	}
	if freezer, ok := c.dir("freezer"); ok {
		_ = os.WriteFile(freezer+"/a/b/cgroup.procs", []byte(fmt.Sprint(cmd.Process.Pid)), 0)
		_ = os.WriteFile(freezer+"/a/b/freezer.state", []byte("FROZEN"), 0)
	}
	if err := errors.Join(c.Kill(), c.Destroy()); err != nil {
		t.Error(err)
	}
}

func TestJoinByItself(t *testing.T) {
	c := newGroup(t, nil)
	fd, err := c.CloneFD()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", `for f in $CALE_TEST_FILES; do echo 0 >$f; done; cat /proc/self/cgroup`)
	cmd.Env = append(os.Environ(), "CALE_TEST_FILES="+strings.Join(c.SelfFiles(), " "))
	if fd != nil {
		defer fd.Close()
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(fd.Fd())}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := strings.Count(string(out), "/c\n"); got != len(c.groups) {
		t.Errorf("joined %d of %d hierarchies:\n%s", got, len(c.groups), out)
	}
}

func TestDevices(t *testing.T) {
	c := newGroup(t, &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		{Allow: true, Type: "c", Major: p(int64(10)), Minor: p(int64(229)), Access: "rw"},
	}})
	try := func(program string) string {
		cmd := exec.Command("/bin/sh", "-c", "read line; "+program)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := c.AddProc(cmd.Process.Pid); err != nil {
			t.Error(err)
		}
		_, _ = in.Write([]byte("go\n"))
		if err := cmd.Wait(); err != nil {
			return err.Error() + " " + out.String()
		}
		return ""
	}
	dir, err := os.MkdirTemp("/dev/shm", "cale-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := unix.Mknod(dir+"/kmsg", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 11))); err != nil {
		t.Skip("cannot make device nodes:", err)
	}
	if err := exec.Command("/bin/sh", "-c", "exec 3<>"+dir+"/kmsg").Run(); err != nil {
		t.Skip("device nodes cannot be opened there")
	}
	check := func() {
		t.Helper()
		if got := try("exec 3<>" + dir + "/kmsg"); got == "" {
			t.Error("a device that isn't allowed opens")
		}
		for _, ok := range []string{"exec 3<>/dev/null", "head -c1 /dev/urandom >/dev/null", "mknod " + dir + "/n c 1 11; rm " + dir + "/n"} {
			if got := try(ok); got != "" {
				t.Errorf("%s: %s", ok, got)
			}
		}
	}
	check()
	kmsg := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: p(int64(1)), Minor: p(int64(11)), Access: "rw"}
	if err := c.Apply(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{kmsg}}); err != nil {
		t.Fatal(err)
	}
	if got := try("exec 3<>" + dir + "/kmsg"); got != "" {
		t.Errorf("a device that was allowed later: %s", got)
	}
	if err := c.Apply(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}); err != nil {
		t.Fatal(err)
	}
	check()
	if err := c.Apply(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}}); err != nil {
		t.Fatal(err)
	}
	if got := try("exec 3<>" + dir + "/kmsg"); got != "" {
		t.Errorf("with all allowed: %s", got)
	}
}

// A limit without its controller is an error that names it, and leaves nothing behind.
func TestMissingController(t *testing.T) {
	c := openGroup(t)
	if _, ok := c.dir("rdma"); ok || c.v2 {
		t.Skip("the machine has the controller")
	}
	err := c.Create(&specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx": {HcaHandles: p(uint32(3))}}})
	if err == nil || !strings.Contains(err.Error(), "rdma") {
		t.Errorf("got %v", err)
	}
	if c.Exists() {
		t.Error("the group was left behind")
	}
}

func BenchmarkCreateDestroy(b *testing.B) {
	c := openGroup(b)
	res := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: p(int64(64 << 20))}, CPU: &specs.LinuxCPU{Shares: p(uint64(512))},
		Pids: &specs.LinuxPids{Limit: p(int64(50))}, Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
	}
	var create, destroy time.Duration
	for b.Loop() {
		began := time.Now()
		if err := c.Create(res); err != nil {
			b.Fatal(err)
		}
		made := time.Now()
		if err := c.Destroy(); err != nil {
			b.Fatal(err)
		}
		create += made.Sub(began)
		destroy += time.Since(made)
	}
	b.ReportMetric(float64(create.Microseconds())/float64(b.N), "µs/create")
	b.ReportMetric(float64(destroy.Microseconds())/float64(b.N), "µs/destroy")
}
