package rootfs

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"cale/runtime/launch"

	"golang.org/x/sys/unix"
)

// bindAttrs are the attributes that a bind mount can have by its options, but for those of access times.
const bindAttrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSYMFOLLOW

// setBind works out a bind mount's attributes, as runc does: with no option of those the source's are kept; with any,
// the mount has what is asked for and no other. Access times are the exception: without "noatime", "relatime",
// "strictatime" or "nodiratime" they stay as they are, even if told to be cleared, which mount(8) ignores too.
//
// Root of a user namespace may not take away what the host's mount is restricted by: there that is kept, and asking
// for its removal is an error.
func (t *Tree) setBind(o *options, s *source) error {
	if !o.flags {
		return nil
	}
	const times = atimeMask | unix.MOUNT_ATTR_NODIRATIME
	set := o.set & (bindAttrs | unix.MOUNT_ATTR_NODIRATIME)
	clear := bindAttrs &^ set
	asked := o.clear & bindAttrs
	timed := o.atime || set&unix.MOUNT_ATTR_NODIRATIME != 0
	if timed {
		if o.atime {
			set |= o.set & atimeMask
		}
		clear |= times&^set | atimeMask
	}
	if t.o.NewUser || t.o.Unprivileged {
		have, err := attrsOf(s)
		if err != nil {
			return err
		}
		if have&asked&unix.MOUNT_ATTR_RDONLY != 0 {
			// It may be the file system that is read-only, which nobody asks to change.
			if have, err = ofMount(have, s.path); err != nil {
				return err
			}
		}
		locked := have & bindAttrs &^ unix.MOUNT_ATTR_NOSYMFOLLOW
		if locked&asked != 0 {
			return fmt.Errorf("cannot clear locked flags: %w", unix.EPERM)
		}
		if timed && have&times != set&times {
			return fmt.Errorf("cannot change locked atime flags: %w", unix.EPERM)
		}
		set |= locked
		clear &^= locked
	}
	// The recursive options come on top.
	if o.rclear&atimeMask != 0 {
		set, clear = set&^atimeMask, clear&^atimeMask
	}
	o.set, o.clear = set&^o.rclear, clear&^o.rset
	return nil
}

// attrsOf are the attributes of the mount that a source is on; a file system that is read-only makes it so.
func attrsOf(s *source) (uint64, error) {
	var st unix.Statfs_t
	var err error
	if s.fd != nil {
		err = unix.Fstatfs(int(s.fd.Fd()), &st)
	} else {
		err = unix.Statfs(s.path, &st)
	}
	if err != nil {
		return 0, &os.PathError{Op: "statfs", Path: s.path, Err: err}
	}
	attrs := uint64(unix.MOUNT_ATTR_STRICTATIME)
	switch {
	case st.Flags&unix.ST_NOATIME != 0:
		attrs = unix.MOUNT_ATTR_NOATIME
	case st.Flags&unix.ST_RELATIME != 0:
		attrs = unix.MOUNT_ATTR_RELATIME
	}
	for flag, attr := range map[int64]uint64{
		unix.ST_RDONLY: unix.MOUNT_ATTR_RDONLY, unix.ST_NOSUID: unix.MOUNT_ATTR_NOSUID, unix.ST_NODEV: unix.MOUNT_ATTR_NODEV,
		unix.ST_NOEXEC: unix.MOUNT_ATTR_NOEXEC, unix.ST_NODIRATIME: unix.MOUNT_ATTR_NODIRATIME,
	} {
		if st.Flags&flag != 0 {
			attrs |= attr
		}
	}
	return attrs, nil
}

// ofMount takes a read-only attribute away that is not the mount's own, by proc_pid_mountinfo(5).
func ofMount(attrs uint64, file string) (uint64, error) {
	var stx unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, file, 0, unix.STATX_MNT_ID, &stx); err != nil {
		return 0, &os.PathError{Op: "statx", Path: file, Err: err}
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return 0, err
	}
	id := strconv.FormatUint(stx.Mnt_id, 10)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 5 && f[0] == id && strings.HasPrefix(f[5]+",", "rw,") {
			return attrs &^ unix.MOUNT_ATTR_RDONLY, nil
		}
	}
	return attrs, nil
}

// Points is the first of the points at which the child waits for Serve.
const Points = 1 << 20

// emitCopyUp has the parent fill a file system that the child has made: it is the one who knows the root as it was.
func (t *Tree) emitCopyUp(p *launch.Program, i int) { p.SyncFD(Points+i, t.mounts[i].reg) }

// emitMapOwners has the parent map the owners of a tree that the child has taken from its own mounts: a right of the
// user namespace that the file system belongs to.
func (t *Tree) emitMapOwners(p *launch.Program, m *mount) { p.SyncFD(Points+t.placed, m.reg) }

// Serve does in the parent what the child waits for at one of the points from Points on.
func (t *Tree) Serve(at launch.Point) error {
	i := at.ID - Points
	if at.Sent == nil || i < 0 || i >= len(t.mounts) {
		return fmt.Errorf("unknown request %d of the child", at.ID)
	}
	defer at.Sent.Close()
	m := &t.mounts[i]
	var err error
	if m.opts.copyUp {
		err = t.copyUp(at.Sent, m.dest)
	} else {
		err = t.mapOwners(at.Sent, m.src.mapping, m.opts)
	}
	if err != nil {
		return mountError(m.Mount, err)
	}
	return nil
}
