package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"cale/test/images"
)

func TestNetworks(t *testing.T) {
	b := newBench(t)
	s := sh("exec httpd -f -p 80 -h /etc")
	s.Name = "server"
	s.Network = Network{Mode: "bridge", Publish: []Publish{{Port: Port{80, "tcp"}, HostIP: netip.MustParseAddr("127.0.0.1")}}}
	id := b.start(s)
	ep := b.inspect(id).Endpoints["bridge"]
	if len(ep.Published) != 1 || ep.Published[0].HostPort == 0 || !ep.IPv4.IsValid() {
		t.Fatalf("endpoint %+v", ep)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", ep.Published[0].HostPort)
	b.until("the published port", func() bool {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	out, code := b.run(Spec{Cmd: []string{"wget", "-q", "-O-", "http://" + ep.IPv4.Addr().String() + "/passwd"}, Network: Network{Mode: "bridge"}})
	if code != 0 || !strings.Contains(out, "root:x:0:0") {
		t.Errorf("between containers: %q, %d", out, code)
	}
	out, code = b.run(Spec{Cmd: []string{"wget", "-q", "-O-", "http://127.0.0.1/group"}, Network: Network{Mode: "container:server"}})
	if code != 0 || !strings.Contains(out, "root:x:0") {
		t.Errorf("shared namespace: %q, %d", out, code)
	}
	// https://github.com/moby/moby/issues/49501
	s.Name, s.Restart = "other", Restart{Name: "always"}
	s.Network.Publish[0].HostPort = ep.Published[0].HostPort
	other := b.create(s)
	if err := b.Start(ctx, other, StartOptions{}); err == nil || !strings.Contains(err.Error(), "port is already allocated") {
		t.Errorf("busy port: %v", err)
	}
	if i := b.inspect(other); i.State.Status != Created || i.Restarts != 0 {
		t.Errorf("after a busy port: %+v", i.State)
	}
}

func TestUserNetwork(t *testing.T) {
	b := newBench(t)
	id, _, err := b.NetworkCreate(ctx, NetworkSpec{Name: "net1"})
	if err != nil {
		t.Fatal(err)
	}
	s := sh("exec sleep 1000")
	s.Name, s.Network.Mode = "known", "net1"
	c := b.start(s)
	out, code := b.run(Spec{Cmd: []string{"ping", "-c1", "-W5", "known"}, Network: Network{Mode: "net1"}})
	if code != 0 {
		t.Errorf("ping by name: %q, %d", out, code)
	}
	if err := b.NetworkRemove(ctx, "net1"); !errors.Is(err, ErrForbidden) {
		t.Errorf("remove of a network in use: %v", err)
	}
	if err := b.NetworkConnect(ctx, "bridge", c, NetworkEndpoint{}); err != nil {
		t.Errorf("connect: %v", err)
	}
	if eps := b.inspect(c).Endpoints; len(eps) != 2 {
		t.Errorf("endpoints %v", eps)
	}
	if err := b.NetworkDisconnect(ctx, "bridge", c, false); err != nil {
		t.Errorf("disconnect: %v", err)
	}
	if err := b.Remove(ctx, c, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if err := b.NetworkRemove(ctx, id); err != nil {
		t.Errorf("remove: %v", err)
	}
}

func TestSharing(t *testing.T) {
	b := newBench(t)
	s := sh("echo shared > /dev/shm/f; exec sleep 1000")
	s.Name, s.IpcMode = "donor", "shareable"
	b.start(s)
	s = sh("while ! cat /dev/shm/f; do sleep 0.1; done; ps | grep -c 'sleep 1000'; hostname")
	s.IpcMode, s.PidMode, s.Hostname = "container:donor", "container:donor", "myhost"
	out, _ := b.run(s)
	if !strings.Contains(out, "shared\n") || !strings.Contains(out, "myhost\n") {
		t.Errorf("output %q", out)
	}
	s = sh("readlink /proc/self/ns/pid; readlink /proc/self/ns/net; readlink /proc/self/ns/uts")
	s.PidMode, s.Network.Mode, s.UTSMode = "host", "host", "host"
	out, _ = b.run(s)
	for _, ns := range []string{"pid", "net", "uts"} {
		own, _ := os.Readlink("/proc/self/ns/" + ns)
		if !strings.Contains(out, own) {
			t.Errorf("host's %s namespace %s not in %q", ns, own, out)
		}
	}
}

func TestIsolation(t *testing.T) {
	b := newBench(t)
	s := sh(`grep Cap /proc/self/status; grep Seccomp: /proc/self/status; touch /proc/sys/kernel/x; id; ulimit -n; cat /etc/hosts /etc/hostname; ls -d /.dockerenv; cat /proc/kcore | head -c1 | wc -c; cat /proc/self/cgroup`)
	s.User, s.Security.GroupAdd, s.Hostname = "user", []string{"999"}, "isolated"
	s.Resources.Ulimits = []Ulimit{{"nofile", 100, 200}}
	out, _ := b.run(s)
	for _, want := range []string{"CapEff:\t0000000000000000", "CapBnd:\t00000000a80425fb", "Seccomp:\t2", "uid=1000(user) gid=1000(user)",
		"100(users)", "1001(extra)", "999", "\n100\n", "isolated\n", "/.dockerenv", "127.0.0.1\tlocalhost"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %q", want, out)
		}
	}
	s = sh("grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; ls /dev | wc -l; touch /sys/fs/x 2>&1 | grep -c Read-only")
	s.Security.Privileged = true
	out, _ = b.run(s)
	if !strings.Contains(out, "Seccomp:\t0") {
		t.Errorf("privileged: %q", out)
	}
	// https://github.com/moby/moby/issues/47499
	s = sh("chown 1 /tmp; echo $?")
	s.Security.Privileged = true
	s.Security.Seccomp = `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chown","fchown","fchownat","lchown"],"action":"SCMP_ACT_ERRNO"}]}`
	if out, _ := b.run(s); !strings.Contains(out, "1\n") {
		t.Errorf("privileged with a profile: %q", out)
	}
	s = sh("touch /x; touch /tmp/x && echo tmp")
	s.Security.ReadOnly, s.Tmpfs = true, map[string]string{"/tmp": ""}
	if out, _ := b.run(s); !strings.Contains(out, "Read-only file system") || !strings.Contains(out, "tmp\n") {
		t.Errorf("read-only: %q", out)
	}
}

func TestLimits(t *testing.T) {
	b := newBench(t)
	s := sh("cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max")
	pids := int64(33)
	s.Resources = Resources{Memory: 64 << 20, Pids: &pids, NanoCPUs: 5e8}
	out, _ := b.run(s)
	for _, want := range []string{"67108864", "33", "50000"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %q", want, out)
		}
	}
	s = sh("exec sleep 1000")
	id := b.start(s)
	if _, err := b.Update(ctx, id, Resources{Memory: 32 << 20}, nil); err != nil {
		t.Fatal(err)
	}
	if st, err := b.Stats(ctx, id); err != nil || st.Memory.Limit != 32<<20 {
		t.Errorf("after update: %+v, %v", st.Memory, err)
	}
	s = sh("x=a; while :; do x=$x$x; done")
	s.Resources.Memory = 16 << 20
	id = b.create(s)
	exit, err := b.Wait(ctx, id, "next-exit")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(ctx, id, StartOptions{}); err != nil {
		t.Fatal(err)
	}
	<-exit
	if i := b.inspect(id); !i.State.OOMKilled {
		t.Errorf("out of memory: %+v", i.State)
	}
}

// Images made of many layers must not run into the one page mount(2) takes.
func TestManyLayers(t *testing.T) {
	b := newBench(t)
	files, err := images.BusyboxFiles()
	if err != nil {
		t.Skip(err)
	}
	layers := [][]images.File{files}
	for i := range 127 {
		layers = append(layers, []images.File{{Name: fmt.Sprintf("etc/layer%d", i), Data: []byte("x")}})
	}
	img, err := images.New(images.Spec{Layers: layers, Compression: "none"})
	if err != nil {
		t.Fatal(err)
	}
	b.addImage("many", img)
	s := sh("ls /etc | grep -c layer")
	s.Image = "many"
	if out, code := b.run(s); out != "127\n" {
		t.Errorf("output %q, %d", out, code)
	}
}

// TestDockersRuntime: what was written for Docker names its default runtime, which is there only if somebody installed it.
func TestDockersRuntime(t *testing.T) {
	b := newBench(t)
	t.Setenv("PATH", t.TempDir())
	for _, name := range []string{"runc", "io.containerd.runc.v2"} {
		s := sh("echo by ours")
		s.Runtime = name
		if out, code := b.run(s); out != "by ours\n" || code != 0 {
			t.Errorf("%s: output %q, %d", name, out, code)
		}
	}
	for _, name := range []string{"crun", "io.containerd.kata.v2"} {
		if _, err := b.runtimeFor(name); err == nil {
			t.Errorf("%s, which is not there, is taken", name)
		}
	}
}

func TestForeignRuntime(t *testing.T) {
	if _, err := exec.LookPath("runc"); err != nil {
		t.Skip("no runc")
	}
	b := newBench(t)
	for _, name := range []string{"runc", "io.containerd.runc.v2"} {
		if _, err := b.runtimeFor(name); err != nil {
			t.Logf("%s: %v", name, err)
			continue
		}
		s := sh("echo from another; exit 3")
		s.Runtime = name
		if out, code := b.run(s); out != "from another\n" || code != 3 {
			t.Errorf("%s: output %q, %d", name, out, code)
		}
		s = sh("trap 'echo ended; exit 4' TERM; echo up; while :; do sleep 0.1; done")
		s.Runtime, s.Network.Mode = name, "bridge"
		id := b.start(s)
		if out, code := b.exec(id, ExecSpec{Cmd: []string{"sh", "-c", "cat /proc/1/comm; exit 5"}}); out != "sh\n" || code != 5 {
			t.Errorf("%s: exec: %q, %d", name, out, code)
		}
		if err := b.Pause(ctx, id); err != nil {
			t.Errorf("%s: pause: %v", name, err)
		}
		if err := b.Unpause(ctx, id); err != nil {
			t.Errorf("%s: unpause: %v", name, err)
		}
		if st, err := b.Stats(ctx, id); err != nil || st.Pids.Current == 0 {
			t.Errorf("%s: stats: %+v, %v", name, st.Pids, err)
		}
		b.until("its output", func() bool { return strings.Contains(b.logs(id, LogOptions{Stdout: true, Tail: -1}), "up") })
		if err := b.Stop(ctx, id, StopOptions{}); err != nil {
			t.Errorf("%s: stop: %v", name, err)
		}
		if i := b.inspect(id); i.State.ExitCode != 4 || !strings.Contains(b.logs(id, LogOptions{Stdout: true, Tail: -1}), "ended") {
			t.Errorf("%s: after its stop: %+v", name, i.State)
		}
	}
}

// https://github.com/moby/moby/issues/40446
func TestTmpfsOverImageVolume(t *testing.T) {
	b := newBench(t)
	files, err := images.BusyboxFiles()
	if err != nil {
		t.Skip(err)
	}
	files = append(files, images.File{Name: "data/", Mode: 0o750, UID: 33}, images.File{Name: "data/seed", Data: []byte("seed\n")})
	img, err := images.New(images.Spec{Layers: [][]images.File{files}, Run: images.Run{Volumes: map[string]struct{}{"/data": {}}}})
	if err != nil {
		t.Fatal(err)
	}
	b.addImage("withvolume", img)
	s := sh("mount | grep /data")
	s.Image, s.Tmpfs = "withvolume", map[string]string{"/data": ""}
	if out, _ := b.run(s); !strings.HasPrefix(out, "tmpfs on /data") {
		t.Errorf("output %q", out)
	}
	if v, _ := b.Volumes(ctx); len(v) != 0 {
		t.Errorf("volumes %v", v)
	}
	s = sh("cat /data/seed; stat -c '%u %a' /data")
	s.Image = "withvolume"
	if out, _ := b.run(s); out != "seed\n33 750\n" {
		t.Errorf("output %q", out)
	}
	if v, _ := b.Volumes(ctx); len(v) != 1 || !v[0].Anonymous {
		t.Errorf("volumes %v", v)
	}
}

func TestManyAtOnce(t *testing.T) {
	b := newBench(t)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			s := sh("echo hi")
			s.AutoRemove = true
			if i%2 == 0 {
				s.Network.Mode = "bridge"
			}
			ctx, cancel := context.WithTimeout(ctx, 2*patience)
			defer cancel()
			id, _, err := b.Create(ctx, Spec{Image: "busybox", Cmd: s.Cmd, AutoRemove: true, Network: s.Network})
			if err != nil {
				t.Errorf("create: %v", err)
				return
			}
			gone, err := b.Wait(ctx, id, "removed")
			if err != nil {
				t.Errorf("wait: %v", err)
				return
			}
			if err := b.Start(ctx, id, StartOptions{}); err != nil {
				t.Errorf("start: %v", err)
				return
			}
			select {
			case <-gone:
			case <-ctx.Done():
				t.Error("not removed in time")
			}
		})
	}
	wg.Wait()
	left, _ := filepath.Glob(filepath.Join(b.conf.Root, "containers", "*"))
	if len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestEngineAgain: an engine knows at once that another one has the instance, so that a program can leave silently.
