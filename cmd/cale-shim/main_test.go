package main

import (
	"os"
	"path/filepath"
	"testing"
)

// The ways containerd writes its flags.
func TestParse(t *testing.T) {
	got, err := parse([]string{"-namespace", "ns", "--id=c", "-address", "/a", "-publish-binary", "/p", "-bundle=/b", "-debug", "start"})
	want := options{namespace: "ns", id: "c", address: "/a", bundle: "/b", action: "start"}
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, args := range [][]string{{"-nonsense"}, {"-id"}, {"start", "delete"}} {
		if o, err := parse(args); err == nil {
			t.Errorf("%q was taken as %+v", args, o)
		}
	}
}

func TestGroup(t *testing.T) {
	t.Chdir(t.TempDir())
	for config, want := range map[string]string{
		"":                   "",
		"nonsense":           "",
		`{"annotations":{}}`: "",
		`{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}`:       "pod",
		`{"annotations":{"io.containerd.runc.v2.group":"g"}}`:          "g",
		`{"annotations":{"io.kubernetes.cri.sandbox-id":"../../etc"}}`: "",
		`{"annotations":{"io.kubernetes.cri.sandbox-id":".."}}`:        "",
	} {
		if err := os.WriteFile("config.json", []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := group(); got != want {
			t.Errorf("%s: %q", config, got)
		}
	}
}

// Only addresses that our own start wrote are followed or removed.
func TestServing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "address")
	for text, want := range map[string]string{
		"unix:///etc/passwd":                 "",
		"/run/cale-shim/1/s":                 "",
		"unix://" + socketDir + "/no-such/s": "unix://" + socketDir + "/no-such/s",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, alive := serving(file); got != want || alive {
			t.Errorf("%s: %q, %v", text, got, alive)
		}
	}
}
