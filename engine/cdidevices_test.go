package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDeviceRequests: devices that vendors describe, by full name as --device has them and as --gpus asks for them.
func TestDeviceRequests(t *testing.T) {
	b := newBench(t)
	dir := filepath.Join(b.dir, "cdi")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b.conf.CDIDirs = []string{dir}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b.open()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("dev.json", `{"cdiVersion": "0.6.0", "kind": "vendor.com/dev", "devices": [{"name": "zero", "containerEdits":
		{"env": ["GOT=zero"], "deviceNodes": [{"path": "/dev/my-zero", "hostPath": "/dev/zero"}]}}]}`)
	gpu := []DeviceRequest{{Count: 1, Capabilities: [][]string{{"gpu"}}}}
	none := sh("true")
	none.Resources.DeviceRequests = gpu
	if err := b.Start(ctx, b.create(none), StartOptions{}); err == nil || !strings.Contains(err.Error(), `could not select device driver "" with capabilities: [[gpu]]`) {
		t.Errorf("a GPU where there is none: %v", err)
	}
	write("gpu.yaml", `cdiVersion: 0.6.0
kind: nvidia.com/gpu
devices:
- {name: "10", containerEdits: {env: [GPU10=1]}}
- {name: "2", containerEdits: {env: [GPU2=1]}}
- {name: all, containerEdits: {env: [GPUS=all]}}
`)
	for _, c := range []struct {
		name string
		list []DeviceRequest
		want string // or a part of the error
	}{
		{"by full name", []DeviceRequest{{Driver: "cdi", IDs: []string{"vendor.com/dev=zero"}}}, "GOT=zero 3"},
		{"the first", gpu, "GPU2=1"},
		{"two", []DeviceRequest{{Driver: "nvidia", Count: 2, Capabilities: [][]string{{"gpu"}}}}, "GPU10=1 GPU2=1"},
		{"all", []DeviceRequest{{Count: -1, Capabilities: [][]string{{"gpu"}}}}, "GPUS=all"},
		{"by number", []DeviceRequest{{IDs: []string{"10"}, Capabilities: [][]string{{"gpu", "compute"}}}}, "GPU10=1"},
		{"too many", []DeviceRequest{{Count: 3, Capabilities: [][]string{{"gpu"}}}}, "3 are asked for, 2 of nvidia.com/gpu"},
		{"another vendor's", []DeviceRequest{{Driver: "amd", Count: -1, Capabilities: [][]string{{"gpu"}}}}, "no amd.com/gpu"},
		{"an unknown driver", []DeviceRequest{{Driver: "x", Count: -1, Capabilities: [][]string{{"gpu"}}}}, `device driver "x"`},
		{"no GPU", []DeviceRequest{{Count: 1, Capabilities: [][]string{{"tpu"}}}}, "[[tpu]]"},
		{"an unknown name", []DeviceRequest{{Driver: "cdi", IDs: []string{"vendor.com/dev=one"}}}, "no device vendor.com/dev=one"},
	} {
		s := sh(`echo $(env | grep -E '^(GOT|GPU)' | sort) $([ ! -e /dev/my-zero ] || head -c 3 /dev/my-zero | wc -c)`)
		s.Image, s.Resources.DeviceRequests = "busybox", c.list
		id := b.create(s)
		if err := b.Start(ctx, id, StartOptions{}); err != nil {
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if out, _ := b.run(s); strings.TrimSpace(out) != c.want {
			t.Errorf("%s: %q, not %q", c.name, out, c.want)
		}
	}
}
