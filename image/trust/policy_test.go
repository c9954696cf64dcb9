package trust

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cale/image"
)

func reference(t testing.TB, s string) image.Reference {
	t.Helper()
	r, err := image.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const accepting = `[{"type":"insecureAcceptAnything"}]`

// with is a policy with one requirement for everything.
func with(requirement string) string { return `{"default":[` + requirement + `]}` }

func TestPolicyRefused(t *testing.T) {
	key := `"keyData":"aGVsbG8="`
	for text, want := range map[string]string{
		``:                                "not valid JSON",
		`[]`:                              "no JSON object",
		`null`:                            "no JSON object",
		`{}`:                              "no default",
		`{"default":[]}`:                  "is empty",
		`{"default":{}}`:                  "no list",
		`{"default":[null]}`:              `unknown type ""`,
		`{"default":[1]}`:                 "no requirement",
		`{"default":` + accepting + `} x`: "something follows",
		`{"default":` + accepting:         "not valid JSON",
		`{"default":` + accepting + `,"default":[{"type":"reject"}]}`:                                                               `"default" is there twice`,
		`{"Default":` + accepting + `}`:                                                                                             `unknown key "Default"`,
		`{"default":` + accepting + `,"transport":{}}`:                                                                              `unknown key "transport"`,
		`{"default":` + accepting + `,"transports":null}`:                                                                           "no JSON object",
		`{"default":` + accepting + `,"transports":{"docker":{"a.b":[]}}}`:                                                          `scope "a.b"`,
		`{"default":` + accepting + `,"transports":{"oci":{"/x":[{"type":"no"}]}}}`:                                                 `unknown type "no"`,
		`{"default":` + accepting + `,"transports":{"docker":{"a.b":` + accepting + `,"a.b":[{"type":"reject"}]}}}`:                 "there twice",
		`{"default":` + accepting + `,"transports":{"docker":{"A/B":` + accepting + `}}}`:                                           "neither a registry",
		`{"default":` + accepting + `,"transports":{"docker":{"*.a.b/c":` + accepting + `}}}`:                                       "has no path",
		with(`{"type":"reject","type":"insecureAcceptAnything"}`):                                                                   "there twice",
		with(`{"Type":"insecureAcceptAnything"}`):                                                                                   `unknown key "Type"`,
		with(`{"type":"insecureAcceptAnything","keyPath":"x"}`):                                                                     `unknown key "keyPath"`,
		with(`{"type":"sigstoreSigned"}`):                                                                                           "exactly one of",
		with(`{"type":"sigstoreSigned","keyPath":""}`):                                                                              "no text",
		with(`{"type":"sigstoreSigned","keyPaths":[]}`):                                                                             "no list of texts",
		with(`{"type":"sigstoreSigned","keyData":"?"}`):                                                                             "no base64",
		with(`{"type":"sigstoreSigned","keyPath":"x",` + key + `}`):                                                                 "another field",
		with(`{"type":"sigstoreSigned",` + key + `,"KeyData":"x"}`):                                                                 `unknown key "KeyData"`,
		with(`{"type":"sigstoreSigned",` + key + `,"fulcio":{}}`):                                                                   "one of caPath and caData",
		with(`{"type":"sigstoreSigned","fulcio":{"caPath":"a","oidcIssuer":"b"}}`):                                                  "must be there",
		with(`{"type":"sigstoreSigned","fulcio":{"caPath":"a","oidcIssuer":"b","subjectEmail":"c"}}`):                               "needs the log's key",
		with(`{"type":"sigstoreSigned",` + key + `,"signedIdentity":{"type":"x"}}`):                                                 `unknown type "x"`,
		with(`{"type":"sigstoreSigned",` + key + `,"signedIdentity":{"type":"matchExact","prefix":"x"}}`):                           "unknown key",
		with(`{"type":"sigstoreSigned",` + key + `,"signedIdentity":{"type":"exactReference"}}`):                                    "needs dockerReference",
		with(`{"type":"sigstoreSigned",` + key + `,"signedIdentity":{"type":"exactReference","dockerReference":"a.b/c"}}`):          "with its tag or digest",
		with(`{"type":"sigstoreSigned",` + key + `,"signedIdentity":{"type":"exactRepository","dockerRepository":"a.b/c:1"}}`):      "no repository",
		with(`{"type":"sigstoreSigned",` + key + `,"signedIdentity":{"type":"remapIdentity","prefix":"a.b","signedPrefix":"*.c"}}`): "neither a registry",
		with(`{"type":"signedBy","keyType":"x","keyPath":"x"}`):                                                                     `unknown keyType`,
		with(`{"type":"signedBy","keyType":"GPGKeys"}`):                                                                             "exactly one of",
		with(`{"type":"signedBaseLayer"}`):                                                                                          "unknown type",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"", dir} {
		p, err := Load(d)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := p.Check(t.Context(), Image{Ref: reference(t, "busybox")}); err != nil || v.Scope != "default" || !slices.Equal(v.Types, []string{TypeAccept}) {
			t.Errorf("%+v, %v", v, err)
		}
	}
	path := filepath.Join(dir, File)
	for _, text := range []string{"", "{}", strings.Repeat(" ", maxPolicy+1)} {
		os.WriteFile(path, []byte(text), 0o600)
		if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%.10q: %v", text, err)
		}
	}
	os.Remove(path)
	os.Mkdir(path, 0o700)
	if _, err := Load(dir); err == nil {
		t.Error("a policy that can't be read is passed over")
	}
}

