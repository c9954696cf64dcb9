// Package erofs writes EROFS images: read-only filesystems in one file, as
// Linux mounts them (Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h).
//
// The content of files is in the image's file already, wherever it came to lie
// while an archive was written to it in one go; Write adds the metadata that
// makes a tree of it. So nothing is written twice, and no file of the tree costs
// a system call. Blocks have 512 bytes, the unit of tar archives.
package erofs

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// Start is where content may begin in the file: what lies before is the
	// filesystem's own.
	Start = 4096
	// Block is what content is aligned to, in bytes.
	Block = 512

	blockBits  = 9
	superBlock = 1024
	magic      = 0xE0F5E1E2
	slot       = 32 // the unit in which inodes are numbered
	inodeSize  = 64 // of an extended inode
	direntSize = 12
	maxBlocks  = 1<<32 - 1

	flatPlain, flatInline = 0, 2   // where an inode's data is
	compatMtime           = 0x0002 // inodes have times of their own

	maxXattrs = (1<<16-1)*4 + 12 - 4 // bytes of one inode's
)

// ErrUnsuited says that a tree cannot be an EROFS image.
var ErrUnsuited = errors.New("EROFS cannot hold it")

// Node is one file of a tree. The same Node under several names is one file
// with several names.
type Node struct {
	Mode     uint32 // type and permissions, as in stat(2)
	UID, GID uint32
	Sec      int64 // modification time
	Nsec     uint32
	Rdev     uint64 // of devices, as in stat(2)
	Size     int64  // of regular files, in bytes
	Offset   int64  // where in the file the content is; a multiple of Block
	Target   string // of symbolic links
	Xattrs   map[string][]byte
	Children map[string]*Node // of directories

	// A layer may have a hundred thousand files: what is short-lived is not here.
	nid    uint64 // number of the inode: where it is in the metadata
	ino    uint32
	nlink  uint32
	xattrs uint32 // bytes of the attributes that follow the inode
	data   uint32 // block where data begins
	blocks uint32 // of a directory's data
}

type entry struct {
	name string
	node *Node
}

// Write writes a tree's metadata from at on, in one sequence, and at the end
// the few bytes that make the file a filesystem. It returns the file's size.
func Write(w io.WriterAt, at int64, root *Node) (size int64, err error) {
	if root.Mode&unix.S_IFMT != unix.S_IFDIR {
		return 0, fmt.Errorf("%w: the root is no directory", ErrUnsuited)
	}
	l := layout{}
	l.visit(root, root)
	if l.err != nil {
		return 0, l.err
	}
	first := align(at, Block) / Block
	block := first
	for _, n := range l.order {
		switch {
		case n.isDir():
			n.data = uint32(block)
			block += int64(n.blocks)
		case n.isLink() && !n.inline():
			n.data = uint32(block)
			block += align(int64(len(n.Target)), Block) / Block
		case n.Mode&unix.S_IFMT == unix.S_IFREG && n.Size > 0:
			if n.Offset < Start || n.Offset%Block != 0 {
				return 0, fmt.Errorf("content at %d is not where a block begins", n.Offset)
			}
			n.data = uint32(n.Offset / Block)
		}
	}
	meta := block
	end := meta + align(l.at, Block)/Block
	if end > maxBlocks || l.at/slot > 1<<32 {
		return 0, fmt.Errorf("%w: more than 2 TiB", ErrUnsuited)
	}
	out := &sequence{w: bufio.NewWriterSize(&offsetWriter{w, first * Block}, 256<<10)}
	dirs := l.dirs
	for _, n := range l.order {
		switch {
		case n.isDir():
			out.entries(dirs[0])
			dirs = dirs[1:]
		case n.isLink() && !n.inline():
			out.string(n.Target)
			out.pad(Block)
		}
	}
	base := out.n
	for _, n := range l.order {
		out.zeros(base + int64(n.nid)*slot - out.n)
		out.inode(n)
	}
	out.pad(Block)
	// A page at a time is how it is read.
	end = align(end*Block, Start) / Block
	out.zeros(end*Block - first*Block - out.n)
	if err := cmp.Or(out.err, out.w.Flush()); err != nil {
		return 0, err
	}
	super := make([]byte, 128)
	le := binary.LittleEndian
	le.PutUint32(super[0:], magic)
	le.PutUint32(super[8:], compatMtime)
	super[12] = blockBits
	le.PutUint16(super[14:], uint16(root.nid))
	le.PutUint64(super[16:], uint64(len(l.order)))
	le.PutUint32(super[36:], uint32(end))
	le.PutUint32(super[40:], uint32(meta))
	_, err = w.WriteAt(super, superBlock)
	return end * Block, err
}

func align(n, to int64) int64 { return (n + to - 1) / to * to }

func (n *Node) isDir() bool  { return n.Mode&unix.S_IFMT == unix.S_IFDIR }
func (n *Node) isLink() bool { return n.Mode&unix.S_IFMT == unix.S_IFLNK }

// inline tells whether a link's target follows its inode. Behind attributes there
// may be no place where a long one does not cross the end of a block.
func (n *Node) inline() bool { return len(n.Target) < Block && n.xattrs == 0 }

// layout numbers the inodes.
type layout struct {
	order []*Node
	dirs  [][]entry // of the directories in that order, by name
	at    int64     // in the metadata
	err   error
}

