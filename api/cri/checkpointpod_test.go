package cri

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/test/stack"
)

// counting is a container that counts the lines it is sent by a pipe in its file system, into its log.
const counting = `mkfifo /q; n=0; while :; do read l </q || continue; n=$((n+1)); echo "$n $l"; done`

func (n *node) send(id, line string) {
	n.t.Helper()
	n.sh(id, "until [ -p /q ]; do sleep 0.01; done; echo "+line+" >/q")
}

func (n *node) logged(file, line string) {
	n.t.Helper()
	stack.Until(n.t, file+" has "+line, func() bool {
		log, err := os.ReadFile(filepath.Join(n.logs, file))
		return err == nil && bytes.Contains(log, []byte(line+"\n"))
	})
}

// testCheckpointPod: a pod's containers go on in another pod, as they all were at one moment; and only as what they
// were.
func testCheckpointPod(t *testing.T, n *node) {
	p := n.podConfig("saved")
	pod := n.pod(p)
	one, two := n.config("one", "sh", "-c", "echo file of one >/file; "+counting), n.config("two", "sh", "-c", counting)
	ids := []string{n.run(pod, p, one), n.run(pod, p, two)}
	dir := t.TempDir()
	checkpoint := func(ids []string, to string) error {
		_, err := n.CheckpointPod(n.ctx(), &runtimeapi.CheckpointPodRequest{PodSandboxId: pod, OutputPath: to, ContainerIds: ids})
		return err
	}
	for _, bad := range [][]string{nil, {ids[0], ids[0]}, {"nosuch"}} {
		if err := checkpoint(bad, dir); err == nil {
			t.Errorf("containers %q were taken", bad)
		}
	}
	if err := checkpoint(ids, "relative"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("relative path: %v", err)
	}
	if _, err := exec.LookPath("criu"); err != nil {
		if err := checkpoint(ids, dir); err == nil || !strings.Contains(err.Error(), "criu is not installed") {
			t.Errorf("without criu: %v", err)
		}
		n.sh(ids[1], "true") // nobody is left frozen
		t.Skip("the rest needs criu")
	}
	if out, err := exec.Command("criu", "check").CombinedOutput(); err != nil {
		t.Skipf("criu can't work here: %s", out)
	}
	n.send(ids[0], "a")
	n.logged("one.log", "1 a")
	n.send(ids[1], "b")
	n.logged("two.log", "1 b")
	if err := checkpoint(ids, dir); err != nil {
		t.Fatal(err)
	}
	n.send(ids[0], "after") // they run on
	n.logged("one.log", "2 after")
	if err := checkpoint(ids, dir); status.Code(err) != codes.InvalidArgument {
		t.Errorf("into a directory with something in it: %v", err)
	}
	if _, err := n.RemovePodSandbox(n.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod}); err != nil {
		t.Fatal(err)
	}

	p = n.podConfig("restored")
	restore := func(p *runtimeapi.PodSandboxConfig, from string, c ...*runtimeapi.ContainerConfig) (*runtimeapi.RestorePodResponse, error) {
		return n.RestorePod(n.ctx(), &runtimeapi.RestorePodRequest{CheckpointPath: from, Config: p, ContainerConfigs: c})
	}
	one.LogPath, two.LogPath = "one-again.log", "two-again.log"
	changed := proto.Clone(two).(*runtimeapi.ContainerConfig)
	changed.Command = []string{"sleep", "1000"}
	for name, c := range map[string][]*runtimeapi.ContainerConfig{"one missing": {one}, "one twice": {one, one}, "none": nil, "another command": {one, changed},
		"another name": {one, {Metadata: &runtimeapi.ContainerMetadata{Name: "three"}, Image: two.Image}}} {
		if _, err := restore(n.podConfig("refused"), dir, c...); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, spoil := range map[string]func(dir string) error{
		"archive elsewhere": func(d string) error {
			return os.WriteFile(filepath.Join(d, podFile), []byte(`{"version":1,"containers":[{"name":"one","archive":"../0.tar"},{"name":"two","archive":"1.tar"}]}`), 0o600)
		},
		"archive by a link": func(d string) error {
			return os.Rename(filepath.Join(d, "0.tar"), filepath.Join(d, "x")) // and then
		},
		"image outside": func(d string) error { return addTo(filepath.Join(d, "0.tar"), "checkpoint/../../outside") },
		"image twice":   func(d string) error { return addTo(filepath.Join(d, "0.tar"), "checkpoint/inventory.img") },
		"nothing":       func(d string) error { return os.WriteFile(filepath.Join(d, "1.tar"), make([]byte, 1024), 0o600) },
	} {
		bad := filepath.Join(t.TempDir(), "bad")
		if err := os.CopyFS(bad, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		if err := spoil(bad); err != nil {
			t.Fatal(err)
		}
		if name == "archive by a link" {
			if err := os.Symlink("x", filepath.Join(bad, "0.tar")); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := restore(n.podConfig("refused"), bad, one, two); err == nil {
			t.Errorf("%s: restored", name)
		}
	}
	if list, err := n.ListPodSandbox(n.ctx(), &runtimeapi.ListPodSandboxRequest{}); err != nil {
		t.Error(err)
	} else {
		for _, p := range list.Items {
			if p.Metadata.Name == "refused" {
				t.Error("a pod is left of a restore that failed")
			}
		}
	}

	got, err := restore(p, dir, two, one)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]string{}
	for _, c := range got.RestoredContainers {
		byName[c.Name] = c.ContainerId
		if st := n.status(c.ContainerId); st.State != runtimeapi.ContainerState_CONTAINER_CREATED {
			t.Errorf("%s is %s before its start", c.Name, st.State)
		}
		if _, err := n.StartContainer(n.ctx(), &runtimeapi.StartContainerRequest{ContainerId: c.ContainerId}); err != nil {
			t.Fatal(err)
		}
	}
	n.send(byName["one"], "c")
	n.logged("one-again.log", "2 c")
	n.send(byName["two"], "d")
	n.logged("two-again.log", "2 d")
	if text := n.sh(byName["one"], "cat /file; hostname"); text != "file of one\nrestored" {
		t.Errorf("in the restored pod: %q", text)
	}
	if _, err := restore(p, dir, two, one); err == nil {
		t.Error("the same pod was restored twice")
	}
	if _, err := n.RemovePodSandbox(n.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: got.PodSandboxId}); err != nil {
		t.Fatal(err)
	}
}

// addTo puts an entry in front of an archive's others.
func addTo(archive, name string) error {
	rest, err := os.ReadFile(archive)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Size: 4}); err != nil {
		return err
	}
	w.Write([]byte("evil"))
	if err := w.Flush(); err != nil {
		return err
	}
	return os.WriteFile(archive, append(b.Bytes(), rest...), 0o600)
}
