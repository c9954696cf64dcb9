package cgroup

import (
	"fmt"
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestParseUnit(t *testing.T) {
	for _, test := range []struct {
		path  string
		uid   int
		want  string
		group string
	}{
		{"", 0, "cale-id.scope in system.slice", "/system.slice/cale-id.scope"},
		{"machine.slice:libpod:x", 0, "libpod-x.scope in machine.slice", "/machine.slice/libpod-x.scope"},
		{"a-b-c.slice::x", 0, "x.scope in a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice/x.scope"},
		{":p:x", 1000, "p-x.scope in user.slice", ""},
		{"-.slice:p:pod.slice", 0, "pod.slice in -.slice", "/pod.slice"},
		{"/a/b", 0, "", ""},
		{"a:b", 0, "", ""},
		{"a.slice:b:", 0, "", ""},
		{"a--b.slice:p:x", 0, "", ""},
		{"../x.slice:p:x", 0, "", ""},
		{"a.slice:p:../../x", 0, "", ""},
	} {
		u, err := ParseUnit(test.path, "id", test.uid)
		if got := u.Name + " in " + u.Slice; (err == nil) != (test.want != "") || err == nil && got != test.want {
			t.Errorf("%q: %s, %v", test.path, got, err)
		}
		if test.group == "" {
			continue
		}
		if group, err := u.Path(); err != nil || group != test.group {
			t.Errorf("%q: group %s, %v", test.path, group, err)
		}
	}
}

func TestListMask(t *testing.T) {
	for list, want := range map[string]string{"0": "[1]", "0-1,3": "[11]", "8": "[0 1]", "1-": "", "3-1": "", "x": "", "9999": ""} {
		got, err := listMask(list)
		if (err == nil) != (want != "") || err == nil && fmt.Sprint(got) != want {
			t.Errorf("%q: %v, %v", list, got, err)
		}
	}
}

func TestAnnotated(t *testing.T) {
	for text, want := range map[string]string{
		"KillSignal=37": "[[KillSignal {i 37}]]", "TimeoutStopUSec=uint64 5": "[[TimeoutStopUSec {t 5}]]",
		"TimeoutStopSec=5": "[[TimeoutStopUSec {t 5000000}]]", "CollectMode='inactive-or-failed'": "[[CollectMode {s inactive-or-failed}]]",
		"After=['a', \"b\"]": "[[After {as [a b]}]]", "Delegate=true": "[[Delegate {b true}]]",
		"A=1": "", "Bad Name=1": "", "Name=word": "", "Name='it's'": "", "Name=": "", "NameSec='x'": "",
	} {
		var name, value string
		for i := range text {
			if text[i] == '=' {
				name, value = text[:i], text[i+1:]
				break
			}
		}
		got, err := annotated(map[string]string{propertyPrefix + name: value, "other": "x"})
		if (err == nil) != (want != "") || err == nil && fmt.Sprint(got) != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}

func TestDeviceProperties(t *testing.T) {
	major, minor := int64(10), int64(229)
	props, err := deviceProperties(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rw"}}})
	text := fmt.Sprint(props)
	if err != nil || !strings.Contains(text, "strict") || !strings.Contains(text, "[/dev/char/10:229 rw]") || !strings.Contains(text, "[char-pts rwm]") || !strings.Contains(text, "[block-* m]") {
		t.Errorf("%s, %v", text, err)
	}
	props, err = deviceProperties(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}})
	if text := fmt.Sprint(props); err != nil || !strings.Contains(text, "auto") || strings.Contains(text, "DeviceAllow") {
		t.Errorf("%s, %v", text, err)
	}
}

func TestProperties(t *testing.T) {
	p := func(n int64) *int64 { return &n }
	period := func(n uint64) *uint64 { return &n }
	half := bandwidth{quota: 25000, period: 50000}
	for name, test := range map[string]struct {
		res  specs.LinuxResources
		v2   bool
		now  bandwidth
		want string // or what the error says
	}{
		"a quota":                   {specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: p(50000)}}, true, unlimited, "[[CPUQuotaPerSecUSec {t 500000}]]"},
		"a quota of the period now": {specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: p(50000)}}, true, half, "[[CPUQuotaPerSecUSec {t 1000000}]]"},
		"a period alone":            {specs.LinuxResources{CPU: &specs.LinuxCPU{Period: period(100000)}}, true, half, "[[CPUQuotaPeriodUSec {t 100000}] [CPUQuotaPerSecUSec {t 250000}]]"},
		"a period without a quota":  {specs.LinuxResources{CPU: &specs.LinuxCPU{Period: period(50000)}}, true, unlimited, "[[CPUQuotaPeriodUSec {t 50000}]]"},
		"no quota given":            {specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: p(0), Period: period(0)}}, false, half, "[]"},
		"no quota from now on":      {specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: p(-1)}}, false, half, "[[CPUQuotaPerSecUSec {t 18446744073709551615}]]"},
		"too much":                  {specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: p(1 << 62)}}, true, unlimited, "out of range"},
		"swap below memory":         {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(100), Swap: p(50)}}, true, unlimited, "must not be less than"},
		"swap below memory, v1":     {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(100), Swap: p(50)}}, false, unlimited, "must not be less than"},
		"swap alone":                {specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: p(50)}}, true, unlimited, "memory.swap needs memory.limit"},
		"memory and swap":           {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p(100), Swap: p(150)}}, true, unlimited, "[[MemoryMax {t 100}] [MemorySwapMax {t 50}]]"},
	} {
		got, err := properties(&test.res, test.v2, test.now)
		text := fmt.Sprint(got)
		if err != nil {
			text = err.Error()
		}
		if !strings.Contains(text, test.want) || err == nil && text != test.want {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func TestBandwidth(t *testing.T) {
	for line, want := range map[string]bandwidth{"max 100000\n": unlimited, "25000 50000\n": {25000, 50000}} {
		c, _ := fakeV2(t, map[string]string{"cgroup.controllers": "cpu\n", "cpu.max": line})
		if got, err := c.bandwidth(); err != nil || got != want {
			t.Errorf("%q: %v, %v", line, got, err)
		}
	}
	c, _ := fakeV2(t, map[string]string{"cgroup.controllers": "cpu\n", "cpu.max": "x y\n"})
	if _, err := c.bandwidth(); err == nil {
		t.Error("no number was taken for one")
	}
	c, _ = fakeV1(t, "cpu")
	if got, err := c.bandwidth(); err != nil || got != unlimited {
		t.Errorf("no files: %v, %v", got, err)
	}
	dir, _ := c.dir("cpu")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "cpu.cfs_quota_us", "-1\n")
	put(t, dir, "cpu.cfs_period_us", "50000\n")
	if got, err := c.bandwidth(); err != nil || got != (bandwidth{-1, 50000}) {
		t.Errorf("v1: %v, %v", got, err)
	}
}