// The most specific scope counts, alone.
func TestScopes(t *testing.T) {
	const digest = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for ref, want := range map[string]string{
		"busybox":                  "docker.io/library/busybox:latest docker.io/library/busybox docker.io/library docker.io *.io ",
		"r.example.com:5000/a/b:1": "r.example.com:5000/a/b:1 r.example.com:5000/a/b r.example.com:5000/a r.example.com:5000 *.example.com:5000 *.com:5000 ",
		"localhost/a" + digest:     "localhost/a" + digest + " localhost/a localhost ",
		"a.b/c:1" + digest:         "a.b/c" + digest + " a.b/c:1 a.b/c a.b *.b ",
	} {
		if got := strings.Join(Scopes(reference(t, ref)), " "); got != want {
			t.Errorf("%s: %q", ref, got)
		}
	}
	p, err := Parse([]byte(`{"default":[{"type":"reject"}],"transports":{"docker":{
		"a.b/c": ` + accepting + `, "a.b/c:bad": [{"type":"reject"}], "*.b.d": ` + accepting + `, "x.b.d": [{"type":"reject"}]},
		"oci": {"": ` + accepting + `}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]bool{
		"a.b/c": true, "a.b/c:1": true, "a.b/c/d": true, "a.b/c:bad": false, "a.b/cd": false, "a.b/d": false, "busybox": false,
		"y.b.d/e": true, "z.y.b.d/e": true, "x.b.d/e": false, "b.d/e": false,
	} {
		_, err := p.Check(t.Context(), Image{Ref: reference(t, ref)})
		if (err == nil) != want {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestIdentity(t *testing.T) {
	const digest = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	remap := func(prefix, signed string) identity {
		return identity{kind: remapIdentity, prefix: prefix, signedPrefix: signed}
	}
	for _, c := range []struct {
		id          identity
		ref, signed string
		ok          bool
	}{
		{identity{}, "a.b/c:1", "a.b/c:1", true},
		{identity{}, "a.b/c", "a.b/c:latest", true},
		{identity{}, "a.b/c", "a.b/c", false}, // no tag is not the tag latest
		{identity{}, "a.b/c:1", "a.b/c:2", false},
		{identity{}, "a.b/c:1", "a.b/d:1", false},
		{identity{}, "a.b/c" + digest, "a.b/c", true},
		{identity{}, "a.b/c" + digest, "a.b/c:7", true},
		{identity{}, "a.b/c" + digest, "a.b/d", false},
		{identity{}, "busybox", "index.docker.io/library/busybox:latest", true},
		{identity{kind: matchExact}, "a.b/c" + digest, "a.b/c:1", false},
		{identity{kind: matchExact}, "a.b/c" + digest, "a.b/c" + digest, true},
		{identity{kind: matchRepository}, "a.b/c:1", "a.b/c", true},
		{identity{kind: matchRepository}, "a.b/c:1", "a.b/c/d", false},
		{identity{kind: exactReference, value: "a.b/c:1"}, "x.y/z", "a.b/c:1", true},
		{identity{kind: exactReference, value: "a.b/c:1"}, "a.b/c:2", "a.b/c:2", false},
		{identity{kind: exactRepository, value: "a.b/c"}, "x.y/z", "a.b/c:1", true},
		{identity{kind: exactRepository, value: "a.b/c"}, "x.y/z", "a.b/cd:1", false},
		{remap("m.n", "a.b"), "m.n/c:1", "a.b/c:1", true},
		{remap("m.n", "a.b"), "m.n/c:1", "m.n/c:1", false},
		{remap("m.n", "a.b"), "m.no/c:1", "m.no/c:1", true},
		{remap("m.n", "a.b"), "m.n:5/c:1", "a.b:5/c:1", false},
		{remap("m.n/x", "a.b"), "m.n/x/c:1", "a.b/c:1", true},
		{remap("m.n/x", "a.b/y"), "m.n/x:1", "a.b/y:1", true},
		{remap("m.n/x", "a.b/y"), "m.n/xz:1", "m.n/xz:1", true},
		{identity{}, "a.b/c", "", false},
		{identity{kind: matchRepository}, "a.b/c", "A B", false},
	} {
		if err := c.id.match(reference(t, c.ref), c.signed); (err == nil) != c.ok {
			t.Errorf("%+v: %s signed as %s: %v", c.id, c.ref, c.signed, err)
		}
	}
}

func FuzzPolicy(f *testing.F) {
	f.Add([]byte(with(`{"type":"reject"}`)))
	f.Add([]byte(`{"default":[{"type":"reject"}],"transports":{"docker":{"":[{"type":"sigstoreSigned","keyData":"aGVsbG8=","signedIdentity":{"type":"matchRepository"}}]}}}`))
	f.Add([]byte(with(`{"type":"sigstoreSigned","fulcio":{"caData":"eA==","oidcIssuer":"b","subjectEmail":"c"},"rekorPublicKeyData":"eA=="}`)))
	ref := reference(f, "a.b/c:1")
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := Parse(raw)
		if err != nil {
			return
		}
		v, err := p.Check(t.Context(), Image{Ref: ref, Digests: []image.Digest{image.FromBytes(nil)}, Signatures: none})
		if err == nil && (len(v.Types) == 0 || slices.ContainsFunc(v.Types, func(s string) bool { return s != TypeAccept })) {
			t.Errorf("an unsigned image is let in by %+v", v)
		}
	})
}

func TestEdit(t *testing.T) {
	raw, err := Edit(nil, "a.b/c", []byte(`[{"type":"reject"}]`))
	if err != nil {
		t.Fatal(err)
	}
	if raw, err = Edit(raw, "", []byte(accepting)); err != nil {
		t.Fatal(err)
	}
	if raw, err = Edit(raw, "default", []byte(`[{"type":"reject"}]`)); err != nil {
		t.Fatal(err)
	}
	p, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{"a.b/c": "a.b/c", "a.b/d": ""} {
		if scope, _ := p.required(reference(t, ref)); scope != want {
			t.Errorf("%s: %q", ref, scope)
		}
	}
	if raw, err = Edit(raw, "a.b/c", nil); err != nil || strings.Contains(string(raw), "a.b/c") {
		t.Errorf("%s, %v", raw, err)
	}
	for _, c := range []struct{ policy, scope, list string }{
		{string(raw), "a.b/c", ""},
		{string(raw), "default", ""},
		{string(raw), "A/B", accepting},
		{string(raw), "a.b", "[]"},
		{string(raw), "a.b", "x"},
		{"{}", "a.b", accepting},
	} {
		var list []byte
		if c.list != "" {
			list = []byte(c.list)
		}
		if _, err := Edit([]byte(c.policy), c.scope, list); err == nil {
			t.Errorf("%+v", c)
		}
	}
}
