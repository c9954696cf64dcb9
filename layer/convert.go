package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"cale/filetree"
	"cale/layer/erofs"
)

// converter makes the tree of a layer's archive, as Extract does, in memory.
type converter struct {
	limits Limits
	room   *treeRoom // nil without a bound
	top    *erofs.Node
	opaque map[*erofs.Node]bool
	sum    Extracted
	held   int64
}

// Bytes of memory for what is known of archives: of all those together that are
// on their way, of one that is read again, of a file, and of an attribute beside
// what they are called.
const (
	arrivingMemory  = 12 << 20
	againMemory     = 36 << 20
	fileMemory      = 200
	attributeMemory = 100
)

// errNoRoom says that there is no memory for the tree of an archive.
var errNoRoom = errors.New("too many files")

// treeRoom is memory that trees share.
type treeRoom struct{ left atomic.Int64 }

func newTreeRoom(bytes int64) *treeRoom {
	r := &treeRoom{}
	r.left.Store(bytes)
	return r
}

func newConverter(limits Limits, room *treeRoom) *converter {
	if limits.Bytes == 0 {
		limits.Bytes = defaultBytes
	}
	if limits.Entries == 0 {
		limits.Entries = defaultEntries
	}
	return &converter{limits: limits, room: room, top: newDir(), opaque: map[*erofs.Node]bool{}}
}

// take has memory counted, which release gives back.
func (c *converter) take(bytes int) error {
	n := int64(bytes)
	c.held += n
	if c.room != nil && c.room.left.Add(-n) < 0 {
		return errNoRoom
	}
	return nil
}

// release ends the use of the tree.
func (c *converter) release() {
	if c.room != nil {
		c.room.left.Add(c.held)
	}
	c.top, c.opaque, c.held = nil, nil, 0
}

func newDir() *erofs.Node {
	return &erofs.Node{Mode: unix.S_IFDIR | 0o755, Children: map[string]*erofs.Node{}}
}

// root is the tree, once all is read.
func (c *converter) root() *erofs.Node {
	for n := range c.opaque {
		attrs := map[string][]byte{"trusted.overlay.opaque": []byte("y")}
		for k, v := range n.Xattrs {
			attrs[k] = v
		}
		n.Xattrs = attrs
	}
	return c.top
}

// read takes in an archive; at tells where in the image what is read next will
// lie. The error is errNoRoom if there is no memory for the tree, and of class
// erofs.ErrUnsuited for all that Extract should judge.
func (c *converter) read(ctx context.Context, r io.Reader, at func() int64) error {
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", erofs.ErrUnsuited, err)
		}
		if err := c.entry(h, at()); err != nil {
			return fmt.Errorf("archive entry %s: %w", quote(h.Name), err)
		}
	}
}

func (c *converter) entry(h *tar.Header, at int64) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if c.sum.Entries++; c.sum.Entries > c.limits.Entries {
		return fmt.Errorf("%w of %d entries", ErrTooLarge, c.limits.Entries)
	}
	if err := c.take(fileMemory + len(path.Base(h.Name)) + len(h.Linkname)); err != nil {
		return err
	}
	name, err := entryName(h.Name)
	if err != nil {
		return fmt.Errorf("%w: %w", erofs.ErrUnsuited, err)
	}
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: a root that is no directory", erofs.ErrUnsuited)
		}
		return c.attributes(c.top, h)
	}
	parent, base := "", name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		parent, base = name[:i], name[i+1:]
	}
	if strings.HasPrefix(base, ".wh.") || strings.Contains(parent, ".wh..wh.") {
		return c.whiteout(parent, base)
	}
	dir, err := c.dir(parent)
	if err != nil {
		return err
	}
	base = strings.Clone(base) // without what else the archive said
	old := dir.Children[base]
	if h.Typeflag == tar.TypeDir {
		n := old
		if n == nil || n.Mode&unix.S_IFMT != unix.S_IFDIR {
			n = newDir()
			if hides(old) {
				c.opaque[n] = true
			}
			dir.Children[base] = n
		}
		return c.attributes(n, h)
	}
	n, err := c.node(h, at)
	if err != nil {
		return err
	}
	dir.Children[base] = n
	return nil
}

// hides tells whether a node is a whiteout.
func hides(n *erofs.Node) bool {
	return n != nil && n.Mode&unix.S_IFMT == unix.S_IFCHR && n.Rdev == 0
}

