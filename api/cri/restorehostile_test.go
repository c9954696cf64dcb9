package cri

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/engine"
)

// member is an entry of an archive.
type member struct {
	tar.Header
	data string
}

func plain(name, data string) member { return member{tar.Header{Name: name}, data} }

// packed writes an archive.
func packed(t *testing.T, list ...member) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range list {
		h := m.Header
		h.Mode, h.Size = 0o644, int64(len(m.data))
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// sparse is the beginning of an archive: a file of 8 EiB, all hole (GNU's PAX format 1.0).
func sparse(t *testing.T, name string) string {
	t.Helper()
	record := func(text string) string {
		n := len(text) + len("00 \n") // its length counts its own digits
		return fmt.Sprintf("%d %s\n", n, text)
	}
	records := record("GNU.sparse.major=1") + record("GNU.sparse.minor=0") + record("GNU.sparse.name="+name) + record("GNU.sparse.realsize=9223372036854775807")
	raw := []byte(packed(t, member{tar.Header{Name: "PaxHeaders/x", Format: tar.FormatUSTAR}, records},
		member{tar.Header{Name: "x", Format: tar.FormatUSTAR}, "0\n" + strings.Repeat("\x00", 510)}))
	raw[156] = tar.TypeXHeader
	copy(raw[148:156], "        ") // the checksum's own field counts as blanks
	sum := 0
	for _, b := range raw[:512] {
		sum += int(b)
	}
	copy(raw[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return string(raw[:len(raw)-1024])
}

// Whoever writes a checkpoint writes what he likes: nothing of it reaches beyond the container that it is for, and what
// isn't whole, or isn't what is asked for, leaves nothing behind (CVE-2026-50195, CVE-2026-53489, CVE-2026-53492 and
// CVE-2024-8676 are of this kind).
func TestHostileCheckpoints(t *testing.T) {
	l := newLocal(t, Options{AllowRestore: true})
	image, err := l.engine.Image(t.Context(), "fuzz/image:latest")
	if err != nil {
		t.Fatal(err)
	}
	config := l.containerConfig()
	request, err := proto.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(l.dir, "outside")
	if err := os.Mkdir(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	var (
		named  = plain("config.dump", `{"rootfsImageRef":"`+image.ID+`","rootfsImageName":"other/name:latest","rootfsImage":"other/name:latest"}`)
		asked  = plain(requestFile, string(request))
		images = plain("checkpoint/inventory.img", "x")
		files  = plain(engine.SnapshotFiles, packed(t, plain("new", "file")))
		diff   = func(list ...member) []member {
			return []member{named, asked, images, plain(engine.SnapshotFiles, packed(t, list...))}
		}
	)
	whole := []member{named, asked, images, files}
	type checkpoint struct {
		archive string
		pod     string // pod.json; "" is the right one
		spoil   func(dir string) error
		want    string // of the error; "" is none
	}
	of := func(want string, list ...member) checkpoint {
		return checkpoint{archive: packed(t, list...), want: want}
	}
	with := func(want string, more ...member) checkpoint {
		return of(want, append(append([]member{}, more...), whole...)...)
	}
	describe := func(want, pod string) checkpoint {
		return checkpoint{archive: packed(t, whole...), pod: pod, want: want}
	}
	spoiled := func(want string, spoil func(dir string) error) checkpoint {
		return checkpoint{archive: packed(t, whole...), spoil: spoil, want: want}
	}
	many := make([]member, maxImages+1)
	for i := range many {
		many[i] = plain(fmt.Sprintf("checkpoint/pages-%d.img", i), "")
	}
	for name, c := range map[string]checkpoint{
		"whole": of("", whole...),
		"spec with devices, mounts and hooks": with("", plain("spec.dump", `{"annotations":{"cdi.k8s.io/x":"v.com/c=d"},"mounts":[{"source":"/","destination":"/host"}],"hooks":{"prestart":[{"path":"/bin/touch"}]}}`),
			plain("bind.mounts", `[{"source":"/"}]`), plain("annotations.dump", `{"cdi.k8s.io/x":"v.com/c=d"}`)),
		"log that is a link":        with("", member{tar.Header{Name: "container.log", Typeflag: tar.TypeSymlink, Linkname: "/etc/shadow"}, ""}),
		"names outside":             with("", plain("../outside/a", "x"), plain(outside+"/b", "x"), plain("a/../../outside/c", "x")),
		"image that is a link":      with("", member{tar.Header{Name: "checkpoint/core-1.img", Typeflag: tar.TypeSymlink, Linkname: outside + "/d"}, ""}),
		"image outside":             with("where CRIU's are", plain("checkpoint/../../../outside/e", "x")),
		"image in a folder":         with("where CRIU's are", plain("checkpoint/a/b", "x")),
		"image without a name":      with("where CRIU's are", plain("checkpoint/..", "x")),
		"image with a long name":    with("where CRIU's are", plain("checkpoint/"+strings.Repeat("a", 300), "x")),
		"image twice":               with("file exists", images),
		"images without end":        with("more than", many...),
		"image of holes":            {archive: sparse(t, "checkpoint/pages-1.img") + packed(t, whole...), want: "holes"},
		"image hidden in a link":    of("not of a whole checkpoint", named, asked, member{tar.Header{Name: "checkpoint/inventory.img", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}, ""}, files),
		"no processes":              of("not of a whole checkpoint", named, asked, files),
		"no files":                  of("not of a whole checkpoint", named, asked, images),
		"no image named":            of("not of a whole checkpoint", asked, images, files),
		"nothing said of a request": of("not of a whole checkpoint", named, images, files),
		"files twice":               with("files twice", files),
		"cut off":                   {archive: packed(t, whole...)[:560], want: "unexpected EOF"},
		"no archive":                {archive: strings.Repeat("evil", 1000), want: "invalid tar header"},
		"bad JSON":                  of("config.dump", plain("config.dump", `{`), asked, images, files),
		"deep JSON":                 of("config.dump", plain("config.dump", strings.Repeat("[", 1<<20)), asked, images, files),
		"endless JSON":              of("config.dump", plain("config.dump", strings.Repeat(" ", maxDescription+1)+"{}"), asked, images, files),
		"another image":             of("the checkpoint is of image", plain("config.dump", `{"rootfsImageRef":"sha256:`+strings.Repeat("0", 64)+`"}`), asked, images, files),
		"another image later":       with("the checkpoint is of image", plain("config.dump", `{}`)),
		"garbage for a request":     of(requestFile, named, plain(requestFile, "\xff\xff\xff"), images, files),
		"another request":           of("than what is asked for", named, plain(requestFile, ""), images, files),
		"file above the root":       of("leads out of the archive", diff(plain("../../outside/f", "x"))...),
		"file through a link":       of("", diff(member{tar.Header{Name: "way", Typeflag: tar.TypeSymlink, Linkname: outside}, ""}, plain("way/g", "x"))...),
		"link to the host":          of("etc/shadow", diff(member{tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "../../../../../../etc/shadow"}, ""})...),
		"all of the image hidden":   of("hide all of the image", diff(plain(".wh..wh..opq", ""))...),
		"file of holes":             of("exceeds the limit", named, asked, images, plain(engine.SnapshotFiles, sparse(t, "big")+packed(t))),
		"no description":            spoiled("pod.json", func(d string) error { return os.Remove(filepath.Join(d, podFile)) }),
		"bad description":           describe("pod.json", `{"version":1,`),
		"endless description":       describe("pod.json", strings.Repeat(" ", maxDescription+1)+"{}"),
		"description of the future": describe("version 2", `{"version":2}`),
		"archive elsewhere":         describe(`"../0.tar"`, `{"version":1,"containers":[{"name":"c","archive":"../0.tar"}]}`),
		"archive of two":            describe("not asked for", `{"version":1,"containers":[{"name":"c","archive":"0.tar"},{"name":"d","archive":"0.tar"}]}`),
		"one container twice":       describe(`container "c"`, `{"version":1,"containers":[{"name":"c","archive":"0.tar"},{"name":"c","archive":"1.tar"}]}`),
		"description that is a pipe": spoiled("not a file", func(d string) error {
			return replaced(filepath.Join(d, podFile), func(p string) error { return unix.Mkfifo(p, 0o600) })
		}),
		"archive that is a pipe": spoiled("not a file", func(d string) error {
			return replaced(filepath.Join(d, "0.tar"), func(p string) error { return unix.Mkfifo(p, 0o600) })
		}),
		"archive that is a link": spoiled("not a file", func(d string) error {
			if err := os.Rename(filepath.Join(d, "0.tar"), filepath.Join(d, "x")); err != nil {
				return err
			}
			return os.Symlink("x", filepath.Join(d, "0.tar"))
		}),
		"archive that is a folder": spoiled("not a file", func(d string) error {
			return replaced(filepath.Join(d, "0.tar"), func(p string) error { return os.Mkdir(p, 0o700) })
		}),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			description := c.pod
			if description == "" {
				description = `{"version":1,"containers":[{"name":"c","archive":"0.tar"}]}`
			}
			for file, text := range map[string]string{podFile: description, "0.tar": c.archive} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if c.spoil != nil {
				if err := c.spoil(dir); err != nil {
					t.Fatal(err)
				}
			}
			pod := l.podConfig()
			pod.Metadata.Name = "restored"
			began := time.Now()
			r, err := l.RestorePod(t.Context(), &runtimeapi.RestorePodRequest{CheckpointPath: dir, Config: pod, ContainerConfigs: []*runtimeapi.ContainerConfig{config}})
			if took := time.Since(began); took > endless {
				t.Errorf("it took %s", took)
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err == nil {
				l.lookAt(t, r)
			}
			for _, p := range l.engine.Pods() {
				if p.ID != l.pod {
					t.Errorf("pod %s is left", p.ID)
				}
			}
			if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
				t.Errorf("outside there are %v, %v", left, err)
			}
			if list, err := l.engine.Images(t.Context(), true); err != nil || len(list) != 1 || len(list[0].Names) != 1 {
				t.Errorf("images %v, %v", list, err)
			}
		})
	}
}

func replaced(path string, by func(string) error) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return by(path)
}

// lookAt checks that a restored container is what was asked for and no more, and removes it.
func (l *local) lookAt(t *testing.T, r *runtimeapi.RestorePodResponse) {
	t.Helper()
	i, err := l.engine.Member(r.RestoredContainers[0].ContainerId)
	if err != nil {
		t.Fatal(err)
	}
	if i.Spec.Member.Edits != nil || len(i.Spec.Mounts) > 0 || len(i.Spec.Resources.Devices) > 0 || i.State.Status != engine.Created {
		t.Errorf("%+v", i.Spec)
	}
	if _, err := l.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: r.PodSandboxId}); err != nil {
		t.Fatal(err)
	}
}
