package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cale/filetree"
)

// ErrTooLarge says that an archive holds more than its limits allow.
var ErrTooLarge = errors.New("archive exceeds the limit")

// Limits bound what an archive may bring. Zero means the default.
type Limits struct {
	Bytes   int64 // of all files together, holes counted; default 256 GiB
	Entries int64 // and directories that they need; default 4 million
	Memory  int64 // bytes for what is known of directories until the end; default 256 MiB, a million of usual names
}

const (
	defaultBytes   = 256 << 30
	defaultEntries = 4 << 20
	defaultMemory  = 256 << 20
)

// ExtractOptions say how an archive becomes files.
type ExtractOptions struct {
	// Layer reads OCI whiteouts and writes overlayfs's: a removed file becomes
	// a character device 0:0, an opaque directory gets trusted.overlay.opaque.
	// The tree must be new and nobody else's yet. Without it the archive is
	// added to a living tree, where ".wh." names are names like any other.
	Layer bool
	// Into is the directory inside the tree that names of the archive are
	// relative to; links are resolved in the whole tree all the same.
	Into string
	// Root gives the tree's own directory what the archive says of its root.
	// Without it that is so for layers only: the directory that files are added
	// to is its owner's business.
	Root bool
	// KeepKinds refuses to replace a directory by something else, and something
	// else by a directory, as docker cp does.
	KeepKinds bool
	// Owner, when not nil, owns everything that is made, instead of the owners
	// in the archive.
	Owner *Owner
	// Owners, when not nil, says whose on this machine the files of an owner are: of the archive, or Owner.
	Owners func(uid, gid uint32) (hostUID, hostGID uint32, err error)
	Limits Limits
}

// Owner is a numeric user and group.
type Owner struct{ UID, GID uint32 }

// Extracted says what an archive brought.
type Extracted struct {
	Bytes   int64 // of regular files
	Entries int64 // with the directories that it needed and did not hold
	Opaque  bool  // the layer hides all that lies below it
	// Implied are the directories of a layer that it needed and did not hold;
	// parents come before what lies in them.
	Implied []string
}

// Extract unpacks a plain tar stream (see Decompress) into a tree and reads r
// to its end. Names and links that lead out of the tree lead to its root, or
// are refused. Missing parents are made as root's with mode 0755. After an
// error the tree holds a part of the archive.
func Extract(ctx context.Context, root *filetree.Root, r io.Reader, o ExtractOptions) (Extracted, error) {
	if o.Limits.Bytes == 0 {
		o.Limits.Bytes = defaultBytes
	}
	if o.Limits.Entries == 0 {
		o.Limits.Entries = defaultEntries
	}
	if o.Limits.Memory == 0 {
		o.Limits.Memory = defaultMemory
	}
	o.Into = strings.TrimLeft(path.Join("/", o.Into), "/")
	x := &extractor{
		root: root, opts: o, tr: tar.NewReader(r), buf: buffers.Get().(*[bufferSize]byte),
		umask: umask(), isRoot: os.Geteuid() == 0 && os.Getegid() == 0,
		dirs: dirCache{root: root}, pending: map[string]dirMeta{},
		implied: map[string]struct{}{},
	}
	defer buffers.Put(x.buf)
	defer x.dirs.flush()
	for {
		if err := ctx.Err(); err != nil {
			return x.sum, err
		}
		h, err := x.tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return x.sum, fmt.Errorf("read archive: %w", err)
		}
		if err := x.entry(ctx, h); err != nil {
			return x.sum, fmt.Errorf("archive entry %s: %w", quote(h.Name), err)
		}
	}
	if err := x.finishDirs(); err != nil {
		return x.sum, err
	}
	for name := range x.implied {
		if _, ok := x.pending[name]; !ok && o.Layer {
			x.sum.Implied = append(x.sum.Implied, name)
		}
	}
	sort.Strings(x.sum.Implied)
	// Padding after the end marker still counts for the digest.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return x.sum, fmt.Errorf("read archive: %w", err)
	}
	return x.sum, nil
}

// extractor is one run of Extract.
type extractor struct {
	root   *filetree.Root
	opts   ExtractOptions
	tr     *tar.Reader
	buf    *[bufferSize]byte
	umask  uint32
	isRoot bool // files are made as 0:0, if no directory says otherwise
	dirs   dirCache
	sum    Extracted

	// pending holds the directories' attributes until all entries are made:
	// making them changes times, and modes and ACLs would act on what is made.
	pending map[string]dirMeta
	implied map[string]struct{} // parents made without an entry so far
	held    int64               // bytes that pending and implied take, about
}

func (x *extractor) entry(ctx context.Context, h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if err := x.count(); err != nil {
		return err
	}
	name, err := x.name(h.Name)
	if err != nil {
		return err
	}
	if name == "" || name == x.opts.Into {
		if h.Typeflag != tar.TypeDir {
			return errors.New("the root of the tree can only be a directory")
		}
		if x.opts.Layer || x.opts.Root {
			return x.later(name, h)
		}
		return nil
	}
	parent, base := "", name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		parent, base = name[:i], name[i+1:]
	}
	if x.opts.Layer && (strings.HasPrefix(base, ".wh.") || strings.Contains(parent, ".wh..wh.")) {
		return x.whiteout(parent, base)
	}
	dir, err := x.parent(parent)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return x.directory(dir, base, name, h)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return x.file(ctx, dir, base, h)
	case tar.TypeLink:
		return x.hardlink(dir, base, h.Linkname)
	case tar.TypeSymlink:
		err = x.replace(dir, base, func() error { return unix.Symlinkat(h.Linkname, dir, base) })
	case tar.TypeChar:
		err = x.node(dir, base, unix.S_IFCHR, h)
	case tar.TypeBlock:
		err = x.node(dir, base, unix.S_IFBLK, h)
	case tar.TypeFifo:
		err = x.node(dir, base, unix.S_IFIFO, h)
	default:
		return fmt.Errorf("unknown type %q", h.Typeflag)
	}
	if err != nil {
		return err
	}
	return x.attributes(dir, base, h)
}

