package engine

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

// TestUserNamespaceAuto: root inside is nobody's number outside, two containers share no ids, and files keep the owners
// that containers know, wherever they come from.
func TestUserNamespaceAuto(t *testing.T) {
	if !MapsOwners() {
		t.Skip("the kernel maps no owners of overlays")
	}
	b := newBench(t)
	s := sh("cat /proc/self/uid_map; stat -c %u:%g /etc/passwd; touch /made /vol/made && stat -c %u:%g /made /vol/made; exec sleep 1000")
	s.UsernsMode, s.Network.Mode = "auto", "bridge"
	s.Mounts = []Mount{{Type: "volume", Source: "kept", Target: "/vol"}}
	id := b.start(s)
	owners := func() string {
		out, code := b.exec(id, ExecSpec{Cmd: []string{"stat", "-c", "%u:%g", "/etc/passwd", "/made", "/vol/made"}})
		if code != 0 {
			t.Errorf("stat: %q", out)
		}
		return out
	}
	b.until("its files", func() bool {
		out, code := b.exec(id, ExecSpec{Cmd: []string{"ls", "/vol/made"}})
		return code == 0 && out != ""
	})
	if got := owners(); got != "0:0\n0:0\n0:0\n" {
		t.Errorf("owners inside: %q", got)
	}
	one, _ := b.exec(id, ExecSpec{Cmd: []string{"cat", "/proc/self/uid_map"}})
	other := sh("cat /proc/self/uid_map")
	other.UsernsMode = "auto:size=2000"
	two, code := b.run(other)
	f1, f2 := strings.Fields(one), strings.Fields(two)
	if code != 0 || len(f1) != 3 || len(f2) != 3 || f1[0] != "0" || f1[1] == "0" || f1[2] != "65536" || f2[2] != "2000" || f1[1] == f2[1] {
		t.Errorf("mappings %q and %q", one, two)
	}

	// Copied into the running container, and out again.
	var in bytes.Buffer
	w := tar.NewWriter(&in)
	for name, uid := range map[string]int{"vol/root": 0, "home/user": 1000} {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Uid: uid, Gid: uid}); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	if err := b.CopyTo(ctx, id, "/", &in, CopyOptions{}); err != nil {
		t.Fatalf("copy in: %v", err)
	}
	if out, _ := b.exec(id, ExecSpec{Cmd: []string{"stat", "-c", "%u:%g", "/vol/root", "/home/user"}}); out != "0:0\n1000:1000\n" {
		t.Errorf("owners of what was copied in: %q", out)
	}
	uids := func(r io.Reader, name string) (uid int) {
		tr := tar.NewReader(r)
		uid = -1
		for {
			h, err := tr.Next()
			if err != nil {
				return uid
			}
			if strings.TrimPrefix(h.Name, "/") == name {
				uid = h.Uid
			}
		}
	}
	_, r, err := b.CopyFrom(ctx, id, "/home/user")
	if err != nil {
		t.Fatalf("copy out: %v", err)
	}
	if uid := uids(r, "user"); uid != 1000 {
		t.Errorf("copied out: owner %d", uid)
	}
	r.Close()
	var exported bytes.Buffer
	if err := b.Export(ctx, id, &exported); err != nil {
		t.Fatalf("export: %v", err)
	}
	if uid := uids(&exported, "home/user"); uid != 1000 {
		t.Errorf("exported: owner %d", uid)
	}

	// The volume's files are root's for a container without the namespace too.
	plain := sh("stat -c %u:%g /vol/made /vol/root")
	plain.Mounts = s.Mounts
	if out, _ := b.run(plain); out != "0:0\n0:0\n" {
		t.Errorf("owners in the volume: %q", out)
	}
	// It is the same namespace of ids after another start.
	none := 0
	if err := b.Stop(ctx, id, StopOptions{Timeout: &none}); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(ctx, id, StartOptions{}); err != nil {
		t.Fatal(err)
	}
	if again, _ := b.exec(id, ExecSpec{Cmd: []string{"cat", "/proc/self/uid_map"}}); again != one {
		t.Errorf("mapping %q, then %q", one, again)
	}
	if got := owners(); got != "0:0\n0:0\n0:0\n" {
		t.Errorf("owners after another start: %q", got)
	}

	for mode, change := range map[string]func(*Spec){
		"auto:size=0": nil, "auto:nothing": nil, "keep-id": nil,
		"auto": func(s *Spec) { s.Security.Privileged = true },
	} {
		s := sh("true")
		s.Image, s.UsernsMode = "busybox", mode
		if change != nil {
			change(&s)
		}
		if _, _, err := b.Create(ctx, s); err == nil || !strings.Contains(strings.ToLower(err.Error()), "user") {
			t.Errorf("--userns=%s: %v", mode, err)
		}
	}
	host := sh("true")
	host.Image, host.UsernsMode, host.Network.Mode = "busybox", "auto", "host"
	if _, _, err := b.Create(ctx, host); err == nil {
		t.Error("a user namespace with the host's network was created")
	}
}

// Ranges are taken where there is room, also between those of others, and never twice; many take no time.
func TestTakeIDs(t *testing.T) {
	e := &Engine{ids: map[string]IDRange{}, pods: map[string]*pod{}}
	take := func(mode, id string) IDRange {
		t.Helper()
		m, err := e.takeIDs(&Spec{UsernsMode: mode}, id)
		if err != nil {
			t.Fatal(err)
		}
		return m.UIDs[0]
	}
	for i := range 1000 {
		take("auto:size=1000", fmt.Sprint(i))
	}
	seen := map[uint32]bool{}
	for _, r := range e.ids {
		if r.Size != 1000 || seen[r.Host] {
			t.Fatalf("%+v is taken twice", r)
		}
		seen[r.Host] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d ranges of 1000 differ", len(seen))
	}
	gap := e.ids["500"]
	e.giveIDs("500")
	if got := take("auto:size=2000", "large"); got.Host == gap.Host {
		t.Errorf("%+v lies over others'", got)
	}
	if got := take("auto:size=1000", "fits"); got != gap {
		t.Errorf("the gap %+v is not used: %+v", gap, got)
	}
}
