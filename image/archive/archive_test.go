package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cale/image"
	"cale/image/store"
)

func open(t testing.TB) (*store.Store, string) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "cale-archive-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, dir
}

// layerTar is a layer of one file.
func layerTar(t testing.TB, name, data string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644})
	w.Write([]byte(data))
	w.Close()
	return b.Bytes()
}

func squeeze(raw []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(raw)
	w.Close()
	return b.Bytes()
}

// build stores an image for a platform.
func build(t testing.TB, s *store.Store, p image.Platform, layers ...string) image.Descriptor {
	t.Helper()
	put := func(mt string, raw []byte, err error) image.Descriptor {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		d, err := s.Put(mt, raw)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	c := &image.Config{Platform: p}
	m := &image.Manifest{}
	for _, l := range layers {
		raw := layerTar(t, l, l)
		c.DiffIDs = append(c.DiffIDs, image.FromBytes(raw))
		m.Layers = append(m.Layers, put(image.MediaTypeLayerGzip, squeeze(raw), nil))
	}
	raw, err := c.Encode()
	m.Config = put(image.MediaTypeConfig, raw, err)
	raw, err = m.Encode()
	d := put(image.MediaTypeManifest, raw, err)
	d.Platform = &p
	return d
}

func ref(t testing.TB, s string) image.Reference {
	t.Helper()
	r, err := image.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func load(t testing.TB, s *store.Store, raw []byte) ([]Loaded, error) {
	t.Helper()
	var out []Loaded
	err := Load(context.Background(), bytes.NewReader(raw), s, func(l Loaded) error {
		out = append(out, l)
		return nil
	})
	return out, err
}

func TestRoundTrip(t *testing.T) {
	from, _ := open(t)
	host, other := image.Host(), image.Platform{OS: "linux", Architecture: "s390x"}
	one := build(t, from, host, "a", "b")
	two := build(t, from, other, "a", "c")
	x := &image.Index{Manifests: []image.Descriptor{one, two}}
	raw, _ := x.Encode()
	both, err := from.Put(image.MediaTypeIndex, raw)
	if err != nil {
		t.Fatal(err)
	}
	items := []Item{
		{one, []image.Reference{ref(t, "one:1"), ref(t, "localhost:5000/one:2")}},
		{both, []image.Reference{ref(t, "both")}},
		{two, nil},
	}
	var buf, again bytes.Buffer
	if err := Save(context.Background(), &buf, from, items); err != nil {
		t.Fatal(err)
	}
	Save(context.Background(), &again, from, items)
	if !bytes.Equal(buf.Bytes(), again.Bytes()) {
		t.Error("the same images gave other bytes")
	}
	for name, raw := range map[string][]byte{"plain": buf.Bytes(), "gzip": squeeze(buf.Bytes())} {
		to, _ := open(t)
		got, err := load(t, to, raw)
		if err != nil {
			t.Fatal(name, err)
		}
		var names []string
		for _, l := range got {
			names = append(names, l.Name.Familiar()+"="+l.Target.Digest.Short())
		}
		want := fmt.Sprintf("one:1=%[1]s localhost:5000/one:2=%[1]s both:latest=%[2]s =%[3]s", one.Digest.Short(), both.Digest.Short(), two.Digest.Short())
		if s := strings.TrimSpace(strings.Join(names, " ")); s != strings.Replace(want, " =", " "+image.Reference{}.Familiar()+"=", 1) {
			t.Errorf("%s: %s, want %s", name, s, want)
		}
		if miss, err := to.Missing(both, other); err != nil || len(miss) > 0 {
			t.Errorf("%s: missing %v, %v", name, miss, err)
		}
	}
}

// TestSaveOfOnePlatform: of an index of which one platform was pulled, that
// one is saved (moby#50851).
func TestSaveOfOnePlatform(t *testing.T) {
	from, _ := open(t)
	other := image.Platform{OS: "linux", Architecture: "s390x"}
	d := build(t, from, other, "a")
	host := image.Host()
	absent := image.Descriptor{MediaType: image.MediaTypeManifest, Digest: image.FromBytes([]byte("x")), Size: 1, Platform: &host}
	x := &image.Index{Manifests: []image.Descriptor{absent, d}}
	raw, _ := x.Encode()
	idx, _ := from.Put(image.MediaTypeIndex, raw)
	var buf bytes.Buffer
	if err := Save(context.Background(), &buf, from, []Item{{idx, []image.Reference{ref(t, "x")}}}); err != nil {
		t.Fatal(err)
	}
	to, _ := open(t)
	got, err := load(t, to, buf.Bytes())
	if err != nil || len(got) != 1 || got[0].Target.Digest != d.Digest {
		t.Errorf("%+v, %v", got, err)
	}
	absent.Platform = nil
	buf.Reset()
	if err := Save(context.Background(), &buf, from, []Item{{d, nil}, {absent, nil}}); !errors.Is(err, store.ErrNotFound) || buf.Len() > 0 {
		t.Errorf("save of nothing: %v, after %d bytes", err, buf.Len())
	}
}

type file struct {
	name string
	data string
	link string
}

func tarOf(files ...file) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Size: int64(len(f.data)), Mode: 0o644}
		if f.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		}
		w.WriteHeader(h)
		w.Write([]byte(f.data))
	}
	w.Close()
	return b.Bytes()
}

