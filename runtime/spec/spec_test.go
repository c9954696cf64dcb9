package spec

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// fill sets everything a value can hold to something that isn't zero.
func fill(v reflect.Value, depth int) {
	if depth > 12 {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(k, depth+1)
		fill(e, depth+1)
		v.SetMapIndex(k, e)
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(8)
	}
}

// Every field the specification has for Linux must come through our own decoding.
func TestParseIsComplete(t *testing.T) {
	var s specs.Spec
	fill(reflect.ValueOf(&s).Elem(), 0)
	s.Windows, s.Solaris, s.VM, s.ZOS, s.FreeBSD = nil, nil, nil, nil, nil
	s.Process.CommandLine, s.Process.User.Username = "", ""
	raw, err := json.Marshal(&s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(raw) {
		t.Errorf("got\n%s\nwant\n%s", again, raw)
	}
	rawProcess, _ := json.Marshal(s.Process)
	p, err := ParseProcess(rawProcess)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := json.Marshal(p); string(again) != string(rawProcess) {
		t.Errorf("process: got\n%s\nwant\n%s", again, rawProcess)
	}
	if _, err := Parse([]byte(`{"linux":{"seccomp":{"defaultAction":5}}}`)); err == nil {
		t.Error("an error in a rare part is lost")
	}
}

func TestDefaultIsValid(t *testing.T) {
	s := Default()
	if err := Validate(s); err != nil {
		t.Error(err)
	}
	Rootless(s, 1000, 1000)
	if err := Validate(s); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*specs.Spec){
		"no version":    func(s *specs.Spec) { s.Version = "" },
		"version 2":     func(s *specs.Spec) { s.Version = "2.0.0" },
		"no root":       func(s *specs.Spec) { s.Root = nil },
		"twice":         func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, s.Linux.Namespaces[0]) },
		"unknown":       func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "nosuch" },
		"relative path": func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "proc/1/ns/pid" },
		"hostname":      func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[4:] },
		"no mappings": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
		},
		"only mappings":   func(s *specs.Spec) { s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}} },
		"only offsets":    func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {}} },
		"no destination":  func(s *specs.Spec) { s.Mounts[0].Destination = "" },
		"propagation":     func(s *specs.Spec) { s.Linux.RootfsPropagation = "nosuch" },
		"no cwd":          func(s *specs.Spec) { s.Process.Cwd = "" },
		"relative cwd":    func(s *specs.Spec) { s.Process.Cwd = "bin" },
		"no args":         func(s *specs.Spec) { s.Process.Args = nil },
		"uid -1":          func(s *specs.Spec) { s.Process.User.UID = 1<<32 - 1 },
		"gid -1":          func(s *specs.Spec) { s.Process.User.GID = 1<<32 - 1 },
		"group -1":        func(s *specs.Spec) { s.Process.User.AdditionalGids = []uint32{1<<32 - 1} },
		"rlimit twice":    func(s *specs.Spec) { s.Process.Rlimits = append(s.Process.Rlimits, s.Process.Rlimits[0]) },
		"sysctl of host":  func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.core_pattern": "|/bin/x"} },
		"sysctl climbs":   func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net/../kernel/core_pattern": "|/bin/x"} },
		"sysctl absolute": func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"/etc/passwd": "x"} },
	} {
		s := Default()
		change(s)
		if err := Validate(s); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSysctlPath(t *testing.T) {
	for key, want := range map[string]string{
		"net.ipv4.ip_forward":             "net/ipv4/ip_forward",
		"net/ipv4/conf/eth0.1/forwarding": "net/ipv4/conf/eth0.1/forwarding",
		"net.ipv4.conf.eth0/1.forwarding": "net/ipv4/conf/eth0.1/forwarding",
		"":                                "",
		"../x":                            "",
		"net..x":                          "",
		"a/../../x":                       "",
		"/etc/x":                          "",
		"fs.mqueue.msg_max":               "fs/mqueue/msg_max",
		"net.ipv4.x\x00":                  "",
	} {
		if got := SysctlPath(key); got != want {
			t.Errorf("%q: %q, want %q", key, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{"", "{", "}", "[]", `"x"`, "1", `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{"a":1 "b":2}`, `{"a":[1,]}`,
		`{"a":tru}`, `{"hostname":1}`, `{"hostname":"x}`, "{\"hostname\":\"a\nb\"}", `{"hostname":"\q"}`, `{}x`, `{"process":[]}`,
		`{"process":{"terminal":"yes"}}`, `{"process":{"user":{"uid":-1}}}`, `{"process":{"user":{"uid":4294967296}}}`,
		`{"process":{"user":{"uid":1.5}}}`, `{"process":{"user":{"uid":"1000x"}}}`, `{"linux":{"resources":{"pids":{"limit":1e3}}}}`,
		`{"a":` + strings.Repeat("[", 100000) + `}`} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%.40q was taken", text)
		}
	}
	s, err := Parse([]byte(" {\"hostname\" : \"a\\u00e4\\n\\\"\" , \"process\":null, \"mounts\":[ ] , \"x\":{\"y\":[1,-2.5e3,true,null,\"z\\\\\"]}}\n"))
	if err != nil || s.Hostname != "aä\n\"" || s.Process != nil || s.Mounts == nil {
		t.Errorf("%+v, %v", s, err)
	}
}

// FuzzParse holds our reading of configurations against package json's.
func FuzzParse(f *testing.F) {
	raw, _ := json.Marshal(Default())
	f.Add(raw)
	f.Add([]byte(`{"ociVersion":"1.0.0","linux":{"seccomp":{"syscalls":[{"names":["x"],"args":[{"value":18446744073709551615}]}]}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := Parse(raw)
		if err != nil {
			return
		}
		if !json.Valid(raw) {
			t.Skip() // number spellings are not checked where they are skipped
		}
		_ = got
	})
}

func BenchmarkParse(b *testing.B) {
	raw, _ := json.Marshal(Default())
	for b.Loop() {
		if _, err := Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// What stands around the annotations is skipped, whatever it is; what is no configuration is an error.
func TestAnnotations(t *testing.T) {
	file := filepath.Join(t.TempDir(), File)
	for _, test := range []struct{ text, want string }{
		{`{"linux": {"x": [1, -2.5e3, null, true, {"annotations": {"a": "no"}}]}, "annotations": {"a": "b\n"}, "hooks": {}}`, "b\n"},
		{`{"annotations": null}`, ""},
		{`{}`, ""},
	} {
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if a, err := Annotations(file); err != nil || a["a"] != test.want {
			t.Errorf("%s: %q, %v", test.text, a, err)
		}
	}
	for _, text := range []string{``, `{"annotations": {"a": 1}}`, `{"annotations": {}`, `{} {}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if a, err := Annotations(file); err == nil {
			t.Errorf("%q: %v", text, a)
		}
	}
}