// name makes a name of the archive one relative to the tree's root: no slash
// in front, no dots. "" is the root.
func (x *extractor) name(s string) (string, error) {
	s, err := entryName(s)
	if err == nil && x.opts.Into != "" {
		s = strings.TrimLeft(path.Join("/", x.opts.Into, s), "/")
	}
	return s, err
}

func entryName(s string) (string, error) {
	if len(s) >= unix.PathMax {
		return "", unix.ENAMETOOLONG
	}
	if strings.IndexByte(s, 0) >= 0 {
		return "", errors.New("the name holds a zero byte")
	}
	s = path.Clean(s)
	if s == ".." || strings.HasPrefix(s, "../") {
		return "", errors.New("the name leads out of the archive")
	}
	s = strings.TrimLeft(s, "/")
	if s == "." {
		s = ""
	}
	return s, nil
}

// parent is a descriptor of a directory, which stays the cache's.
func (x *extractor) parent(name string) (int, error) {
	fd, err := x.dirs.open(name)
	if err == unix.ENOTDIR && x.opts.Layer && x.unhide(name) == nil {
		fd, err = x.dirs.open(name)
	}
	if err != unix.ENOENT {
		return fd, err
	}
	fd, err = x.root.MkdirAll(name, 0o755)
	if err != nil {
		return -1, err
	}
	if err := x.imply(name); err != nil {
		unix.Close(fd)
		return -1, err
	}
	x.dirs.add(name, fd)
	return fd, nil
}

// imply notes name and its parents as made without an entry, until one comes.
// They count as entries: one name can imply thousands.
func (x *extractor) imply(name string) error {
	for i := len(name); i > 0; i = strings.LastIndexByte(name[:i], '/') {
		if _, ok := x.implied[name[:i]]; ok {
			break
		}
		x.implied[name[:i]] = struct{}{}
		if err := x.count(); err != nil {
			return err
		}
		if err := x.hold(heldEach); err != nil {
			return err
		}
	}
	return x.hold(len(name))
}

// count counts one thing that is made.
func (x *extractor) count() error {
	if x.sum.Entries++; x.sum.Entries > x.opts.Limits.Entries {
		return fmt.Errorf("%w of %d entries", ErrTooLarge, x.opts.Limits.Entries)
	}
	return nil
}

// heldEach is about how many bytes a directory takes beside its name and
// attributes.
const heldEach = 160

// hold accounts for memory that is taken until the end.
func (x *extractor) hold(n int) error {
	if x.held += int64(n); x.held > x.opts.Limits.Memory {
		return fmt.Errorf("%w: its directories' names and attributes take more than %d bytes", ErrTooLarge, x.opts.Limits.Memory)
	}
	return nil
}

// unhide makes opaque directories of the whiteouts on the way to name: the
// layer removes what was there and, elsewhere in the archive, puts something
// new in its place.
func (x *extractor) unhide(name string) error {
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		dir, base, err := x.root.OpenParent(name[:i])
		if err != nil {
			return err
		}
		var st unix.Stat_t
		err = unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && isWhiteout(&st) {
			if err = unix.Unlinkat(dir, base, 0); err == nil {
				err = unix.Mkdirat(dir, base, 0o755)
			}
			if err == nil {
				err = filetree.ChmodAt(dir, base, 0o755)
			}
			if err == nil {
				err = setOpaque(dir, base)
			}
			unix.Close(dir)
			return err
		}
		unix.Close(dir)
		if err != nil {
			return err
		}
	}
	return unix.ENOTDIR
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func setOpaque(dir int, base string) error {
	return filetree.SetXattr(dir, base, "trusted.overlay.opaque", []byte{'y'})
}

// whiteout handles the names of the OCI layer specification that mean absence.
// They concern the layers below only, so the order of entries must not matter:
// what this layer itself holds under the name stays.
func (x *extractor) whiteout(parent, base string) error {
	switch {
	case base == ".wh..wh..opq":
		if parent == "" {
			x.sum.Opaque = true
			return nil
		}
		dir, err := x.parent(parent)
		if err != nil {
			return err
		}
		return setOpaque(dir, ".")
	case strings.HasPrefix(base, ".wh..wh.") || strings.Contains(parent, ".wh..wh."):
		return nil // bookkeeping of aufs, which means nothing outside of it
	}
	hidden := base[len(".wh."):]
	if hidden == "" || hidden == "." || hidden == ".." {
		return errors.New("the whiteout hides no name")
	}
	dir, err := x.parent(parent)
	if err != nil {
		return err
	}
	err = unix.Mknodat(dir, hidden, unix.S_IFCHR, 0)
	if err != unix.EEXIST {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, hidden, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return setOpaque(dir, hidden)
	}
	return nil
}

// quote bounds a foreign name for a message.
func quote(s string) string {
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return fmt.Sprintf("%q", s)
}

// times are access and modification time; an archive that tells no access time
// gets the modification time for both.
func times(h *tar.Header) [2]unix.Timespec {
	m := timespec(h.ModTime)
	if h.AccessTime.IsZero() {
		return [2]unix.Timespec{m, m}
	}
	return [2]unix.Timespec{timespec(h.AccessTime), m}
}

func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		return unix.Timespec{}
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}