func (l *layout) visit(n, parent *Node) {
	if l.err != nil {
		return
	}
	if n.nlink > 0 {
		n.nlink++ // one more name
		return
	}
	attrs, err := packXattrs(n.Xattrs)
	if err != nil {
		l.err = err
		return
	}
	n.xattrs = uint32(len(attrs))
	if l.at == 0 {
		l.at = slot // nobody is number 0, which listings leave out
	}
	l.at = align(l.at, slot)
	if n.isLink() && n.inline() {
		// The target may not cross the end of a block.
		head := inodeSize + int64(n.xattrs)
		if room := Block - (l.at+head)%Block; room < int64(len(n.Target)) {
			l.at = align(l.at+room, slot)
			for Block-(l.at+head)%Block < int64(len(n.Target)) {
				l.at += slot
			}
		}
	}
	n.nid, n.nlink, n.ino = uint64(l.at/slot), 1, uint32(len(l.order)+1)
	l.at += inodeSize + int64(n.xattrs)
	if n.isLink() && n.inline() {
		l.at += int64(len(n.Target))
	}
	l.order = append(l.order, n)
	if !n.isDir() {
		return
	}
	n.nlink = 2
	names := make([]entry, 0, len(n.Children)+2)
	names = append(names, entry{".", n}, entry{"..", parent})
	for name, c := range n.Children {
		if name == "" || len(name) > unix.NAME_MAX || strings.ContainsAny(name, "/\x00") {
			l.err = fmt.Errorf("%w: name %.300q", ErrUnsuited, name)
			return
		}
		if c.isDir() {
			n.nlink++
		}
		names = append(names, entry{name, c})
	}
	l.dirs = append(l.dirs, names)
	slices.SortFunc(names, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	n.blocks = 0
	for rest := names; len(rest) > 0; n.blocks++ {
		rest = rest[fit(rest):]
	}
	for _, e := range names {
		if e.name != "." && e.name != ".." {
			if e.node.isDir() && e.node.nlink > 0 {
				l.err = fmt.Errorf("%w: a directory with two names", ErrUnsuited)
				return
			}
			l.visit(e.node, n)
		}
	}
}

// fit is how many entries go into one block.
func fit(list []entry) int {
	used := 0
	for i, e := range list {
		if used += direntSize + len(e.name); used > Block {
			return i
		}
	}
	return len(list)
}

// entries writes a directory's data: blocks of entries sorted by name, each with
// its names behind its entries.
func (out *sequence) entries(names []entry) {
	for rest := names; len(rest) > 0; {
		block := rest[:fit(rest)]
		rest = rest[len(block):]
		at := len(block) * direntSize
		for _, e := range block {
			var b [direntSize]byte
			binary.LittleEndian.PutUint64(b[0:], e.node.nid)
			binary.LittleEndian.PutUint16(b[8:], uint16(at))
			b[10] = fileType(e.node.Mode)
			out.bytes(b[:])
			at += len(e.name)
		}
		for _, e := range block {
			out.string(e.name)
		}
		out.pad(Block)
	}
}

// dirSize is the size of a directory's data: all blocks but the last are full.
func (n *Node) dirSize() int64 { return int64(n.blocks) * Block }

func fileType(mode uint32) byte {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return 1
	case unix.S_IFDIR:
		return 2
	case unix.S_IFCHR:
		return 3
	case unix.S_IFBLK:
		return 4
	case unix.S_IFIFO:
		return 5
	case unix.S_IFSOCK:
		return 6
	case unix.S_IFLNK:
		return 7
	}
	return 0
}

// inode writes an inode and what follows it.
func (out *sequence) inode(n *Node) {
	var b [inodeSize]byte
	le := binary.LittleEndian
	format, size := uint16(flatPlain), n.Size
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		size = n.dirSize()
	case unix.S_IFLNK:
		if size = int64(len(n.Target)); n.inline() {
			format = flatInline
		}
	case unix.S_IFREG:
	default:
		size = 0
	}
	le.PutUint16(b[0:], 1|format<<1)
	if n.xattrs > 0 {
		le.PutUint16(b[2:], uint16((n.xattrs-xattrHead)/4+1))
	}
	le.PutUint16(b[4:], uint16(n.Mode))
	le.PutUint64(b[8:], uint64(size))
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK:
		major, minor := unix.Major(n.Rdev), unix.Minor(n.Rdev)
		le.PutUint32(b[16:], minor&0xff|major<<8|(minor&^0xff)<<12)
	default:
		le.PutUint32(b[16:], n.data)
	}
	le.PutUint32(b[20:], n.ino)
	le.PutUint32(b[24:], n.UID)
	le.PutUint32(b[28:], n.GID)
	le.PutUint64(b[32:], uint64(n.Sec))
	le.PutUint32(b[40:], n.Nsec)
	le.PutUint32(b[44:], n.nlink)
	out.bytes(b[:])
	if n.xattrs > 0 {
		attrs, err := packXattrs(n.Xattrs)
		out.err = cmp.Or(out.err, err)
		out.bytes(attrs)
	}
	if format == flatInline {
		out.string(n.Target)
	}
}

// sequence writes one thing after the other.
type sequence struct {
	w   *bufio.Writer
	n   int64
	err error
}

func (s *sequence) bytes(b []byte) {
	if s.err == nil {
		_, s.err = s.w.Write(b)
	}
	s.n += int64(len(b))
}

func (s *sequence) string(t string) {
	if s.err == nil {
		_, s.err = s.w.WriteString(t)
	}
	s.n += int64(len(t))
}

var nothing [Block]byte

func (s *sequence) zeros(n int64) {
	for n > 0 {
		k := min(n, Block)
		s.bytes(nothing[:k])
		n -= k
	}
}

func (s *sequence) pad(to int64) { s.zeros(align(s.n, to) - s.n) }

// offsetWriter writes from an offset on.
type offsetWriter struct {
	w  io.WriterAt
	at int64
}

func (o *offsetWriter) Write(b []byte) (int, error) {
	n, err := o.w.WriteAt(b, o.at)
	o.at += int64(n)
	return n, err
}
