package command

import (
	"bytes"
	"context"
	"errors"
	"io"
	gofs "io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"

	"cale/filetree"
)

// folder is a tree by its descriptor: no link leads out of it. It shows files
// as fsutil's own does, so that they are the same to the build cache.
type folder struct {
	dir *os.File
	key string
}

// tree is the folder for as long as one call: the descriptor is f's.
func (t *folder) tree() (*filetree.Root, error) {
	fd, err := unix.FcntlInt(t.dir.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return filetree.FromFD(fd, t.dir.Name()), nil
}

// Key implements lent.Folder.
func (t *folder) Key() string { return t.key }

// Open implements fsutil.FS.
func (t *folder) Open(path string) (io.ReadCloser, error) {
	r, err := t.tree()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r.OpenIn(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
}

// Walk implements fsutil.FS.
func (t *folder) Walk(ctx context.Context, target string, fn gofs.WalkDirFunc) error {
	r, err := t.tree()
	if err != nil {
		return err
	}
	defer r.Close()
	seen := map[inode]string{}
	target = filepath.Join(".", target)
	return r.Walk(target, func(e *filetree.Entry) error {
		path := filepath.Join(target, e.Path)
		if path == "." {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		err := fn(path, &entry{Entry: e, path: path, seen: seen}, nil)
		if errors.Is(err, os.ErrNotExist) { // it is gone again
			return gofs.SkipDir
		}
		return err
	})
}

type inode struct{ dev, ino uint64 }

// entry is a file that a walk has come to.
type entry struct {
	*filetree.Entry
	path string
	seen map[inode]string // the first name of each file that has several
	stat *types.Stat
}

// Name implements gofs.DirEntry.
func (e *entry) Name() string { return filepath.Base(e.path) }

// Type implements gofs.DirEntry.
func (e *entry) Type() gofs.FileMode { return fileMode(e.Entry.Stat.Mode).Type() }

// Changed implements lent.Changed.
func (e *entry) Changed() time.Time { return time.Unix(e.Entry.Stat.Ctim.Unix()) }

// Info implements gofs.DirEntry; its Sys is a *types.Stat.
func (e *entry) Info() (gofs.FileInfo, error) {
	if e.stat == nil {
		s, err := e.read()
		if err != nil {
			return nil, &os.PathError{Op: "lstat", Path: e.path, Err: err}
		}
		e.stat = s
	}
	return &fsutil.StatInfo{Stat: e.stat.Clone()}, nil
}

func (e *entry) read() (s *types.Stat, err error) {
	st := &e.Entry.Stat
	s = &types.Stat{Path: e.path, Mode: uint32(fileMode(st.Mode)), Uid: st.Uid, Gid: st.Gid, ModTime: time.Unix(st.Mtim.Unix()).UnixNano()}
	if !e.IsDir() {
		s.Size = st.Size
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		if s.Linkname, err = e.Readlink(); err != nil {
			return nil, err
		}
	case unix.S_IFBLK, unix.S_IFCHR:
		s.Devmajor, s.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	if !e.IsDir() && st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if first, ok := e.seen[key]; ok {
			s.Linkname = first
		} else {
			e.seen[key] = e.path
		}
	}
	s.Xattrs, err = xattrs(e.Entry)
	return s, err
}

// fileMode is a mode in Go's words, without a socket's bit, as archives have no
// sockets.
func fileMode(m uint32) gofs.FileMode { return filetree.FileMode(m) &^ gofs.ModeSocket }

// xattrs are all of a file's extended attributes; most have none.
func xattrs(e *filetree.Entry) (all map[string][]byte, err error) {
	path := "/proc/self/fd/" + strconv.Itoa(e.Dir) + "/" + e.Name
	n, err := unix.Llistxattr(path, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list := make([]byte, n+1024)
	if n, err = unix.Llistxattr(path, list); err != nil {
		return nil, err
	}
	for key := range bytes.SplitSeq(bytes.TrimSuffix(list[:n], []byte{0}), []byte{0}) {
		k := string(key)
		v, err := filetree.Xattr(e.Dir, e.Name, k)
		if err != nil || strings.HasPrefix(k, "com.apple.") {
			continue
		}
		if all == nil {
			all = map[string][]byte{}
		}
		all[k] = v
	}
	return all, nil
}
