// Package interop holds other tools against Cale: what they write it reads, and what it has they read, to the last
// attribute of the last file.
package interop

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cale/test/images"
	"cale/test/stack"

	"golang.org/x/sys/unix"
)

// bench is one Cale, and a place for the other tools.
type bench struct {
	*testing.T
	cale *stack.Stack
	dir  string
	want tree
	img  *images.Image
}

// tool skips the test if a program is missing, unless CALE_INTEROP says that all must be there.
func tool(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			if os.Getenv("CALE_INTEROP") != "" {
				t.Fatal(err)
			}
			t.Skip(n + " is not installed")
		}
	}
}

func setup(t *testing.T) *bench {
	s := stack.New(t)
	dir, err := os.MkdirTemp("/dev/shm", "cale-interop-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	files, after := layers()
	img, err := images.New(images.Spec{Layers: files, Run: images.Run{Cmd: []string{"/bin/ping"}}})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := images.Tar(after)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, cale: s, dir: dir, want: fromTar(t, bytes.NewReader(raw)), img: img}
	if err := img.Push(context.Background(), s.Registry, "whole:1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.path("after.tar"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }
func (b *bench) ref() string             { return b.cale.Registry + "/whole:1" }

// run runs another tool's command and returns its standard output.
func (b *bench) run(argv ...string) string {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*stack.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	cmd.Env = append(os.Environ(), "HOME="+b.dir, "XDG_RUNTIME_DIR="+b.dir)
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// ours are the names that an engine adds to a container's tree.
var ours = []string{"dev", "etc", "proc", "sys", ".dockerenv", "run"}

// read is the tree that Cale makes of an image, and checks that the image's tree is it.
func (b *bench) read(who, image string, l loose) {
	b.Helper()
	b.cale.Cale("create", "--name", "reader", image, "/bin/ping").OK(b)
	out := b.cale.Cale("export", "reader").OK(b)
	b.cale.Cale("rm", "reader").OK(b)
	l.extra = ours
	same(b.T, who, fromTar(b.T, strings.NewReader(out)), b.want, l)
}

// source is the tree on disk, for tools that make images of trees.
func (b *bench) source() string {
	dir := b.path("source")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	b.run("tar", "-C", dir, "--xattrs", "--xattrs-include=*", "--same-owner", "-xpf", b.path("after.tar"))
	same(b.T, "tar", fromDir(b.T, dir), b.want, loose{})
	return dir
}

// digest is what a registry has under a name.
func (b *bench) digest(ref string) string {
	b.Helper()
	return b.run("skopeo", "inspect", "--tls-verify=false", "-f", "{{.Digest}}", "docker://"+ref)
}

func TestCale(t *testing.T) {
	b := setup(t)
	b.cale.Cale("pull", "-q", b.ref()).OK(t)
	b.read("cale", b.ref(), loose{})
	b.cale.Cale("system", "check").OK(t)
}

// skopeo copies between all its formats and our registry; the image stays the same wherever the format does.
func TestSkopeo(t *testing.T) {
	tool(t, "skopeo")
	b := setup(t)
	copy := func(args ...string) {
		b.Helper()
		b.run(append([]string{"skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"}, args...)...)
	}
	at := "docker://" + b.cale.Registry
	for i, form := range []string{"oci:", "oci-archive:", "dir:", "docker-archive:"} {
		place := form + b.path(fmt.Sprint("form", i))
		if form != "dir:" {
			place += ":whole:1"
		}
		copy("docker://"+b.ref(), place)
		copy(place, fmt.Sprintf("%s/form%d:1", at, i))
		if got := b.digest(fmt.Sprintf("%s/form%d:1", b.cale.Registry, i)); got != b.img.Manifest.Digest() && form != "docker-archive:" {
			t.Errorf("%s: the digest is %s, not %s", form, got, b.img.Manifest.Digest())
		}
		b.read("skopeo "+form, fmt.Sprintf("%s/form%d:1", b.cale.Registry, i), loose{})
		if strings.HasSuffix(form, "archive:") {
			b.cale.Cale("rmi", fmt.Sprintf("%s/form%d:1", b.cale.Registry, i)).OK(t)
			b.cale.Cale("load", "-q", "-i", b.path(fmt.Sprint("form", i))).OK(t)
			b.read("load of "+form, "whole:1", loose{})
			b.cale.Cale("rmi", "whole:1").OK(t)
		}
	}
	copy("--format=v2s2", "docker://"+b.ref(), at+"/v2s2:1")
	b.read("skopeo v2s2", b.cale.Registry+"/v2s2:1", loose{})
	copy("--dest-compress-format=zstd", "dir:"+b.path("form2"), at+"/zstd:1")
	b.read("skopeo zstd", b.cale.Registry+"/zstd:1", loose{})

	// And what we save it reads.
	b.cale.Cale("pull", "-q", b.ref()).OK(t)
	b.cale.Cale("save", "-o", b.path("saved.tar"), b.ref()).OK(t)
	copy("oci-archive:"+b.path("saved.tar"), at+"/saved:1")
	if got := b.digest(b.cale.Registry + "/saved:1"); got != b.img.Manifest.Digest() {
		t.Errorf("saved: the digest is %s, not %s", got, b.img.Manifest.Digest())
	}
	copy("docker-archive:"+b.path("saved.tar"), at+"/saved:2")
	b.read("saved as docker-archive", b.cale.Registry+"/saved:2", loose{})
	b.cale.Cale("save", "--format", "oci-dir", "-o", b.path("folder"), b.ref()).OK(t)
	copy("oci:"+b.path("folder"), at+"/saved:3")
	if got := b.digest(b.cale.Registry + "/saved:3"); got != b.img.Manifest.Digest() {
		t.Errorf("saved as a folder: the digest is %s, not %s", got, b.img.Manifest.Digest())
	}
	b.cale.Cale("save", "--format", "oci-dir", "-o", b.path("folder"), b.ref()).Exit(t, 1)
	b.cale.Cale("rmi", "-f", b.ref()).OK(t)
	b.cale.Cale("load", "-q", "-i", b.path("form0")).OK(t) // skopeo's folder
	b.read("load of a folder", "whole:1", loose{})
	b.cale.Cale("load", "-q", "-i", b.dir).Exit(t, 1) // a folder of other things
}

func TestUmoci(t *testing.T) {
	tool(t, "umoci", "skopeo")
	b := setup(t)
	b.run("skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", "docker://"+b.ref(), "oci:"+b.path("layout")+":1")
	b.run("umoci", "unpack", "--image", b.path("layout")+":1", b.path("bundle"))
	same(t, "umoci", fromDir(t, b.path("bundle/rootfs")), b.want, loose{})

	b.run("umoci", "init", "--layout", b.path("made"))
	b.run("umoci", "new", "--image", b.path("made")+":1")
	b.run("umoci", "insert", "--image", b.path("made")+":1", b.source(), "/")
	b.run("skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "oci:"+b.path("made")+":1", "docker://"+b.cale.Registry+"/umoci:1")
	b.read("umoci insert", b.cale.Registry+"/umoci:1", loose{seconds: true}) // which is all that umoci writes
}

// containers are podman's and buildah's flags for a store of their own.
func (b *bench) containers(program string) []string {
	b.Cleanup(func() { // vfs mounts nothing but its own root
		unix.Unmount(b.path("containers"), unix.MNT_DETACH)
		unix.Unmount(b.path("containers/vfs"), unix.MNT_DETACH)
	})
	policy := b.path("policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600); err != nil {
		b.Fatal(err)
	}
	flags := []string{program, "--root", b.path("containers"), "--runroot", b.path("containers-run"), "--storage-driver", "vfs"}
	return flags
}

func TestPodman(t *testing.T) {
	tool(t, "podman", "skopeo")
	b := setup(t)
	podman := func(args ...string) string {
		b.Helper()
		return b.run(append(append(b.containers("podman"), "--cgroup-manager=cgroupfs"), args...)...)
	}
	id := podman("pull", "-q", "--tls-verify=false", b.ref())
	if id != strings.TrimPrefix(b.img.Config.Digest(), "sha256:") {
		t.Errorf("the image is %s, not %s", id, b.img.Config.Digest())
	}
	same(t, "podman", fromDir(t, podman("image", "mount", id)), b.want, loose{})
	podman("image", "unmount", id)
	podman("push", "-q", "--tls-verify=false", id, b.cale.Registry+"/podman:1")
	b.read("podman push", b.cale.Registry+"/podman:1", loose{})
	for _, format := range []string{"docker-archive", "oci-archive"} {
		podman("save", "-q", "--format", format, "-o", b.path(format), b.ref())
		b.cale.Cale("rmi", "-f", b.ref()).OK(t)
		b.cale.Cale("load", "-q", "-i", b.path(format)).OK(t)
		b.read("podman save as "+format, b.ref(), loose{})
	}
	podman("rmi", "-f", id)
	b.cale.Cale("save", "-o", b.path("ours.tar"), b.ref()).OK(t)
	if out := podman("load", "-q", "-i", b.path("ours.tar")); !strings.Contains(out, "whole:1") {
		t.Errorf("podman load says %q", out)
	}
	same(t, "podman load", fromDir(t, podman("image", "mount", b.ref())), b.want, loose{})
	podman("image", "unmount", b.ref())
}

func TestBuildah(t *testing.T) {
	tool(t, "buildah")
	b := setup(t)
	buildah := func(args ...string) string {
		b.Helper()
		return b.run(append(b.containers("buildah"), args...)...)
	}
	id := buildah("from", "scratch")
	b.run("cp", "-a", b.source()+"/.", buildah("mount", id))
	buildah("unmount", id)
	buildah("commit", "-q", id, "made:1")
	buildah("push", "-q", "--tls-verify=false", "made:1", "docker://"+b.cale.Registry+"/buildah:1")
	b.read("buildah", b.cale.Registry+"/buildah:1", loose{seconds: true}) // which is all that buildah writes
	buildah("push", "-q", "--format=v2s2", "--tls-verify=false", "made:1", "docker://"+b.cale.Registry+"/buildah:2")
	b.read("buildah v2s2", b.cale.Registry+"/buildah:2", loose{seconds: true})
	buildah("rm", id)
	id = buildah("from", "--tls-verify=false", "docker://"+b.ref())
	same(t, "buildah", fromDir(t, buildah("mount", id)), b.want, loose{extra: []string{"etc", "proc", "run", "sys"}})
	buildah("unmount", id)
	buildah("rm", id)
}

// Debian's docker-registry gives back what we push, by the same digest.
func TestDockerRegistry(t *testing.T) {
	tool(t, "docker-registry", "skopeo")
	b := setup(t)
	addr := fmt.Sprintf("127.0.0.1:%d", stack.FreePort(t))
	conf := fmt.Sprintf("version: 0.1\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\nlog: {level: error}\n", b.path("registry"), addr)
	if err := os.WriteFile(b.path("config.yml"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", b.path("config.yml"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	b.cale.Cale("pull", "-q", b.ref()).OK(t)
	b.cale.Cale("tag", b.ref(), addr+"/whole:1").OK(t)
	for end := time.Now().Add(stack.Patience); ; time.Sleep(100 * time.Millisecond) {
		r := b.cale.Cale("push", "-q", addr+"/whole:1")
		if r.Code == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal(r.Stderr)
		}
	}
	if got := b.digest(addr + "/whole:1"); got != b.img.Manifest.Digest() {
		t.Errorf("the digest is %s, not %s", got, b.img.Manifest.Digest())
	}
	b.cale.Cale("rmi", "-f", addr+"/whole:1", b.ref()).OK(t)
	b.cale.Cale("image", "prune", "-af").OK(t)
	b.cale.Cale("pull", "-q", addr+"/whole:1").OK(t)
	b.read("by way of docker-registry", addr+"/whole:1", loose{})
}

// dockerd starts a Docker engine of the test's own, without a network.
func (b *bench) dockerd() func(args ...string) string {
	sock := "unix://" + b.path("docker.sock")
	log, err := os.Create(b.path("dockerd.log"))
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	if err := os.WriteFile(b.path("daemon.json"), []byte("{}"), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command("dockerd", "--data-root", b.path("docker"), "--exec-root", b.path("docker-exec"), "--pidfile", b.path("docker.pid"),
		"--config-file", b.path("daemon.json"), "-H", sock, "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Signal(unix.SIGTERM)
		cmd.Wait()
	})
	for end := time.Now().Add(stack.Patience); exec.Command("docker", "-H", sock, "version").Run() != nil; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			text, _ := os.ReadFile(b.path("dockerd.log"))
			b.Skipf("dockerd does not work here: %s", text[max(0, len(text)-1000):])
		}
	}
	return func(args ...string) string {
		b.Helper()
		return b.run(append([]string{"docker", "-H", sock}, args...)...)
	}
}

func TestDocker(t *testing.T) {
	tool(t, "dockerd", "docker")
	b := setup(t)
	docker := b.dockerd()
	// What Docker exports has whole seconds, and capabilities for attributes.
	export := func(who, image string) {
		b.Helper()
		docker("create", "--name", "reader", image, "/bin/ping")
		docker("export", "-o", b.path("docker.tar"), "reader")
		docker("rm", "reader")
		r, err := os.Open(b.path("docker.tar"))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		same(t, who, fromTar(t, r), b.want, loose{seconds: true, attrs: true, extra: ours})
	}
	docker("pull", "-q", b.ref())
	export("docker", b.ref())
	docker("tag", b.ref(), b.cale.Registry+"/docker:1")
	docker("push", "-q", b.cale.Registry+"/docker:1")
	b.read("docker push", b.cale.Registry+"/docker:1", loose{})
	docker("save", "-o", b.path("saved.tar"), b.ref())
	b.cale.Cale("rmi", "-f", b.ref()).OK(t)
	b.cale.Cale("load", "-q", "-i", b.path("saved.tar")).OK(t)
	b.read("docker save", b.ref(), loose{seconds: true})
	docker("rmi", "-f", b.ref(), b.cale.Registry+"/docker:1")
	b.cale.Cale("save", "-o", b.path("ours.tar"), b.ref()).OK(t)
	docker("load", "-q", "-i", b.path("ours.tar"))
	export("docker load", b.ref())

	docker("import", b.path("after.tar"), "imported:1")
	docker("tag", "imported:1", b.cale.Registry+"/imported:1")
	docker("push", "-q", b.cale.Registry+"/imported:1")
	b.read("docker import", b.cale.Registry+"/imported:1", loose{})
}