func TestEngineAgain(t *testing.T) {
	b := newBench(t)
	if e, err := Open(ctx, b.conf); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "another caled already serves") {
		t.Errorf("a second engine: %v, %v", e, err)
	}
}

// TestRefusedAtCreation: values that no command line sends, but other clients do.
func TestRefusedAtCreation(t *testing.T) {
	b := newBench(t)
	address := netip.MustParseAddr("10.88.0.77")
	for want, s := range map[string]Spec{
		"SHM size can not be less than 0":                                                                          {ShmSize: -1},
		"invalid stop timeout -5":                                                                                  {StopTimeout: new(-5)},
		"user specified IP address is supported on user defined networks only":                                     {Network: Network{IPv4: address}},
		"network-scoped aliases are only supported for user-defined networks":                                      {Network: Network{Mode: "none", Aliases: []string{"x"}}},
		"conflicting options: cannot attach both user-defined and non-user-defined network-modes":                  {Network: Network{Mode: "host", Others: []NetworkEndpoint{{Network: "n"}}}},
		"was found but does not match the specified platform: wanted linux/s390x, actual: linux/" + runtime.GOARCH: {Platform: "linux/s390x"},
	} {
		s.Image, s.Cmd = "busybox", []string{"true"}
		if _, _, err := b.Create(ctx, s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not %q", err, want)
		}
	}
	if _, _, err := b.Create(ctx, Spec{Image: "busybox", Cmd: []string{"true"}, StopTimeout: new(-1)}); err != nil {
		t.Errorf("a stop that waits for ever: %v", err)
	}
}

// TestNumberSet: lists of processors, as the kernel writes them and users do.
func TestNumberSet(t *testing.T) {
	for list, want := range map[string]int{"0": 1, "0-3": 4, "0-1,7": 3, "3,3": 1, "": -1, "a": -1, "3-1": -1, "-1": -1, "0-70000": -1, "9000": -1, "1-": -1} {
		set, err := numberSet(list)
		if got := len(set); err == nil && got != want || err != nil && want != -1 {
			t.Errorf("%q: %d, %v, not %d", list, got, err, want)
		}
	}
}
