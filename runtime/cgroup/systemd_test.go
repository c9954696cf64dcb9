package cgroup

import (
	"fmt"
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
