package cri

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/test/stack"
)

// testCheckpoint: the archive has what checkpointctl and other runtimes look for, and the container runs on.
func testCheckpoint(t *testing.T, n *node) {
	p := n.podConfig("checkpointed")
	pod := n.pod(p)
	id := n.run(pod, p, n.config("counter", "sh", "-c", "echo begun; echo kept >/file; rm /etc/group; while :; do sleep 0.1; done"))
	stack.Until(t, "it has begun", func() bool {
		log, err := os.ReadFile(filepath.Join(n.logs, "counter.log"))
		return err == nil && bytes.Contains(log, []byte("begun"))
	})
	n.sh(id, "until [ ! -e /etc/group ]; do sleep 0.01; done")
	dir := t.TempDir()
	location := filepath.Join(dir, "checkpoint.tar")
	ask := func(id, location string) error {
		_, err := n.CheckpointContainer(n.ctx(), &runtimeapi.CheckpointContainerRequest{ContainerId: id, Location: location, Timeout: 60})
		return err
	}
	if _, err := exec.LookPath("criu"); err != nil {
		if err := ask(id, location); err == nil || !strings.Contains(err.Error(), "criu is not installed") {
			t.Errorf("without criu: %v", err)
		}
		n.sh(id, "true") // and it isn't left frozen
		t.Skip("the rest needs criu")
	}
	if out, err := exec.Command("criu", "check").CombinedOutput(); err != nil {
		t.Skipf("criu can't work here: %s", out)
	}
	for range 2 { // over an older one too
		if err := ask(id, location); err != nil {
			t.Fatal(err)
		}
	}
	if n.status(id).State != runtimeapi.ContainerState_CONTAINER_RUNNING || n.sh(id, "cat /file") != "kept" {
		t.Error("it doesn't run on")
	}
	if st, err := os.Stat(location); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the archive: %v, %v", st, err)
	}
	files := untar(t, location)
	for _, name := range []string{"config.dump", "spec.dump", "status.dump", "dump.log", "container.log", "checkpoint/inventory.img", "checkpoint/descriptors.json", "rootfs-diff.tar"} {
		if _, ok := files[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
	var config struct{ ID, Name, RootfsImageName string }
	if err := json.Unmarshal(files["config.dump"], &config); err != nil || config.ID != id || config.Name != "counter" || config.RootfsImageName != n.image {
		t.Errorf("config.dump: %+v, %v", config, err)
	}
	if !bytes.Contains(files["container.log"], []byte("begun")) || !bytes.Contains(files["spec.dump"], []byte(`"ociVersion"`)) {
		t.Error("the log or the configuration isn't what it should be")
	}
	diff := filepath.Join(dir, "diff.tar")
	if err := os.WriteFile(diff, files["rootfs-diff.tar"], 0o600); err != nil {
		t.Fatal(err)
	}
	changed := untar(t, diff)
	if string(changed["file"]) != "kept\n" || changed["etc/.wh.group"] == nil {
		t.Errorf("what has changed: %q", changed)
	}
	// CVE-2026-53489: the log's place is not trusted.
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("not theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(n.logs, "counter.log")
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, log); err != nil {
		t.Fatal(err)
	}
	if err := ask(id, location); err != nil {
		t.Fatal(err)
	}
	if text, ok := untar(t, location)["container.log"]; ok {
		t.Errorf("the log is another file: %q", text)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left beside the archive: %v", left)
	}
	if err := ask(id, "relative.tar"); err == nil {
		t.Error("a relative location was taken")
	}
	if _, err := n.StopContainer(n.ctx(), &runtimeapi.StopContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	n.exited(id)
	if err := ask(id, location); err == nil || !strings.Contains(err.Error(), "only CONTAINER_RUNNING containers can be checkpointed") {
		t.Errorf("of one that has ended: %v", err)
	}
}

// untar reads the files of an archive, and checks that nothing in it leads elsewhere.
func untar(t *testing.T, path string) map[string][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains([]byte{tar.TypeReg, tar.TypeDir}, h.Typeflag) || strings.Contains(h.Name, "..") {
			t.Errorf("%s is of type %c", h.Name, h.Typeflag)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = b
	}
}
