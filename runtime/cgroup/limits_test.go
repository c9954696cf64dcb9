package cgroup

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// fakeV2 makes a tree that looks like a cgroup2 mount: the kernel's files exist as far as they are given.
func fakeV2(t *testing.T, files map[string]string) (*Cgroup, string) {
	t.Helper()
	root := t.TempDir()
	put(t, root, "cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma misc\n")
	put(t, root, "cgroup.subtree_control", "memory pids\n")
	c, err := Open("/parent/c", Options{root: root})
	if err != nil {
		t.Fatal(err)
	}
	dir := root + "/parent/c"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		put(t, dir, name, text)
	}
	return c, dir
}

// fakeV1 makes a folder for each hierarchy.
func fakeV1(t *testing.T, names ...string) (*Cgroup, string) {
	t.Helper()
	root := t.TempDir()
	for _, name := range names {
		if err := os.MkdirAll(root+"/"+name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Open("c", Options{root: root})
	if err != nil {
		t.Fatal(err)
	}
	return c, root
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return "(none)"
	}
	return strings.TrimSuffix(string(text), "\n")
}

func wantFiles(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	for name, text := range want {
		if got := get(t, dir, name); got != text {
			t.Errorf("%s: got %q, want %q", name, got, text)
		}
	}
}

func TestPaths(t *testing.T) {
	_, root := fakeV1(t, "memory", "cpu,cpuacct", "systemd", "unified")
	for path, want := range map[string]string{
		"/a/b": "/a/b", "a/b": "/a/b", "/../../etc": "/etc", "../x": "/x", "/a/./b//c/": "/a/b/c",
	} {
		c, err := Open(path, Options{root: root})
		if err != nil {
			t.Fatal(err)
		}
		dirs := c.Dirs()
		for controller, base := range map[string]string{
			"memory": "memory", "cpu": "cpu,cpuacct", "cpuacct": "cpu,cpuacct", "name=systemd": "systemd", "": "unified",
		} {
			if got := dirs[controller]; got != root+"/"+base+want {
				t.Errorf("%s, %q: got %s", path, controller, got)
			}
		}
	}
	c, err := Open("", Options{root: root, Name: "id"})
	if err != nil || c.Dirs()["memory"] != root+"/memory/id" {
		t.Errorf("by name: %v, %v", c, err)
	}
	for _, path := range []string{"", "/", ".", "..", "a\x00b", "a\nb"} {
		if _, err := Open(path, Options{root: root}); err == nil {
			t.Errorf("%q: no error", path)
		}
	}
	if c, err := Open("a-b.slice:cale:x", Options{root: root, Systemd: true}); err != nil || c.Dirs()["memory"] != root+"/memory/a.slice/a-b.slice/cale-x.scope" && os.Geteuid() == 0 {
		t.Errorf("as systemd has it: %v, %v", c, err)
	}
}

func TestV2Limits(t *testing.T) {
	c, dir := fakeV2(t, map[string]string{"io.bfq.weight": "", "cpu.max": "max 100000\n"})
	err := c.Create(&specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: p(int64(100)), Swap: p(int64(250)), Reservation: p(int64(50))},
		CPU: &specs.LinuxCPU{Shares: p(uint64(1024)), Quota: p(int64(5000)), Period: p(uint64(10000)),
			Burst: p(uint64(100)), Cpus: "0-1", Mems: "0"},
		Pids: &specs.LinuxPids{Limit: p(int64(0))},
		BlockIO: &specs.LinuxBlockIO{
			Weight:                  p(uint16(300)),
			ThrottleReadBpsDevice:   []specs.LinuxThrottleDevice{{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 8}, Rate: 1000}},
			ThrottleWriteIOPSDevice: nil,
		},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4096}},
		Rdma:           map[string]specs.LinuxRdma{"mlx5_1": {HcaHandles: p(uint32(3)), HcaObjects: p(uint32(1000))}},
		Unified:        map[string]string{"memory.high": "90", "cgroup.max.depth": "4", "misc.max": "sev 1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, map[string]string{
		"memory.max": "100", "memory.swap.max": "150", "memory.low": "50", "cpu.weight": "100", "cpu.max": "5000 10000",
		"cpu.max.burst": "100", "cpuset.cpus": "0-1", "cpuset.mems": "0", "pids.max": "1", "io.bfq.weight": "300",
		"io.max": "8:0 rbps=1000", "hugetlb.2MB.max": "4096", "hugetlb.2MB.rsvd.max": "4096",
		"rdma.max": "mlx5_1 hca_handle=3 hca_object=1000", "memory.high": "90", "cgroup.max.depth": "4", "misc.max": "sev 1",
	})
	root := c.groups[0].mount
	wantFiles(t, root, map[string]string{"cgroup.subtree_control": "+cpuset +cpu +io +hugetlb +rdma +misc"})
	wantFiles(t, root+"/parent", map[string]string{"cgroup.subtree_control": "+cpuset +cpu +io +memory +hugetlb +pids +rdma +misc"})
	if got := get(t, dir, "devices.program"); got == "(none)" {
		t.Error("no device program was attached")
	}
}

