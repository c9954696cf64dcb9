package interop

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"cale/test/stack"

	"golang.org/x/sys/unix"
)

func TestContainerd(t *testing.T) {
	tool(t, "containerd", "ctr")
	b := setup(t)
	sock := b.path("containerd.sock")
	conf := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n", b.path("ctd"), b.path("ctd-run"), sock)
	if err := os.WriteFile(b.path("containerd.toml"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("containerd", "-c", b.path("containerd.toml"), "-l", "error")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Signal(unix.SIGTERM); cmd.Wait() })
	for end := time.Now().Add(stack.Patience); exec.Command("ctr", "-a", sock, "version").Run() != nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Skip("containerd does not work here")
		}
	}
	ctr := func(args ...string) { b.run(append([]string{"ctr", "-a", sock}, args...)...) }
	mounted := func(who, image string) {
		b.Helper()
		at := b.path("mounted")
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		ctr("images", "mount", image, at)
		defer unix.Unmount(at, unix.MNT_DETACH)
		same(t, who, fromDir(t, at), b.want, loose{})
	}
	ctr("images", "pull", "--plain-http", b.ref())
	mounted("containerd", b.ref())
	ctr("images", "push", "--plain-http", b.cale.Registry+"/containerd:1", b.ref())
	if got, err := b.pulled("containerd:1"); err != nil || got != b.img.Manifest.Digest() {
		t.Errorf("pushed as %s, not %s (%v)", got, b.img.Manifest.Digest(), err)
	}
	ctr("images", "export", b.path("exported.tar"), b.ref())
	b.cale.Cale("rmi", "-f", b.ref(), b.cale.Registry+"/containerd:1").OK(t)
	b.cale.Cale("load", "-q", "-i", b.path("exported.tar")).OK(t)
	b.read("containerd's export", b.ref(), loose{})
	ctr("images", "rm", "--sync", b.ref())
	b.cale.Cale("save", "-o", b.path("ours.tar"), b.ref()).OK(t)
	ctr("images", "import", b.path("ours.tar"))
	mounted("containerd's import", b.ref())
}

// pulled pulls a name of our registry and tells its digest.
func (b *bench) pulled(name string) (string, error) {
	r := b.cale.Cale("pull", "-q", b.cale.Registry+"/"+name)
	if r.Code != 0 {
		return "", fmt.Errorf("pull: %s", r.Stderr)
	}
	out := b.cale.Cale("inspect", "-f", "{{index .RepoDigests 0}}", b.cale.Registry+"/"+name).OK(b)
	_, digest, _ := strings.Cut(strings.TrimSpace(out), "@")
	return digest, nil
}
