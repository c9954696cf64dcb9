package shim_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"cale/logfile"
	"cale/shim"
	"cale/shim/stdio"
)

// Several containers of one shim, all at once.
func TestPodOfMany(t *testing.T) {
	each(t, func(t *testing.T, runtime string) {
		b := newBox(t, []string{"sleep", "1000"}, nil)
		b.create(runtime, false)
		b.start("")
		n := 6
		if runtime != "" {
			n = 2
		}
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				id := fmt.Sprint(b.id, "-", i)
				dir := filepath.Join(b.bundle, id)
				makeRootfs(t, filepath.Join(dir, "rootfs"))
				raw, _ := json.Marshal(spec([]string{"sh", "-c", fmt.Sprint("echo ", i, "; exit ", i)}, b.cgroup+"-"+id))
				if err := os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o600); err != nil {
					t.Error(err)
					return
				}
				u := stdio.URI{Log: filepath.Join(dir, "log"), Attach: b.uri.Attach}.String()
				_, err := b.c.Create(b.ctx(), shim.CreateRequest{ID: id, Bundle: dir, Runtime: runtime, Stdout: u, Stderr: u})
				if err != nil {
					t.Error(err)
					return
				}
				a, err := stdio.Dial(b.ctx(), b.uri.Attach, stdio.Hello{Container: id, Stdout: true})
				if err != nil {
					t.Error(err)
					return
				}
				defer a.Close()
				if _, err := b.c.Start(b.ctx(), id, ""); err != nil {
					t.Error(err)
				}
				if e, err := b.c.Wait(b.ctx(), id, ""); err != nil || e.Status != uint32(i) {
					t.Errorf("container %d: %+v, %v", i, e, err)
				}
				if out, _ := output(t, a); out != fmt.Sprint(i, "\n") {
					t.Errorf("container %d: %q", i, out)
				}
				if _, err := b.c.Delete(b.ctx(), id, ""); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// Without a pid namespace of its own a container's background process would
// outlive it, holding its streams.
func TestHostPidNamespace(t *testing.T) {
	each(t, func(t *testing.T, runtime string) {
		b := newBox(t, []string{"sh", "-c", "sleep 1000 & echo $!; exit 6"}, func(s *specs.Spec) {
			s.Linux.Namespaces = s.Linux.Namespaces[1:]
		})
		b.create(runtime, false)
		b.start("")
		if e := b.wait(""); e.Status != 6 {
			t.Errorf("exit %+v", e)
		}
		var pid int
		if _, err := fmt.Sscan(b.log(), &pid); err != nil {
			t.Fatal(err)
		}
		if _, err := b.c.Delete(b.ctx(), b.id, ""); err != nil {
			t.Error(err)
		}
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("process %d of the container lives on", pid)
		}
	})
}

func TestRotatedLog(t *testing.T) {
	each(t, func(t *testing.T, runtime string) {
		b := newBox(t, []string{"seq", "5000"}, nil)
		b.uri.MaxSize, b.uri.MaxFile = 20000, 3
		b.uri.Attrs = map[string]string{"k": "v"}
		b.create(runtime, false)
		b.start("")
		b.wait("")
		names, _ := filepath.Glob(b.uri.Log + "*")
		if len(names) != 3 {
			t.Errorf("files %v", names)
		}
		var last string
		err := logfile.Read(b.ctx(), logfile.ReadOptions{Path: b.uri.Log, Stdout: true, Tail: 10}, func(e *logfile.Entry) error {
			last = string(e.Line)
			if e.Attrs["k"] != "v" {
				t.Errorf("attributes %v", e.Attrs)
			}
			return nil
		})
		if err != nil || last != "5000\n" {
			t.Errorf("last %q, %v", last, err)
		}
	})
}

// Lack of memory is told with the exit.
func TestOutOfMemory(t *testing.T) {
	each(t, func(t *testing.T, runtime string) {
		limit := int64(16 << 20)
		b := newBox(t, []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"}, func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"})
			s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
			s.Process.Args = []string{"sh", "-c", "head -c 100000000 /dev/zero > /tmp/x"}
		})
		b.create(runtime, false)
		b.start("")
		b.wait("")
		if e, err := shim.ReadExit(b.bundle, b.id); err != nil || !e.OOMKilled {
			t.Errorf("exit %+v, %v", e, err)
		}
		if log := b.log(); strings.Contains(log, "not found") {
			t.Errorf("log %q", log)
		}
	})
}