func TestV2Updates(t *testing.T) {
	for name, tc := range map[string]struct {
		have map[string]string
		res  specs.LinuxResources
		want map[string]string
		fail string
	}{
		"nothing asked": {nil, specs.LinuxResources{Memory: &specs.LinuxMemory{}, CPU: &specs.LinuxCPU{}},
			map[string]string{"memory.max": "(none)", "cpu.max": "(none)", "cpu.weight": "(none)"}, ""},
		"unlimited": {nil, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(int64(-1))}, Pids: &specs.LinuxPids{Limit: p(int64(-1))},
			CPU: &specs.LinuxCPU{Quota: p(int64(-1))}},
			map[string]string{"memory.max": "max", "memory.swap.max": "max", "pids.max": "max", "cpu.max": "max"}, ""},
		"period only": {map[string]string{"cpu.max": "7000 100000\n"}, specs.LinuxResources{CPU: &specs.LinuxCPU{Period: p(uint64(50000))}},
			map[string]string{"cpu.max": "7000 50000"}, ""},
		"no swap beside memory": {nil, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(int64(100)), Swap: p(int64(100))}},
			map[string]string{"memory.max": "100", "memory.swap.max": "0"}, ""},
		"unlimited swap": {nil, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(int64(100)), Swap: p(int64(-1))}},
			map[string]string{"memory.max": "100", "memory.swap.max": "max"}, ""},
		"swap alone":    {nil, specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: p(int64(100))}}, nil, "memory.limit"},
		"swap too low":  {nil, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(int64(100)), Swap: p(int64(50))}}, nil, "counts both"},
		"below usage":   {map[string]string{"memory.current": "500\n"}, specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(int64(100)), CheckBeforeUpdate: p(true)}}, nil, "usage"},
		"idle":          {nil, specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: p(int64(1)), Shares: p(uint64(512))}}, map[string]string{"cpu.idle": "1", "cpu.weight": "(none)"}, ""},
		"io.weight":     {nil, specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: p(uint16(1000))}}, map[string]string{"io.weight": "10000"}, ""},
		"lifted rate":   {nil, specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleWriteBpsDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 8, Minor: 1}}}}}, map[string]string{"io.max": "8:1 wbps=max"}, ""},
		"net_cls":       {nil, specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: p(uint32(5))}}, nil, "net_cls"},
		"swappiness":    {nil, specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: p(uint64(5))}}, nil, "swappiness"},
		"real time":     {nil, specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimeRuntime: p(int64(5))}}, nil, "real-time"},
		"path in key":   {nil, specs.LinuxResources{Unified: map[string]string{"../memory.max": "1"}}, nil, "name of a cgroup file"},
		"dots in key":   {nil, specs.LinuxResources{Unified: map[string]string{"..": "1"}}, nil, ".."},
		"bad page size": {nil, specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "../2MB", Limit: 1}}}, nil, "page size"},
	} {
		t.Run(name, func(t *testing.T) {
			c, dir := fakeV2(t, tc.have)
			err := c.Apply(&tc.res)
			if tc.fail != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fail) {
					t.Errorf("got error %v, want one about %q", err, tc.fail)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantFiles(t, dir, tc.want)
		})
	}
}

