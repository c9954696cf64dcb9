package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What a bind mount's options come to, given those of the mount that its source is on, is as in runc. In a user
// namespace the host's restrictions stay, and can't be asked away.
func TestBindOptions(t *testing.T) {
	const (
		noexec  = unix.MOUNT_ATTR_NOEXEC
		nosuid  = unix.MOUNT_ATTR_NOSUID
		noatime = unix.MOUNT_ATTR_NOATIME
		nodir   = unix.MOUNT_ATTR_NODIRATIME
	)
	for _, test := range []struct {
		host    uint64
		options string
		want    string // as /proc/mounts has it
		user    string // in a user namespace; "" is the same, "refused" an error
	}{
		{unix.MOUNT_ATTR_RDONLY | noexec, "bind", "ro,noexec,relatime", ""},
		{unix.MOUNT_ATTR_RDONLY | noexec, "bind,dev", "rw,relatime", "ro,noexec,relatime"},
		{unix.MOUNT_ATTR_RDONLY, "bind,rw,nosuid", "rw,nosuid,relatime", "refused"},
		{unix.MOUNT_ATTR_RDONLY, "bind,nosuid", "rw,nosuid,relatime", "ro,nosuid,relatime"},
		{nosuid | noexec, "bind,ro", "ro,relatime", "ro,nosuid,noexec,relatime"},
		{nosuid, "rbind,ro,rnosuid,rprivate", "ro,nosuid,relatime", ""},
		{nosuid, "bind,rprivate", "rw,nosuid,relatime", ""},
		{unix.MOUNT_ATTR_NOSYMFOLLOW, "bind,symfollow", "rw,relatime", ""},
		{noatime, "bind,atime", "rw,noatime", ""},
		{noatime, "bind,norelatime", "rw,noatime", ""},
		{noatime, "bind,relatime", "rw,relatime", "refused"},
		{noatime, "bind,nodiratime", "rw,nodiratime,relatime", "refused"},
		{noatime, "bind,noatime,atime", "rw,noatime", ""},
		{nodir, "bind,diratime", "rw,nodiratime,relatime", ""},
		{nodir, "bind,strictatime", "rw", "refused"},
		{unix.MOUNT_ATTR_STRICTATIME, "bind,ro", "ro", ""},
	} {
		for _, user := range []bool{false, true} {
			t.Run(strings.ReplaceAll(test.options, ",", "+"), func(t *testing.T) {
				w := newWorld(t)
				if user {
					w.userNS()
				}
				src := filepath.Join(w.dir, "src")
				if err := os.Mkdir(src, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := unix.Mount("tmpfs", src, "tmpfs", 0, "mode=755"); err != nil {
					t.Fatal(err)
				}
				defer unix.Unmount(src, unix.MNT_DETACH)
				attr := unix.MountAttr{Attr_set: test.host, Attr_clr: unix.MOUNT_ATTR__ATIME}
				if err := unix.MountSetattr(unix.AT_FDCWD, src, 0, &attr); err != nil {
					t.Fatal(err)
				}
				w.mount("/data", "bind", src, strings.Split(test.options, ",")...)
				want := test.want
				if user && test.user != "" {
					want = test.user
				}
				out, _, err := w.run("grep ' /data ' /proc/mounts")
				if want == "refused" {
					if err == nil || !strings.Contains(err.Error(), "error mounting "+`"`+src+`" to rootfs at "/data": cannot`) || !strings.HasSuffix(err.Error(), "operation not permitted") {
						t.Errorf("%v, %q", err, out)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				f := strings.Fields(out)
				if len(f) < 4 {
					t.Fatalf("mounts: %q", out)
				}
				got := strings.Split(f[3], ",")
				got = slices.DeleteFunc(got, func(s string) bool { return strings.Contains(s, "=") || s == "inode64" })
				if strings.Join(got, ",") != want {
					t.Errorf("user namespace: %v: %q, want %q", user, f[3], want)
				}
			})
		}
	}
}

// What an earlier mount of the container shows can be bound with mapped owners, also in a user namespace, whose root
// could not map them.
func TestMappedMountFromInside(t *testing.T) {
	for _, user := range []bool{false, true} {
		w := newWorld(t)
		if user {
			w.userNS()
		}
		for _, d := range []string{"mnt", "final"} {
			if err := os.Mkdir(filepath.Join(w.root(), d), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 1000}}
		w.mount("/mnt", "bind", w.hostDir("src", "f", "inner"), "bind")
		w.spec.Mounts = append(w.spec.Mounts, specs.Mount{Destination: "/final", Type: "bind", Source: filepath.Join(w.root(), "mnt"),
			Options: []string{"rbind"}, UIDMappings: ids, GIDMappings: ids})
		out, _, err := w.run("stat -c %u /final/f; cat /final/f")
		if err != nil && strings.Contains(err.Error(), "map owners: invalid argument") {
			t.Skip("tmpfs here takes no mapped mounts")
		}
		if err != nil {
			t.Fatal(err)
		}
		owner := "200000"
		if user {
			owner = "0"
		}
		want(t, "owner and content", out, owner+"\ninner")
	}
}

// sched_setattr(2): a scheduler with deadlines and bound processors don't go together.
func TestDeadlineAndProcessors(t *testing.T) {
	w := newWorld(t)
	w.spec.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: "0"}
	w.spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline, Runtime: 42000, Deadline: 1000000, Period: 1000000}
	_, _, err := w.run("true")
	if err == nil || !strings.Contains(err.Error(), "process scheduler can't be used together with AllowedCPUs") {
		t.Errorf("%v", err)
	}
}

// With crun's options a link can be bound as itself, and be mounted on: nothing it points to is touched. Links on the
// way to it are resolved in the container's root.
func TestMountNofollow(t *testing.T) {
	for _, user := range []bool{false, true} {
		w := newWorld(t)
		if user {
			w.userNS()
		}
		w.file("victim", "untouched")
		link := filepath.Join(w.hostDir("src", "f", "from the host"), "link")
		err := errors.Join(os.Symlink("f", link), os.Mkdir(filepath.Join(w.root(), "d"), 0o755),
			os.Symlink("/d", filepath.Join(w.root(), "way")), os.Symlink("/victim", filepath.Join(w.root(), "d/on")),
			os.Symlink("/nowhere", filepath.Join(w.root(), "d/dangling")))
		if err != nil {
			t.Fatal(err)
		}
		w.mount("/way/on", "bind", link, "bind", "dest-nofollow")
		w.mount("/way/dangling", "bind", link, "bind", "dest-nofollow", "src-nofollow")
		out, _, err := w.run("cat /d/on; echo; cat /victim; echo; readlink /d/dangling; ls /nowhere 2>&1")
		if err != nil {
			t.Fatal(err)
		}
		want(t, "what is mounted", out, "from the host\nuntouched\nf\nls: /nowhere: No such file or directory")
		// Without them the link is followed.
		w.spec.Mounts = w.spec.Mounts[:len(w.spec.Mounts)-2]
		w.mount("/way/on", "bind", link, "bind")
		want(t, "followed", w.must("cat /victim"), "from the host")
	}
}
