package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cale/runtime/cgroup"
	"cale/runtime/dbus"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// systemd stands for the real one, behind a real bus: it makes a scope's group with its processes in it, as systemd does
// on every hierarchy that it has.
type systemd struct {
	c     *dbus.Conn
	slice string // its path below the hierarchies
	// stranger is anyone else on the bus, who says what only systemd may.
	stranger *dbus.Conn

	mu    sync.Mutex
	calls []string
	props map[string]any
}

func newSystemd(t *testing.T, slice string) *systemd {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("needs dbus-daemon (Debian: dbus-daemon)")
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "bus")
	config := `<busconfig><type>system</type><listen>unix:path=` + socket + `</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/>
<allow send_type="method_return" send_requested_reply="false"/><allow send_type="error" send_requested_reply="false"/>
<allow receive_type="method_return" receive_requested_reply="false"/><allow receive_type="error" receive_requested_reply="false"/></policy></busconfig>`
	if err := os.WriteFile(dir+"/config", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--config-file", dir+"/config", "--nofork", "--nopidfile", "--print-address")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	out.Read(make([]byte, 200)) // its address: it listens
	s := &systemd{slice: slice}
	if s.c, err = dbus.Serve(socket, "org.freedesktop.systemd1", time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if s.stranger, err = dbus.Serve(socket, "", time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+socket)
	go s.serve()
	t.Cleanup(func() { s.c.Close(); s.stranger.Close() })
	return s
}

func (s *systemd) serve() {
	const path, manager = "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"
	for job := uint32(1); ; job++ {
		m, err := s.c.Next()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.calls = append(s.calls, m.Member)
		s.mu.Unlock()
		switch m.Member {
		case "StartTransientUnit":
			err = s.startUnit(m.Body[0].(string), m.Body[2].([]any))
		case "StopUnit":
			err = s.stopUnit(m.Body[0].(string))
		case "SetUnitProperties":
			s.note(m.Body[2].([]any))
			s.c.Reply(m, "")
			continue
		default:
			s.c.Reply(m, "")
			continue
		}
		if err != nil {
			s.c.Refuse(m, &dbus.Error{Name: "org.freedesktop.DBus.Error.Failed", Text: err.Error()})
			continue
		}
		// Another's job comes in between.
		s.c.Emit("", path, manager, "JobRemoved", "uoss", job+1000, "/org/freedesktop/systemd1/job/x", "other.service", "failed")
		name := fmt.Sprintf("/org/freedesktop/systemd1/job/%d", job)
		s.lie(m, name)
		s.c.Reply(m, "o", name)
		s.lie(m, name)
		s.c.Emit("", path, manager, "JobRemoved", "uoss", job, name, m.Body[0], "done")
	}
}

// lie has a stranger answer a call, and tell of the job's end, and send too much.
func (s *systemd) lie(m *dbus.Message, job string) {
	const path, manager = "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"
	s.stranger.Reply(m, "o", "/stranger")
	s.stranger.Refuse(m, &dbus.Error{Name: "org.freedesktop.DBus.Error.Failed", Text: "a lie"})
	s.stranger.Emit("", path, manager, "JobRemoved", "uoss", uint32(1), job, "a lie", "failed")
	s.stranger.Emit(m.Sender, path, manager, "JobRemoved", "uoss", uint32(1), job, "a lie", "failed")
	s.stranger.Emit(m.Sender, path, manager, "JobRemoved", "uoss", uint32(1), job, strings.Repeat("x", 2<<20), "failed")
	s.stranger.Flush()
	// What is systemd's is of another object, or another interface.
	s.c.Emit(m.Sender, path+"/x", manager, "JobRemoved", "uoss", uint32(1), job, "other", "failed")
	s.c.Emit(m.Sender, path, manager+"X", "JobRemoved", "uoss", uint32(1), job, "other", "failed")
}

func (s *systemd) dirs(unit string) []string {
	var dirs []string
	for _, root := range []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(root + "/cgroup.procs"); err == nil {
			dirs = append(dirs, root+s.slice+"/"+unit)
		}
	}
	return dirs
}

// note keeps the properties that were sent last.
func (s *systemd) note(props []any) map[string]any {
	got := map[string]any{}
	for _, p := range props {
		pair := p.([]any)
		got[pair[0].(string)] = pair[1].(dbus.Variant).Value
	}
	s.mu.Lock()
	s.props = got
	s.mu.Unlock()
	return got
}

func (s *systemd) startUnit(unit string, props []any) error {
	got := s.note(props)
	pids, _ := got["PIDs"].([]any)
	if len(pids) != 1 {
		return fmt.Errorf("Scope has no PIDs. Refusing.")
	}
	for _, dir := range s.dirs(unit) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(dir+"/cgroup.procs", fmt.Append(nil, pids[0]), 0); err != nil {
			return err
		}
	}
	return nil
}

