package layer

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strings"

	"golang.org/x/sys/unix"

	"cale/filetree"
)

// Settled is what a tree holds.
type Settled struct {
	Bytes int64 // of its regular files
	Files int64 // inodes
}

// Settle takes out of an overlayfs upper directory, which is not mounted any
// more, what is no change: directories without entries that are as those they
// lie over (overlayfs copied them for something that is gone again; their time
// does not count), and sockets. So the tree is what Diff writes of it, and what
// another machine makes of that. lower are the trees below, the top one first.
func Settle(ctx context.Context, upper *filetree.Root, lower []*filetree.Root) (Settled, error) {
	s := settler{upper: upper, lower: lower, entries: map[string]int{}, seen: map[fileID]bool{}}
	err := upper.Walk("", func(e *filetree.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return s.look(e)
	})
	// Backwards, so that what is below a directory is settled first.
	for i := len(s.dirs) - 1; i >= 0 && err == nil; i-- {
		if err = s.settle(s.dirs[i]); err != nil {
			err = fmt.Errorf("%s: %w", quote(s.dirs[i]), err)
		}
	}
	if err != nil {
		return s.sum, fmt.Errorf("settle layer: %w", err)
	}
	return s.sum, nil
}

type settler struct {
	upper   *filetree.Root
	lower   []*filetree.Root
	dirs    []string       // parents first
	entries map[string]int // of each directory
	seen    map[fileID]bool
	sum     Settled
}

func parentOf(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return ""
}

func (s *settler) look(e *filetree.Entry) error {
	if e.Path == "" {
		s.sum.Files++
		return nil
	}
	switch e.Stat.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return s.keepTime(e.Dir, func() error { return unix.Unlinkat(e.Dir, e.Name, 0) })
	case unix.S_IFDIR:
		s.dirs = append(s.dirs, e.Path)
	case unix.S_IFREG:
		if e.Stat.Nlink > 1 {
			id := fileID{uint64(e.Stat.Dev), e.Stat.Ino}
			if s.seen[id] {
				s.entries[parentOf(e.Path)]++
				return nil
			}
			s.seen[id] = true
		}
		s.sum.Bytes += e.Stat.Size
	}
	s.entries[parentOf(e.Path)]++
	s.sum.Files++
	return nil
}

// settle removes a directory if it is no change.
func (s *settler) settle(name string) error {
	if s.entries[name] > 0 {
		return nil
	}
	own, opaque, err := lookup(s.upper, name)
	if own < 0 || err != nil {
		return err
	}
	defer unix.Close(own)
	if opaque {
		return nil
	}
	for _, r := range s.lower {
		below, end, err := lookup(r, name)
		if below >= 0 {
			alike, err := sameAttributes(own, below)
			unix.Close(below)
			if err != nil || !alike {
				return err
			}
			return s.remove(name)
		}
		if err != nil || end {
			return err
		}
	}
	return nil
}

func (s *settler) remove(name string) error {
	dir, base, err := s.upper.OpenParent(name)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := s.keepTime(dir, func() error { return unix.Unlinkat(dir, base, unix.AT_REMOVEDIR) }); err != nil {
		return err
	}
	s.entries[parentOf(name)]--
	s.sum.Files--
	return nil
}

// keepTime leaves a directory's times as they were.
func (s *settler) keepTime(dir int, do func() error) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return filetree.Futimens(fd, [2]unix.Timespec{st.Atim, st.Mtim})
}

// sameAttributes compares two directories' owners, modes and attributes.
func sameAttributes(a, b int) (bool, error) {
	var x, y unix.Stat_t
	if err := unix.Fstat(a, &x); err != nil {
		return false, err
	}
	if err := unix.Fstat(b, &y); err != nil {
		return false, err
	}
	if x.Mode != y.Mode || x.Uid != y.Uid || x.Gid != y.Gid {
		return false, nil
	}
	p, err := filetree.Xattrs(a, ".")
	if err != nil {
		return false, err
	}
	q, err := filetree.Xattrs(b, ".")
	if err != nil {
		return false, err
	}
	return maps.EqualFunc(p, q, bytes.Equal), nil
}
