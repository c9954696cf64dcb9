package image

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseDigest(t *testing.T) {
	for s, ok := range map[string]bool{
		"sha256:" + hex64:                      true,
		"sha512:" + hex64 + hex64:              true,
		"sha256:" + hex64[1:]:                  false,
		"sha256:" + hex64 + "0":                false,
		"sha512:" + hex64:                      false,
		"sha256:" + strings.ToUpper(hex64):     false,
		"SHA256:" + hex64:                      false,
		"md5:0123456789abcdef0123456789abcdef": false,
		"":                                     false,
		"sha256:":                              false,
		"sha256:../../../../etc/passwd" + hex64[28-7:]: false,
		"sha256:" + hex64[:63] + "\x00":                false,
		"sha256:" + hex64[:63] + "/":                   false,
	} {
		d, err := ParseDigest(s)
		if (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
		if err == nil && (d.String() != s || d.Algorithm()+":"+d.Encoded() != s) {
			t.Errorf("%q became %q", s, d)
		}
		if err != nil && (!errors.Is(err, ErrDigest) || !d.IsZero()) {
			t.Errorf("%q: %v, %v", s, d, err)
		}
	}
	again, err := ParseDigest(FromBytes([]byte("x")).String())
	if err != nil || again != FromBytes([]byte("x")) {
		t.Error("equal digests are not equal")
	}
}

func TestParseReference(t *testing.T) {
	d := "sha256:" + hex64
	for s, want := range map[string][2]string{ // full, familiar
		"busybox":                       {"docker.io/library/busybox:latest", "busybox:latest"},
		"busybox:1.36":                  {"docker.io/library/busybox:1.36", "busybox:1.36"},
		"user/app":                      {"docker.io/user/app:latest", "user/app:latest"},
		"docker.io/busybox":             {"docker.io/library/busybox:latest", "busybox:latest"},
		"index.docker.io/library/x":     {"docker.io/library/x:latest", "x:latest"},
		"docker.io/library/a/b":         {"docker.io/library/a/b:latest", "library/a/b:latest"},
		"localhost/x":                   {"localhost/x:latest", "localhost/x:latest"},
		"localhost:5000/x:y":            {"localhost:5000/x:y", "localhost:5000/x:y"},
		"127.0.0.1:5000/a/b/c":          {"127.0.0.1:5000/a/b/c:latest", "127.0.0.1:5000/a/b/c:latest"},
		"[::1]:5000/x":                  {"[::1]:5000/x:latest", "[::1]:5000/x:latest"},
		"Host/x":                        {"Host/x:latest", "Host/x:latest"},
		"ghcr.io/a__b/c-d.e--f:T_1":     {"ghcr.io/a__b/c-d.e--f:T_1", "ghcr.io/a__b/c-d.e--f:T_1"},
		"busybox@" + d:                  {"docker.io/library/busybox@" + d, "busybox@" + d},
		"busybox:1@" + d:                {"docker.io/library/busybox:1@" + d, "busybox:1@" + d},
		"a:" + strings.Repeat("t", 128): {"docker.io/library/a:" + strings.Repeat("t", 128), "a:" + strings.Repeat("t", 128)},
		"quay.io/x:latest":              {"quay.io/x:latest", "quay.io/x:latest"},
	} {
		r, err := ParseReference(s)
		if err != nil || r.String() != want[0] || r.Familiar() != want[1] {
			t.Errorf("%q: %q %q, %v; want %q", s, r.String(), r.Familiar(), err, want)
			continue
		}
		again, err := ParseReference(r.Familiar())
		if err != nil || again != r {
			t.Errorf("%q: its familiar form is read as %q (%v)", s, again, err)
		}
	}
	for _, s := range []string{
		"", ":", "@", "/", "a/", "/a", "a//b", "-a", "a-", "a..b", "a___b", "a._b", "Busy", "user/App", "a b", "a:", "a:-x", "a:.x",
		"a@", "a@sha256:1", "a@md5:" + hex64, "a:b:c", "x:y/z:w/", "host:port/x", "host:123456/x", "-host.x/y", "ho_st.x/y", "[::1/x", "[]/x",
		hex64, "a:" + strings.Repeat("t", 129), strings.Repeat("a", 256), "a.b/" + strings.Repeat("x/", 200) + "x", "a\x00b", "é", "../a", "a/../b", "http://a/b",
		"a@" + d + "@" + d,
	} {
		if r, err := ParseReference(s); err == nil {
			t.Errorf("%q was read as %q", s, r)
		} else if !errors.Is(err, ErrReference) || len(err.Error()) > 600 {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// TestChoose: the best variant whatever the order of the entries (moby#37647,
// containers/image#898, containerd#2991).
func TestChoose(t *testing.T) {
	offers := []Platform{
		{OS: "linux", Architecture: "arm", Variant: "v7"}, {OS: "linux", Architecture: "arm", Variant: "v5"},
		{OS: "linux", Architecture: "arm64"}, {OS: "unknown", Architecture: "unknown"}, {OS: "plan9", Architecture: "arm"},
		{OS: "linux", Architecture: "amd64", Variant: "v3"}, {OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "386"},
		{OS: "windows", Architecture: "amd64"},
	}
	for want, got := range map[string]int{
		"linux/arm/v6": 1, "linux/arm/v5": 1, "linux/arm/v7": 0, "linux/arm/v8": 0, "linux/arm64/v8": 2, "linux/arm64": 2, "linux/aarch64": 2,
		"linux/amd64": 6, "linux/amd64/v2": 6, "linux/amd64/v3": 5, "linux/amd64/v4": 5, "linux/386": 7, "windows/amd64": 8, "linux/x86_64": 6,
		"linux/s390x": -1, "linux/arm/v4": -1,
	} {
		p, err := ParsePlatform(want)
		if err != nil {
			t.Fatal(err)
		}
		for turn := range offers {
			x := &Index{}
			for i := range offers {
				o := offers[(i+turn)%len(offers)]
				x.Manifests = append(x.Manifests, Descriptor{MediaType: MediaTypeManifest, Platform: &o, Size: int64((i + turn) % len(offers))})
			}
			d, err := x.Choose(p)
			if got < 0 {
				if !errors.Is(err, ErrNoPlatform) {
					t.Errorf("%s: %v, %v", want, d.Platform, err)
				}
			} else if err != nil || d.Size != int64(got) {
				t.Errorf("%s in turn %d: chose %v (%v)", want, turn, d.Platform, err)
			}
		}
	}
}

func TestManifestConfusion(t *testing.T) { // CVE-2021-41190 and kin
	desc := `{"mediaType":"x","digest":"sha256:` + hex64 + `","size":1}`
	man := `"config":` + desc + `,"layers":[` + desc + `]`
	idx := `"manifests":[` + desc + `]`
	for _, c := range []struct {
		name, mt, body  string
		manifest, index bool
	}{
		{"Plain", MediaTypeManifest, `{"schemaVersion":2,` + man + `}`, true, false},
		{"PlainIndex", MediaTypeIndex, `{"schemaVersion":2,` + idx + `}`, false, true},
		{"Parameters", MediaTypeManifest + "; charset=utf-8", `{"schemaVersion":2,` + man + `}`, true, false},
		{"Both", MediaTypeManifest, `{"schemaVersion":2,` + man + `,` + idx + `}`, false, false},
		{"BothAsIndex", MediaTypeIndex, `{"schemaVersion":2,` + man + `,` + idx + `}`, false, false},
		{"OtherInBody", MediaTypeManifest, `{"schemaVersion":2,"mediaType":"` + MediaTypeDockerManifest + `",` + man + `}`, false, false},
		{"DockerSilent", MediaTypeDockerManifest, `{"schemaVersion":2,` + man + `}`, false, false},
		{"Docker", MediaTypeDockerManifest, `{"schemaVersion":2,"mediaType":"` + MediaTypeDockerManifest + `",` + man + `}`, true, false},
		{"Schema1", "", `{"schemaVersion":1,"fsLayers":[]}`, false, false},
		{"FsLayers", MediaTypeManifest, `{"schemaVersion":2,"fsLayers":[],` + man + `}`, false, false},
		{"KeyTwice", MediaTypeManifest, `{"schemaVersion":2,` + man + `,` + man + `}`, false, false},
		{"KeyTwiceInOtherCase", MediaTypeManifest, `{"schemaVersion":2,` + man + `,"Layers":[]}`, false, false},
		{"NegativeSize", MediaTypeManifest, `{"schemaVersion":2,"config":` + strings.Replace(desc, `:1}`, `:-1}`, 1) + `}`, false, false},
		{"NoConfig", MediaTypeManifest, `{"schemaVersion":2,"layers":[]}`, false, false},
		{"NoDigest", MediaTypeManifest, `{"schemaVersion":2,"config":{"size":1}}`, false, false},
		{"BadDigest", MediaTypeManifest, `{"schemaVersion":2,"config":{"size":1,"digest":"sha256:../x"}}`, false, false},
		{"NoObject", MediaTypeManifest, `[]`, false, false},
		{"Trailing", MediaTypeManifest, `{"schemaVersion":2,` + man + `}{}`, false, false},
		{"Empty", "", ``, false, false},
	} {
		_, merr := ParseManifest(c.mt, []byte(c.body))
		_, ierr := ParseIndex(c.mt, []byte(c.body))
		if (merr == nil) != c.manifest || (ierr == nil) != c.index {
			t.Errorf("%s: as a manifest %v, as an index %v", c.name, merr, ierr)
		}
		if merr != nil && !errors.Is(merr, ErrManifest) {
			t.Errorf("%s: %v", c.name, merr)
		}
	}
}

func TestConfigRoundTrip(t *testing.T) {
	raw := `{"architecture":"amd64","os":"linux","created":"2024-01-02T03:04:05Z","author":"me",
	"config":{"User":"1:2","Env":["A=b"],"Entrypoint":["/e"],"Cmd":["c"],"WorkingDir":"/w","Labels":{"k":"v","K":"V"},
	"Volumes":{"/v":{},"/a":{}},"ExposedPorts":{"80/tcp":{}},"StopSignal":"SIGQUIT","Healthcheck":{"Test":["CMD","x"],"Interval":1000000000},"Shell":["/s"],"OnBuild":["RUN x"]},
	"rootfs":{"type":"layers","diff_ids":["sha256:` + hex64 + `"]},"history":[{"created_by":"x"},{"empty_layer":true}],"unknown":1}`
	c, err := ParseConfig([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	if c.Run.Volumes[0] != "/a" || c.Run.Labels["K"] != "V" || c.Run.Healthcheck.Interval != 1e9 || len(c.DiffIDs) != 1 || !c.History[1].EmptyLayer {
		t.Errorf("%+v", c)
	}
	out, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseConfig(out)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(c.Run)
	b, _ := json.Marshal(again.Run)
	if string(a) != string(b) || again.DiffIDs[0] != c.DiffIDs[0] {
		t.Errorf("%s became %s", a, b)
	}
	if _, err := ParseConfig([]byte(`{"rootfs":{"diff_ids":[""]}}`)); !errors.Is(err, ErrConfig) {
		t.Errorf("empty diffID: %v", err)
	}
}

func FuzzReference(f *testing.F) {
	f.Add("a.b:5000/c/d:e@sha256:" + hex64)
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			return
		}
		for _, form := range []string{r.String(), r.Familiar()} {
			again, err := ParseReference(form)
			if err != nil || again != r {
				t.Errorf("%q: %q is read as %q (%v)", s, form, again, err)
			}
		}
	})
}

func FuzzDigest(f *testing.F) {
	f.Add("sha256:" + hex64)
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseDigest(s); err == nil && (d.String() != s || strings.ContainsAny(s, "/.\x00")) {
			t.Errorf("%q was accepted", s)
		}
	})
}

func FuzzDocuments(f *testing.F) {
	f.Add(MediaTypeIndex, []byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:`+hex64+`","size":1,"platform":{"os":"linux","architecture":"arm"}}]}`))
	f.Add("", []byte(`{"schemaVersion":2,"config":{"digest":"sha256:`+hex64+`","size":1},"layers":[]}`))
	f.Add("", []byte(`{"rootfs":{"diff_ids":["sha256:`+hex64+`"]},"config":{"Volumes":{"/x":{}}}}`))
	f.Fuzz(func(t *testing.T, mt string, raw []byte) {
		m, merr := ParseManifest(mt, raw)
		x, xerr := ParseIndex(mt, raw)
		if merr == nil && xerr == nil && mt != "" {
			t.Error("read as both a manifest and an index")
		}
		if xerr == nil {
			x.Choose(Host())
			if _, err := x.Encode(); err != nil {
				t.Error(err)
			}
		}
		if merr == nil {
			if _, err := m.Encode(); err != nil {
				t.Error(err)
			}
		}
		if c, err := ParseConfig(raw); err == nil {
			if _, err := c.Encode(); err != nil {
				t.Error(err)
			}
		}
	})
}