// node makes what is no directory, or finds what a hard link leads to.
func (c *converter) node(h *tar.Header, at int64) (*erofs.Node, error) {
	n := &erofs.Node{}
	switch h.Typeflag {
	case tar.TypeLink:
		return c.linked(h.Linkname)
	case tar.TypeReg, tar.TypeCont:
		if h.PAXRecords["GNU.sparse.major"] != "" || h.PAXRecords["GNU.sparse.map"] != "" {
			return nil, fmt.Errorf("%w: its content has gaps", erofs.ErrUnsuited)
		}
		if h.Size < 0 || h.Size > c.limits.Bytes-c.sum.Bytes {
			return nil, fmt.Errorf("%w of %d bytes", ErrTooLarge, c.limits.Bytes)
		}
		c.sum.Bytes += h.Size
		n.Mode, n.Size, n.Offset = unix.S_IFREG, h.Size, at
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) >= unix.PathMax {
			return nil, fmt.Errorf("%w: a link to %d bytes", erofs.ErrUnsuited, len(h.Linkname))
		}
		n.Mode, n.Target = unix.S_IFLNK, h.Linkname
	case tar.TypeChar, tar.TypeBlock:
		n.Mode = unix.S_IFCHR
		if h.Typeflag == tar.TypeBlock {
			n.Mode = unix.S_IFBLK
		}
		if h.Devmajor < 0 || h.Devmajor > 0xfff || h.Devminor < 0 || h.Devminor > 0xfffff {
			return nil, fmt.Errorf("%w: device %d:%d", erofs.ErrUnsuited, h.Devmajor, h.Devminor)
		}
		n.Rdev = unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	case tar.TypeFifo:
		n.Mode = unix.S_IFIFO
	default:
		return nil, fmt.Errorf("%w: type %q", erofs.ErrUnsuited, h.Typeflag)
	}
	return n, c.attributes(n, h)
}

// linked finds what a hard link leads to.
func (c *converter) linked(target string) (*erofs.Node, error) {
	name, err := entryName(target)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", erofs.ErrUnsuited, err)
	}
	n := c.top
	for part := range strings.SplitSeq(name, "/") {
		if n = n.Children[part]; n == nil {
			break
		}
	}
	if n == nil || n.Mode&unix.S_IFMT == unix.S_IFDIR || hides(n) {
		return nil, fmt.Errorf("%w: a hard link to %s", erofs.ErrUnsuited, quote(target))
	}
	return n, nil
}

// dir finds a directory of the tree. One that the archive has not brought would
// depend on the layers below; one behind a link, on more than can be seen here.
func (c *converter) dir(name string) (*erofs.Node, error) {
	n := c.top
	if name == "" {
		return n, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		next := n.Children[part]
		if hides(next) {
			next = newDir()
			c.opaque[next] = true
			n.Children[part] = next
		}
		if next == nil || next.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil, fmt.Errorf("%w: no directory %s", erofs.ErrUnsuited, quote(name))
		}
		n = next
	}
	return n, nil
}

// whiteout is extractor.whiteout.
func (c *converter) whiteout(parent, base string) error {
	if base == ".wh..wh..opq" && parent == "" {
		c.sum.Opaque = true
		return nil
	}
	if base != ".wh..wh..opq" && (strings.HasPrefix(base, ".wh..wh.") || strings.Contains(parent, ".wh..wh.")) {
		return nil
	}
	dir, err := c.dir(parent)
	if err != nil {
		return err
	}
	if base == ".wh..wh..opq" {
		c.opaque[dir] = true
		return nil
	}
	hidden := base[len(".wh."):]
	if hidden == "" || hidden == "." || hidden == ".." {
		return fmt.Errorf("%w: a whiteout that hides no name", erofs.ErrUnsuited)
	}
	switch old := dir.Children[hidden]; {
	case old == nil:
		dir.Children[strings.Clone(hidden)] = &erofs.Node{Mode: unix.S_IFCHR} // without what else the archive said
	case old.Mode&unix.S_IFMT == unix.S_IFDIR:
		c.opaque[old] = true
	}
	return nil
}

// attributes sets what all kinds of files have.
func (c *converter) attributes(n *erofs.Node, h *tar.Header) error {
	const most = 1<<32 - 2
	if h.Uid < 0 || h.Uid > most || h.Gid < 0 || h.Gid > most {
		return fmt.Errorf("%w: owner %d:%d", erofs.ErrUnsuited, h.Uid, h.Gid)
	}
	n.UID, n.GID = uint32(h.Uid), uint32(h.Gid)
	n.Mode = n.Mode&unix.S_IFMT | uint32(h.Mode)&0o7777
	if h.Typeflag == tar.TypeSymlink {
		n.Mode = unix.S_IFLNK | 0o777
	}
	t := timespec(h.ModTime)
	n.Sec, n.Nsec = t.Sec, uint32(t.Nsec)
	n.Xattrs = nil
	for k, v := range h.PAXRecords {
		key, ok := strings.CutPrefix(k, xattrPrefix)
		if !ok || !filetree.PortableXattr(key) {
			continue
		}
		user := strings.HasPrefix(key, "user.")
		if kind := n.Mode & unix.S_IFMT; user && kind != unix.S_IFREG && kind != unix.S_IFDIR {
			continue
		}
		// The kernel checks and changes what others are set to.
		if !user && !(key == "security.capability" && plainCapability(v) && n.Mode&unix.S_IFMT == unix.S_IFREG) {
			return fmt.Errorf("%w: attribute %s", erofs.ErrUnsuited, quote(key))
		}
		if n.Xattrs == nil {
			n.Xattrs = map[string][]byte{}
		}
		n.Xattrs[key] = []byte(v)
		if err := c.take(attributeMemory + len(key) + len(v)); err != nil {
			return err
		}
	}
	return nil
}

// plainCapability tells the form of file capabilities that has been in use since
// Linux 2.6.25: version 2, with or without the effective bit.
func plainCapability(v string) bool {
	return len(v) == 20 && v[3] == 2 && v[1] == 0 && v[2] == 0 && v[0] <= 1
}