func TestV1Limits(t *testing.T) {
	c, root := fakeV1(t, "memory", "cpu", "cpuset", "pids", "blkio", "devices", "net_cls", "net_prio", "hugetlb", "rdma")
	put(t, root+"/cpuset", "cpuset.cpus", "0-3\n")
	put(t, root+"/cpuset", "cpuset.mems", "0\n")
	disk := specs.LinuxBlockIODevice{Major: 8, Minor: 16}
	err := c.Create(&specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: p(int64(100)), Swap: p(int64(250)), Reservation: p(int64(50)),
			KernelTCP: p(int64(9)), Swappiness: p(uint64(0)), DisableOOMKiller: p(true)},
		CPU: &specs.LinuxCPU{Shares: p(uint64(512)), Quota: p(int64(-1)), Period: p(uint64(10000)), Burst: p(uint64(0)),
			RealtimePeriod: p(uint64(1000)), RealtimeRuntime: p(int64(500)), Idle: p(int64(0)), Cpus: "1"},
		Pids: &specs.LinuxPids{Limit: p(int64(-1))},
		BlockIO: &specs.LinuxBlockIO{
			Weight: p(uint16(300)), LeafWeight: p(uint16(200)),
			WeightDevice:            []specs.LinuxWeightDevice{{LinuxBlockIODevice: disk, Weight: p(uint16(500)), LeafWeight: p(uint16(300))}},
			ThrottleReadBpsDevice:   []specs.LinuxThrottleDevice{{LinuxBlockIODevice: disk, Rate: 1}},
			ThrottleWriteBpsDevice:  []specs.LinuxThrottleDevice{{LinuxBlockIODevice: disk, Rate: 2}},
			ThrottleReadIOPSDevice:  []specs.LinuxThrottleDevice{{LinuxBlockIODevice: disk, Rate: 3}},
			ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: disk, Rate: 4}},
		},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "1GB", Limit: 0}},
		Network:        &specs.LinuxNetwork{ClassID: p(uint32(1048577)), Priorities: []specs.LinuxInterfacePriority{{Name: "eth0", Priority: 500}}},
		Rdma:           map[string]specs.LinuxRdma{"mlx5_1": {HcaHandles: p(uint32(3))}},
		Devices:        []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for controller, files := range map[string]map[string]string{
		"memory": {"memory.limit_in_bytes": "100", "memory.memsw.limit_in_bytes": "250", "memory.soft_limit_in_bytes": "50",
			"memory.kmem.tcp.limit_in_bytes": "9", "memory.swappiness": "0", "memory.oom_control": "1"},
		"cpu": {"cpu.shares": "512", "cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "10000", "cpu.cfs_burst_us": "0",
			"cpu.rt_period_us": "1000", "cpu.rt_runtime_us": "500", "cpu.idle": "0"},
		"cpuset": {"cpuset.cpus": "1", "cpuset.mems": "0"},
		"pids":   {"pids.max": "max"},
		"blkio": {"blkio.weight": "300", "blkio.leaf_weight": "200", "blkio.weight_device": "8:16 500", "blkio.leaf_weight_device": "8:16 300",
			"blkio.throttle.read_bps_device": "8:16 1", "blkio.throttle.write_bps_device": "8:16 2",
			"blkio.throttle.read_iops_device": "8:16 3", "blkio.throttle.write_iops_device": "8:16 4"},
		"hugetlb":  {"hugetlb.1GB.limit_in_bytes": "0", "hugetlb.1GB.rsvd.limit_in_bytes": "0"},
		"net_cls":  {"net_cls.classid": "1048577"},
		"net_prio": {"net_prio.ifpriomap": "eth0 500"},
		"rdma":     {"rdma.max": "mlx5_1 hca_handle=3"},
		"devices":  {"devices.deny": "a"},
	} {
		wantFiles(t, root+"/"+controller+"/c", files)
	}
	if got := get(t, root+"/devices/c", "devices.allow"); !strings.Contains(got, "c 1:3 rwm") || !strings.Contains(got, "b *:* m") {
		t.Errorf("devices.allow: %q", got)
	}
	if err := c.Apply(&specs.LinuxResources{Unified: map[string]string{"memory.high": "1"}}); err == nil {
		t.Error("resources.unified on v1: no error")
	}
}

