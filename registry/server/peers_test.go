package server

import (
	"bytes"
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"cale/image"
	"cale/image/pull"
	"cale/image/push"
	"cale/registry/client"
	"cale/test/images"
)

// Our client against our server, with an image that was pulled before; and
// that again into another store.
func TestOwnClient(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("unpacking layers needs root")
	}
	f := newFixture(t, Options{})
	roundTrip(f, f.addr)
}

func roundTrip(f *fixture, to string) {
	c := client.New(client.Options{})
	img := small(f.T, strings.Repeat("content ", 1000))
	f.push("src/img:1", img)
	local := openStore(f.T)
	ref := image.Reference{Domain: f.addr, Path: "src/img", Tag: "1"}
	d, err := pull.Pull(f.ctx(), pull.Options{Store: local, Client: c, Ref: ref})
	if err != nil {
		f.Fatal(err)
	}
	dst := image.Reference{Domain: to, Path: "dst/img", Tag: "v2"}
	for _, want := range []string{"Pushed", "Layer already exists"} {
		last := ""
		got, err := push.Push(f.ctx(), push.Options{Store: local, Client: c, Ref: dst, Name: ref.String(), Progress: func(e pull.Event) { last = e.Status }})
		if err != nil || got.Digest != d.Digest {
			f.Fatal(got, err)
		}
		if to == f.addr && want == "Pushed" {
			want = "Mounted from src/img"
		}
		if last != want {
			f.Errorf("the layer was %q, want %q", last, want)
		}
	}
	other := openStore(f.T)
	if got, err := pull.Pull(f.ctx(), pull.Options{Store: other, Client: c, Ref: dst}); err != nil || got.Digest != d.Digest {
		f.Fatal(got, err)
	}
	if err := c.Ping(f.ctx(), to); err != nil {
		f.Error(err)
	}
	_, err = push.Push(f.ctx(), push.Options{Store: local, Client: c, Ref: dst.WithTag("nope")})
	if want := "An image does not exist locally with the tag: " + dst.FamiliarName(); err == nil || err.Error() != want {
		f.Error(err)
	}
}

// Our client against Debian's docker-registry.
func TestDockerRegistry(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("unpacking layers needs root")
	}
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed")
	}
	dir := t.TempDir()
	var log bytes.Buffer
	addr := "127.0.0.1:" + freePort(t)
	conf := fmt.Sprintf("version: 0.1\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\nlog: {level: error}\n", dir, addr)
	if err := os.WriteFile(dir+"/config.yml", []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "serve", dir+"/config.yml")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	c := client.New(client.Options{})
	deadline := time.Now().Add(30 * time.Second)
	for c.Ping(context.Background(), addr) != nil {
		if time.Now().After(deadline) {
			t.Skipf("docker-registry doesn't answer: %s", log.String())
		}
		time.Sleep(50 * time.Millisecond)
	}
	roundTrip(newFixture(t, Options{}), addr)
}

func freePort(t *testing.T) string {
	s := httptest.NewServer(nil)
	defer s.Close()
	_, port, _ := strings.Cut(s.Listener.Addr().String(), ":")
	return port
}

// skopeo to and from our server, with all images of an index.
func TestSkopeo(t *testing.T) {
	bin, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	f := newFixture(t, Options{})
	img := small(t, "1")
	dir := t.TempDir()
	if err := img.WriteLayout(dir, "1"); err != nil {
		t.Fatal(err)
	}
	skopeo := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(f.ctx(), bin, append([]string{"--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("skopeo %s: %v: %s", args, err, out)
		}
	}
	at := "docker://" + f.addr
	skopeo("oci:"+dir+":1", at+"/sk/opeo:1")
	f.do("GET", "/v2/sk/opeo/manifests/"+img.Manifest.Digest(), nil, nil, 200)
	skopeo("--format=v2s2", at+"/sk/opeo:1", at+"/sk/docker:1")
	if err := images.PushIndex(f.ctx(), f.addr, "index:1", img, small(t, "2")); err != nil {
		t.Fatal(err)
	}
	skopeo("--all", at+"/index:1", at+"/copy/index:1")
	skopeo("--all", at+"/copy/index:1", "dir:"+dir+"/out")
}
