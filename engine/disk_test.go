package engine

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"cale/test/images"
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

// TestVolumeRoot: a volume belongs to whom its options say and has the bound that they say, also after a reboot.
// https://github.com/moby/moby/issues/7198
func TestVolumeRoot(t *testing.T) {
	b := newBench(t)
	if _, err := b.VolumeCreate(ctx, "owned", "", map[string]string{"o": "uid=1000,gid=50,mode=2770"}, nil); err != nil {
		t.Fatal(err)
	}
	look := func(volume, script string) string {
		s := sh(script)
		s.Mounts = []Mount{{Type: "volume", Source: volume, Target: "/vol"}}
		out, _ := b.run(s)
		return out
	}
	if out := look("owned", "stat -c '%u:%g %a' /vol; ls -A /vol"); out != "1000:50 2770\n" {
		t.Errorf("the volume's root: %q", out)
	}
	for _, o := range []map[string]string{{"o": "uid=x"}, {"o": "rw,size=1"}, {"o": "uid=4294967295"}, {"size": "1"}, {"size": "20m", "type": "tmpfs", "device": "tmpfs"}} {
		if _, err := b.VolumeCreate(ctx, "bad", "", o, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %v", o, err)
		}
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("no mkfs.ext4")
	}
	if _, err := b.VolumeCreate(ctx, "small", "", map[string]string{"size": "32m", "o": "uid=1000"}, nil); err != nil {
		t.Fatal(err)
	}
	img, err := images.BusyboxFiles()
	if err != nil {
		t.Skip(err)
	}
	img = append(img, images.File{Name: "vol/", Mode: 0o755}, images.File{Name: "vol/seed", Data: []byte("seed\n")})
	seeded, err := images.New(images.Spec{Layers: [][]images.File{img}})
	if err != nil {
		t.Fatal(err)
	}
	b.addImage("seeded", seeded)
	if _, err := b.VolumeCreate(ctx, "filled", "", map[string]string{"size": "32m", "o": "uid=1000"}, nil); err != nil {
		t.Fatal(err)
	}
	s := sh("cat /vol/seed; stat -c %u /vol")
	s.Image, s.Mounts = "seeded", []Mount{{Type: "volume", Source: "filled", Target: "/vol"}}
	if out, _ := b.run(s); out != "seed\n1000\n" {
		t.Errorf("what the image has, in a volume with a bound and an owner: %q", out)
	}
	if out := look("small", "stat -c %u /vol; ls -A /vol; dd if=/dev/zero of=/vol/x bs=1M count=64 2>&1 | grep -o 'No space left'"); out != "1000\nNo space left\n" {
		t.Errorf("a volume of 32 MiB: %q", out)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unmount(b.conf.Root + "/volumes/small/_data"); err != nil {
		t.Fatal(err)
	}
	b.open()
	if out := look("small", "ls /vol"); out != "x\n" {
		t.Errorf("after a reboot: %q", out)
	}
	// One that can't be mounted any more is listed, and can be removed.
	if _, err := b.VolumeCreate(ctx, "broken", "", map[string]string{"size": "32m"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := unmount(b.conf.Root + "/volumes/broken/_data"); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(b.conf.Root+"/volumes/broken/"+diskImage, 0); err != nil {
		t.Fatal(err)
	}
	if list, err := b.Volumes(ctx); err != nil || len(list) != 4 {
		t.Errorf("with a broken one: %+v, %v", list, err)
	}
	for _, name := range []string{"small", "owned", "filled", "broken"} {
		b.until("nobody to use the volume", func() bool {
			for _, c := range b.List(ctx, false) {
				b.Remove(ctx, c.ID, RemoveOptions{Force: true})
			}
			return b.VolumeRemove(ctx, name, false) == nil
		})
	}
}