// TestOldDockerSave: the form before docker 25, with layers that are links.
func TestOldDockerSave(t *testing.T) {
	l := layerTar(t, "f", "content")
	id := image.FromBytes(l)
	config := `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["` + id.String() + `","` + id.String() + `"]}}`
	raw := tarOf(
		file{name: "aaa/layer.tar", data: string(l)},
		file{name: "bbb/layer.tar", link: "../aaa/layer.tar"},
		file{name: "ccc.json", data: config},
		file{name: "repositories", data: "{}"},
		file{name: "manifest.json", data: `[{"Config":"ccc.json","RepoTags":["x:1","user/x:2"],"Layers":["aaa/layer.tar","bbb/layer.tar"]}]`},
	)
	s, _ := open(t)
	got, err := load(t, s, raw)
	if err != nil || len(got) != 2 || got[1].Name.Familiar() != "user/x:2" || got[0].ID != image.FromBytes([]byte(config)) {
		t.Fatalf("%+v, %v", got, err)
	}
	img, err := s.Image(got[0].Target, image.Platform{})
	if err != nil || len(img.Manifest.Layers) != 2 || img.Manifest.Layers[1].MediaType != image.MediaTypeLayer {
		t.Errorf("%v", err)
	}
}

func TestHostileArchives(t *testing.T) {
	d := image.FromBytes([]byte("x")).Encoded()
	for name, raw := range map[string][]byte{
		"Nothing":       tarOf(),
		"NoTar":         []byte(strings.Repeat("garbage", 1000)),
		"WrongBlob":     tarOf(file{name: "blobs/sha256/" + d, data: "y"}, file{name: "index.json", data: "{}"}),
		"MissingBlob":   tarOf(file{name: "index.json", data: `{"schemaVersion":2,"manifests":[{"digest":"sha256:` + d + `","size":1}]}`}),
		"ConfigOutside": tarOf(file{name: "manifest.json", data: `[{"Config":"../../etc/passwd","Layers":[]}]`}),
		"LinkOutside":   tarOf(file{name: "c", link: "/etc/passwd"}, file{name: "manifest.json", data: `[{"Config":"c","Layers":[]}]`}),
		"LinkLoop":      tarOf(file{name: "c", link: "d"}, file{name: "d", link: "c"}, file{name: "manifest.json", data: `[{"Config":"c","Layers":[]}]`}),
		"BadTag":        tarOf(file{name: "c", data: `{"rootfs":{}}`}, file{name: "manifest.json", data: `[{"Config":"c","RepoTags":["../x"],"Layers":[]}]`}),
		"TooFewLayers":  tarOf(file{name: "c", data: `{"rootfs":{}}`}, file{name: "manifest.json", data: `[{"Config":"c","Layers":["c"]}]`}),
		"NoImages":      tarOf(file{name: "manifest.json", data: `[]`}),
		"HugeDocument":  tarOf(file{name: "manifest.json", data: "[" + strings.Repeat(" ", maxDocument) + "]"}),
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t)
			if got, err := load(t, s, raw); err == nil {
				t.Errorf("loaded %+v", got)
			}
			s.GC(context.Background())
			if all, _ := s.Blobs(); len(all) != 0 {
				t.Errorf("left: %v", all)
			}
		})
	}
}

// TestSkopeo goes through skopeo's three archive forms and back.
func TestSkopeo(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	from, dir := open(t)
	d := build(t, from, image.Host(), "a", "b")
	saved := filepath.Join(dir, "saved.tar")
	f, err := os.Create(saved)
	if err != nil {
		t.Fatal(err)
	}
	if err := Save(context.Background(), f, from, []Item{{d, []image.Reference{ref(t, "x:1")}}}); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for name, args := range map[string][2]string{
		"OCIToDocker":    {"oci-archive:" + saved, "docker-archive:%s:y:2"},
		"DockerToDocker": {"docker-archive:" + saved, "docker-archive:%s:y:2"},
		"OCIToOCI":       {"oci-archive:" + saved, "oci-archive:%s:y:2"},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(dir, name+".tar")
			cmd := exec.Command(skopeo, "--insecure-policy", "copy", args[0], fmt.Sprintf(args[1], out))
			cmd.Env = append(os.Environ(), "TMPDIR="+dir)
			if b, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, b)
			}
			raw, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			to, _ := open(t)
			got, err := load(t, to, raw)
			if err != nil || len(got) != 1 || got[0].Name.Familiar() != "y:2" {
				t.Fatalf("%+v, %v", got, err)
			}
			img, err := to.Image(got[0].Target, image.Platform{})
			if err != nil {
				t.Fatal(err)
			}
			for i, l := range img.Manifest.Layers {
				b, err := to.Open(l.Digest)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := to.Layers.Unpack(context.Background(), b, l.MediaType, img.Config.DiffIDs[i]); err != nil {
					t.Error(err)
				}
				b.Close()
			}
		})
	}
}