func TestConversions(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 0, 1: 1, 2: 1, 1024: 100, 2048: 174, 512: 59, 262144: 10000, math.MaxUint64: 10000} {
		if got := Weight(shares); got != want {
			t.Errorf("shares %d: got weight %d, want %d", shares, got, want)
		}
	}
	for w, want := range map[uint16]uint64{1: 1, 10: 1, 500: 4950, 1000: 10000} {
		if got := ioWeight(w); got != want {
			t.Errorf("blkio weight %d: got %d, want %d", w, got, want)
		}
	}
}

func TestV2Stats(t *testing.T) {
	c, _ := fakeV2(t, map[string]string{
		"cgroup.controllers":  "cpuset cpu io memory pids rdma\n",
		"cpu.stat":            "usage_usec 10\nuser_usec 6\nsystem_usec 4\nnr_periods 3\nnr_throttled 2\nthrottled_usec 7\n",
		"cpu.pressure":        "some avg10=1.50 avg60=0.25 avg300=0.00 total=99\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=9\n",
		"memory.current":      "4096\n",
		"memory.max":          "max\n",
		"memory.peak":         "8192\n",
		"memory.stat":         "anon 1\nfile 2\nkernel 3\nsock 4\n",
		"memory.events":       "low 0\nhigh 0\nmax 5\noom 1\noom_kill 1\n",
		"memory.swap.current": "0\n",
		"memory.swap.max":     "100\n",
		"pids.current":        "3\n",
		"pids.max":            "max\n",
		"io.stat":             "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:0 \n",
		"rdma.current":        "mlx4_0 hca_handle=2 hca_object=2000\n",
	})
	s, err := c.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.CPU.Total != 10000 || s.CPU.User != 6000 || s.CPU.ThrottledTime != 7000 || s.CPU.PSI == nil || s.CPU.PSI.Some.Avg10 != 1.5 || s.CPU.PSI.Full.Total != 9 {
		t.Errorf("cpu: %+v %+v", s.CPU, s.CPU.PSI)
	}
	if m := s.Memory; m.Usage != 4096 || m.Limit != noLimit || m.Cache != 2 || m.OOMKills != 1 || m.Failcnt != 5 || m.SwapLimit != 100 || m.PSI != nil {
		t.Errorf("memory: %+v", m)
	}
	if *s.Pids != (PidsStats{Current: 3}) {
		t.Errorf("pids: %+v", s.Pids)
	}
	if len(s.IO.ServiceBytes) != 3 || s.IO.Serviced[1] != (IOEntry{8, 0, "Write", 4}) {
		t.Errorf("io: %+v", s.IO)
	}
	if s.Rdma["mlx4_0"] != (RdmaStats{2, 2000}) {
		t.Errorf("rdma: %+v", s.Rdma)
	}
}

func TestV1DeviceRules(t *testing.T) {
	null, all := int64(3), int64(-1)
	for name, tc := range map[string]struct {
		rules []specs.LinuxDeviceCgroup
		fail  string
	}{
		"hole in a wildcard": {[]specs.LinuxDeviceCgroup{
			{Allow: true, Type: "c", Major: p(int64(1)), Minor: &all, Access: "rwm"},
			{Allow: false, Type: "c", Major: p(int64(1)), Minor: &null, Access: "w"}}, "cannot except"},
		"bad type":       {[]specs.LinuxDeviceCgroup{{Allow: true, Type: "x", Access: "r"}}, "type"},
		"bad access":     {[]specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Access: "x"}}, "access"},
		"no access":      {[]specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: p(int64(1))}}, "access"},
		"number":         {[]specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: p(int64(-7)), Access: "r"}}, "range"},
		"all except one": {[]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}, {Allow: false, Type: "b", Major: p(int64(8)), Minor: &all, Access: "w"}}, ""},
	} {
		c, root := fakeV1(t, "devices")
		err := c.Create(&specs.LinuxResources{Devices: tc.rules})
		if tc.fail == "" && err != nil || tc.fail != "" && (err == nil || !strings.Contains(err.Error(), tc.fail)) {
			t.Errorf("%s: got %v, want %q", name, err, tc.fail)
		}
		if tc.fail == "" {
			wantFiles(t, root+"/devices/c", map[string]string{"devices.deny": "b 8:* w", "devices.allow": "(none)"})
		}
	}
}
