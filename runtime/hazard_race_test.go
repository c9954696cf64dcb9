package runtime

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// CVE-2021-30465, CVE-2025-31133, CVE-2025-52565, CVE-2025-52881, CVE-2024-45310: while the runtime makes, mounts and
// masks things below a directory, another process keeps exchanging it for a link that leads out on the host. A
// container may fail for it; nothing outside its root may be made, mounted on or changed.
func TestExchangedDirectories(t *testing.T) {
	w := newWorld(t)
	victim := w.hostDir("victim", "file", "untouched")
	source := w.hostDir("source", "file", "source")
	for _, dir := range []string{"race/dir/sub", "race/other"} {
		if err := os.MkdirAll(filepath.Join(w.root(), dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.link(victim, "race/absolute")
	w.link("../../../../../../../.."+victim, "race/relative")
	dir, links := filepath.Join(w.root(), "race/dir"), []string{"race/absolute", "race/relative"}
	w.mount("/race/dir/bind", "bind", source, "bind", "rw")
	w.mount("/race/dir/sub/deep/bind", "bind", filepath.Join(source, "file"), "bind", "rw")
	w.mount("/race/dir/tmpfs", "tmpfs", "tmpfs", "mode=700")
	w.spec.Linux.Devices = append(w.spec.Linux.Devices, specs.LinuxDevice{Path: "/race/dir/null", Type: "c", Major: 1, Minor: 3})
	w.spec.Linux.MaskedPaths = append(w.spec.Linux.MaskedPaths, "/race/dir/file", "/race/dir/sub")
	w.spec.Linux.ReadonlyPaths = append(w.spec.Linux.ReadonlyPaths, "/race/dir/file")
	w.spec.Process.Args = []string{"/bin/true"}

	var stop atomic.Bool
	done := make(chan int)
	go func() {
		n := 0
		for ; !stop.Load(); n++ {
			link := filepath.Join(w.root(), links[n/2%2]) // there and back
			if err := unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE); err != nil {
				t.Errorf("exchange: %v", err)
				break
			}
		}
		done <- n
	}()
	started := 0
	for range 60 {
		c, err := Run(context.Background(), w.options("c"+random(), nil))
		if err != nil {
			continue
		}
		started++
		reap(t, c.InitPid())
		if err := c.Delete(true); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	stop.Store(true)
	t.Logf("%d exchanges, %d of 60 containers started", <-done, started)

	list, err := os.ReadDir(victim)
	if err != nil || len(list) != 1 {
		t.Errorf("the host's directory holds %v, %v", list, err)
	}
	if text, err := os.ReadFile(filepath.Join(victim, "file")); err != nil || string(text) != "untouched" {
		t.Errorf("the host's file: %q, %v", text, err)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), victim) {
		t.Errorf("something is mounted on the host's directory: %v", err)
	}
}

// CVE-2019-16884, CVE-2023-28642: the container's /proc is the kernel's, whatever is asked for and wherever the
// image's links lead.
func TestMountsOverProc(t *testing.T) {
	for _, test := range []struct{ name, dest, kind, text string }{
		{"all of it", "/proc", "bind", `"/proc" cannot be mounted because it is not of type proc`},
		{"a part", "/proc/sys", "bind", `"/proc/sys" cannot be mounted because it is inside /proc`},
		{"a part, as a tmpfs", "/proc/acpi", "tmpfs", `"/proc/acpi" cannot be mounted because it is inside /proc`},
		{"a link to a part", "/link", "bind", `"/link" cannot be mounted because it is inside /proc`},
		{"a link to it", "/whole", "tmpfs", `"/whole" cannot be mounted because it is inside /proc`},
		{"below a link", "/whole/sys/net", "tmpfs", `"/whole/sys/net" cannot be mounted because it is inside /proc`},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.link("/proc/sys", "link")
			w.link("proc", "whole")
			w.mount(test.dest, test.kind, w.hostDir("fake", "version", "fake"), test.kind)
			if test.kind == "tmpfs" {
				w.spec.Mounts[len(w.spec.Mounts)-1].Options = nil
			}
			if text, _, err := w.run("true"); err == nil || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%v: %s", err, text)
			}
		})
	}
	w := newWorld(t)
	w.mount("/proc/meminfo", "bind", filepath.Join(w.hostDir("fake", "meminfo", "MemTotal: 1 kB\n"), "meminfo"), "bind")
	want(t, "a replaced meminfo", w.must("cat /proc/meminfo"), "MemTotal: 1 kB")
	w = newWorld(t)
	w.mount("/host/proc", "bind", "/proc", "rbind", "ro")
	want(t, "the host's proc beside it", w.must("[ -e /host/proc/version ] && echo there"), "there")
}

// CVE-2016-9962: a process that joins a container has the host's descriptors and file until its execve. Root in the
// container looks at every process it can see, as fast as it can, and must not get hold of either.
func TestJoiningProcessIsOutOfReach(t *testing.T) {
	w := newWorld(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w.spec.Process.Capabilities.Bounding = []string{"CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"}
	w.spec.Process.Capabilities.Effective = w.spec.Process.Capabilities.Bounding
	w.spec.Process.Capabilities.Permitted = w.spec.Process.Capabilities.Bounding
	w.spec.Process.Args = []string{"/bin/sh", "-c", `while [ ! -e /stop ]; do
		ls -l /proc/[0-9]*/exe /proc/[0-9]*/fd /proc/[0-9]*/root/ 2>/dev/null | grep -e "$0" -e ' -> socket:' && : >/reached
	done; true`, filepath.Base(self)}
	c, err := Run(context.Background(), w.options("c"+random(), nil))
	if err != nil {
		t.Fatal(err)
	}
	w.spec.Process.Args = []string{"/bin/true"}
	for range 200 {
		if _, code, err := w.exec(c, w.process("true")); err != nil || code != 0 {
			t.Fatalf("exec: %d, %v", code, err)
		}
	}
	w.file("stop", "")
	reap(t, c.InitPid())
	if _, err := os.Stat(filepath.Join(w.root(), "reached")); err == nil {
		t.Error("the container got hold of a process that was joining it")
	}
}