func (s *systemd) stopUnit(unit string) error {
	for _, dir := range s.dirs(unit) {
		for range 100 {
			if err := unix.Rmdir(dir); err == nil || err == unix.ENOENT {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

// TestSystemdCgroup: a container in a scope of systemd's, from its making to its end.
func TestSystemdCgroup(t *testing.T) {
	w := newWorld(t)
	slice := "caletest" + random()
	s := newSystemd(t, "/"+slice+".slice/"+slice+"-sub.slice")
	t.Cleanup(func() {
		if g, err := cgroup.Open("/"+slice+".slice", cgroup.Options{Parent: true}); err == nil && g.Exists() {
			if err := g.Destroy(); err != nil {
				t.Error(err)
			}
		}
	})
	w.spec.Linux.CgroupsPath = slice + "-sub.slice:pre:one"
	limit, shares, pids, quota := int64(64<<20), uint64(512), int64(20), int64(50000)
	w.spec.Linux.Resources = &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &limit}, CPU: &specs.LinuxCPU{Shares: &shares, Quota: &quota},
		Pids: &specs.LinuxPids{Limit: &pids},
	}
	w.spec.Process.Args = []string{"sleep", "1000"}
	c := w.start(func(o *Options) { o.SystemdCgroup = true })
	group, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.InitPid()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(group)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if want := s.slice + "/pre-one.scope"; f[2] != want && f[2] != "/" {
			t.Errorf("init is in %q, not in %s", line, want)
		}
	}
	g, err := c.Cgroup()
	if err != nil {
		t.Fatal(err)
	}
	if list, err := g.Pids(); err != nil || !slices.Equal(list, []int{c.InitPid()}) {
		t.Errorf("the group has %v, %v, not init alone", list, err)
	}
	s.mu.Lock()
	if s.props["Slice"] != slice+"-sub.slice" || s.props["Delegate"] != true || s.props["TasksMax"] != uint64(20) ||
		s.props["CPUQuotaPerSecUSec"] != uint64(500000) {
		t.Errorf("properties: %v", s.props)
	}
	s.mu.Unlock()
	if st, err := c.Stats(); err != nil || st.Memory == nil || st.Memory.Limit != uint64(limit) {
		t.Errorf("stats: %+v, %v", st, err)
	}
	more := int64(96 << 20)
	if err := c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &more}}); err != nil {
		t.Error(err)
	}
	// A period alone leaves the quota, which is another share then; a quota of 0 is none given.
	period, none := uint64(200000), int64(0)
	if err := c.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Period: &period, Quota: &none}}); err != nil {
		t.Error(err)
	}
	s.mu.Lock()
	if s.props["CPUQuotaPeriodUSec"] != uint64(200000) || s.props["CPUQuotaPerSecUSec"] != uint64(250000) {
		t.Errorf("properties for a period: %v", s.props)
	}
	s.mu.Unlock()
	// What the kernel would refuse is not sent.
	less := limit - 4096
	if err := c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &less}}); err == nil || !strings.Contains(err.Error(), "must not be less than memory.limit") {
		t.Errorf("less swap than memory: %v", err)
	}
	s.mu.Lock()
	if s.props["MemoryLimit"] != nil || s.props["MemoryMax"] != nil {
		t.Errorf("properties of a refused change: %v", s.props)
	}
	s.mu.Unlock()
	// Another process knows it by what is on disk.
	again, err := Load(w.state(), c.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Delete(true); err != nil {
		t.Error(err)
	}
	for _, dir := range s.dirs("pre-one.scope") {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is still there", dir)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, call := range []string{"Subscribe", "StartTransientUnit", "SetUnitProperties", "StopUnit"} {
		if !slices.Contains(s.calls, call) {
			t.Errorf("systemd was not asked for %s: %v", call, s.calls)
		}
	}
}

// Without systemd the error says what is missing.
func TestSystemdCgroupWithoutSystemd(t *testing.T) {
	w := newWorld(t)
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+w.dir+"/nosuch")
	if _, err := os.Stat("/run/systemd/private"); err == nil {
		t.Skip("systemd runs here")
	}
	w.spec.Linux.CgroupsPath = ""
	_, _, err := w.run("true", func(o *Options) { o.SystemdCgroup = true })
	if err == nil || !strings.Contains(err.Error(), "systemd cgroup driver: systemd cannot be reached") {
		t.Errorf("error: %v", err)
	}
	w.spec.Linux.CgroupsPath = "/a/b"
	_, _, err = w.run("true", func(o *Options) { o.SystemdCgroup = true })
	if err == nil || !strings.Contains(err.Error(), `expected cgroupsPath to be of format "slice:prefix:name"`) {
		t.Errorf("error: %v", err)
	}
}
