package engine

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestDiskBound: what a container writes has a bound where its Spec says so, also after another engine and another
// start; what it wrote can be had as ever.
func TestDiskBound(t *testing.T) {
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("no mkfs.ext4")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("no loop devices")
	}
	b := newBench(t)
	s := sh("echo kept > /kept; dd if=/dev/zero of=/big bs=1M count=64; rm /big; exec sleep 1000")
	s.StorageOpt = map[string]string{"size": "32m"}
	id := b.start(s)
	full := func(times int) {
		t.Helper()
		b.until("the end of the disk", func() bool {
			return strings.Count(b.logs(id, LogOptions{Stderr: true, Tail: -1}), "No space left on device") == times
		})
	}
	full(1)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b.open()
	if out, _ := b.exec(id, ExecSpec{Cmd: []string{"cat", "/kept"}}); out != "kept\n" {
		t.Errorf("after another engine: %q", out)
	}
	none := 0
	if err := b.Stop(ctx, id, StopOptions{Timeout: &none}); err != nil {
		t.Fatal(err)
	}
	if st, err := b.StatPath(ctx, id, "/kept"); err != nil || st.Size != 5 {
		t.Errorf("stopped: %+v, %v", st, err)
	}
	if err := b.Start(ctx, id, StartOptions{}); err != nil {
		t.Fatal(err)
	}
	full(2)

	// Switched off: nothing is mounted any more.
	if err := b.Stop(ctx, id, StopOptions{Timeout: &none}); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unmount(b.conf.Root + "/containers/" + id + "/" + diskMount); err != nil {
		t.Fatal(err)
	}
	b.open()
	if st, err := b.StatPath(ctx, id, "/kept"); err != nil || st.Size != 5 {
		t.Errorf("after a reboot: %+v, %v", st, err)
	}
	for _, o := range []map[string]string{{"size": "1m"}, {"size": "x"}, {"inodes": "5"}} {
		s := sh("true")
		s.Image, s.StorageOpt = "busybox", o
		if _, _, err := b.Create(ctx, s); err == nil || !strings.Contains(err.Error(), "storage option") {
			t.Errorf("%v: %v", o, err)
		}
	}
}
