package layer

import (
	"archive/tar"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"cale/filetree"
)

// dirMeta is what a directory will be given at the end.
type dirMeta struct {
	uid, gid int
	mode     uint32
	times    [2]unix.Timespec
	attrs    map[string]string // PAX records of extended attributes, nil without
	held     int               // bytes that it takes here, about
}

// later notes a directory's attributes; of several entries the last counts.
func (x *extractor) later(name string, h *tar.Header) error {
	uid, gid, err := x.owner(h)
	if err != nil {
		return err
	}
	m := dirMeta{uid: uid, gid: gid, mode: uint32(h.Mode) & 0o7777, times: times(h), held: len(name) + heldEach}
	for k, v := range h.PAXRecords {
		if !strings.HasPrefix(k, xattrPrefix) {
			continue
		}
		m.held += len(k) + len(v)
		if m.attrs == nil {
			m.attrs = map[string]string{}
		}
		m.attrs[k] = v
	}
	if err := x.hold(m.held - x.pending[name].held); err != nil {
		return err
	}
	x.pending[name] = m
	return nil
}

// finishDirs sets what later noted. A directory that another entry replaced
// since is not there any more, which is as it should be.
func (x *extractor) finishDirs() error {
	for name, m := range x.pending {
		fd, err := filetree.Openat2(x.root.FD(), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0,
			unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
		if filetree.NotExist(err) || err == unix.ELOOP {
			continue
		}
		if err == nil {
			err = finishDir(fd, &m)
			unix.Close(fd)
		}
		if err != nil {
			return fmt.Errorf("directory %s: %w", quote(name), err)
		}
	}
	return nil
}

func finishDir(fd int, m *dirMeta) error {
	if err := unix.Fchown(fd, m.uid, m.gid); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	if err := unix.Fchmod(fd, m.mode); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	if err := setXattrs(m.attrs, func(k string, v []byte) error { return unix.Fsetxattr(fd, k, v, 0) }); err != nil {
		return err
	}
	return filetree.Futimens(fd, m.times)
}

// dirCache keeps directories open by name, because archives name the same few
// again and again. Whoever removes a directory or link must flush it.
type dirCache struct {
	root *filetree.Root
	last int // index of the latest hit
	all  []cachedDir
	next int // where the next one goes once the cache is full
}

type cachedDir struct {
	name string
	fd   int
}

const cachedDirs = 16

// open is the directory's descriptor (O_PATH), valid until the next call.
func (c *dirCache) open(name string) (int, error) {
	if name == "" {
		return c.root.FD(), nil
	}
	if c.last < len(c.all) && c.all[c.last].name == name {
		return c.all[c.last].fd, nil
	}
	for i := range c.all {
		if c.all[i].name == name {
			c.last = i
			return c.all[i].fd, nil
		}
	}
	fd, err := filetree.Openat2(c.root.FD(), name, unix.O_PATH|unix.O_DIRECTORY, 0,
		unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return -1, err
	}
	c.add(name, fd)
	return fd, nil
}

func (c *dirCache) add(name string, fd int) {
	d := cachedDir{name, fd}
	if len(c.all) < cachedDirs {
		c.last = len(c.all)
		c.all = append(c.all, d)
		return
	}
	unix.Close(c.all[c.next].fd)
	c.all[c.next], c.last = d, c.next
	c.next = (c.next + 1) % cachedDirs
}

// flush forgets all.
func (c *dirCache) flush() { c.flushBut(-1) }

// flushBut forgets all, but leaves the descriptor keep open for whoever is
// using it; its name stays known only if nothing can have changed under it.
func (c *dirCache) flushBut(keep int) {
	kept := c.all[:0]
	for _, d := range c.all {
		if d.fd == keep {
			kept = append(kept, d)
			continue
		}
		unix.Close(d.fd)
	}
	c.all, c.next, c.last = kept, 0, 0
}
