package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"cale/filetree"
	"cale/image"
	"cale/layer/erofs"
)

// A layer as an EROFS image is its archive, as it came out of the decompressor,
// with the metadata behind it that makes a filesystem of it: one sequential
// write, and one file to remove. Archives whose tree depends on more than
// themselves, or that need what the format lacks, become directories as ever:
// the archive is in the file and is read once more.

const (
	imageFile = "image"
	// tarFile says by which version of the layout the image was written, and how many bytes of it are the archive.
	tarFile = "tar"
	// layoutVersion changes with what erofs.Write makes of a tree: only images of the same version can be compared.
	layoutVersion = 1
)

// makesImages tells whether new layers become images.
func (l *Store) makesImages() bool {
	if !l.Images.Load() {
		return false
	}
	l.images.Do(func() { l.noImages = erofs.Supported(l.temp) })
	return l.noImages == nil
}

// NoImages is why layers do not become images although they should, nil if they
// do.
func (l *Store) NoImages() error {
	if l.makesImages() {
		return nil
	}
	return l.noImages
}

// unpackImage writes a layer's image, or if need be its directory; asImage tells
// which.
func (l *Store) unpackImage(ctx context.Context, temp string, src *hashing) (got Extracted, asImage bool, err error) {
	path := filepath.Join(temp, imageFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return got, false, err
	}
	defer f.Close()
	if _, err := f.Seek(erofs.Start, io.SeekStart); err != nil {
		return got, false, err
	}
	src.to = f
	c := newConverter(l.Limits)
	unsuited := c.read(ctx, src, func() int64 { return erofs.Start + src.at })
	if unsuited != nil && !errors.Is(unsuited, erofs.ErrUnsuited) {
		return got, false, unsuited
	}
	// What the archive says is settled; its bytes are wanted to the last.
	if err := src.drain(ctx); err != nil {
		return got, false, fmt.Errorf("read archive: %w", err)
	}
	src.to = nil
	if unsuited == nil {
		_, unsuited = erofs.Write(f, erofs.Start+src.at, c.root())
	}
	if unsuited == nil {
		err := os.WriteFile(filepath.Join(temp, tarFile), fmt.Appendf(nil, "%d %d\n", layoutVersion, src.at), 0o600)
		if err == nil {
			err = f.Close()
		}
		if err == nil {
			err = seal(temp)
		}
		return c.sum, true, err
	}
	if !errors.Is(unsuited, erofs.ErrUnsuited) {
		return got, false, unsuited
	}
	got, err = l.extract(ctx, temp, io.NewSectionReader(f, erofs.Start, src.at))
	if err != nil {
		return got, false, err
	}
	return got, false, os.Remove(path)
}

// drain reads on to the end.
func (r *hashing) drain(ctx context.Context) error {
	for {
		r.at += int64(len(r.rest))
		r.rest = nil
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.fill(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// Seek skips what an archive's reader does not look at.
func (r *hashing) Seek(n int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || n < 0 {
		return 0, errors.ErrUnsupported
	}
	for n > 0 {
		if err := r.fill(); err == io.EOF {
			return 0, io.ErrUnexpectedEOF
		} else if err != nil {
			return 0, err
		}
		k := min(n, int64(len(r.rest)))
		r.rest = r.rest[k:]
		r.at += k
		n -= k
	}
	return r.at, nil
}

// converter makes the tree of a layer's archive, as Extract does, in memory.
type converter struct {
	limits Limits
	top    *erofs.Node
	opaque map[*erofs.Node]bool
	sum    Extracted
	held   int64
}

// Bytes of memory that what is known of an archive may take, and what a file
// takes beside its names.
const (
	imageMemory = 64 << 20
	imageEach   = 300
)

func newConverter(limits Limits) *converter {
	if limits.Bytes == 0 {
		limits.Bytes = defaultBytes
	}
	if limits.Entries == 0 {
		limits.Entries = defaultEntries
	}
	return &converter{limits: limits, top: newDir(), opaque: map[*erofs.Node]bool{}}
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
// lie. The error is of class erofs.ErrUnsuited for all that Extract should judge.
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
	if c.held += int64(imageEach + len(h.Name) + len(h.Linkname)); c.held > imageMemory {
		return fmt.Errorf("%w: too many files", erofs.ErrUnsuited)
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
		dir.Children[hidden] = &erofs.Node{Mode: unix.S_IFCHR}
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
		c.held += int64(len(key) + len(v))
	}
	return nil
}

// plainCapability tells the form of file capabilities that has been in use since
// Linux 2.6.25: version 2, with or without the effective bit.
func plainCapability(v string) bool {
	return len(v) == 20 && v[3] == 2 && v[1] == 0 && v[2] == 0 && v[0] <= 1
}

// IsImage tells whether a layer is an EROFS image.
func (l *Store) IsImage(diffID image.Digest) bool {
	i, err := l.info(diffID)
	return err == nil && i.image
}

// Show mounts a layer that is an image, if it is not mounted yet. Whoever gets
// at a layer's tree other than by Lower calls it first.
func (l *Store) Show(diffID image.Digest) error {
	i, err := l.info(diffID)
	if err != nil || !i.image {
		return err
	}
	l.mounting.Lock()
	defer l.mounting.Unlock()
	dir := l.path(diffID)
	fs := filepath.Join(dir, "fs")
	var st unix.Statx_t
	err = unix.Statx(unix.AT_FDCWD, fs, unix.AT_SYMLINK_NOFOLLOW, 0, &st)
	// The owner's mount, which its mount namespace may have passed on, goes when
	// the owner ends.
	if err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 && (!l.shared || l.shown[diffID]) {
		return nil
	}
	if err == unix.ENOENT {
		err = os.Mkdir(fs, 0o700)
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("layer %s: %w", diffID, err)
	}
	if err := checkSeal(dir); err != nil {
		return fmt.Errorf("layer %s: %w", diffID, err)
	}
	m, err := erofs.Mount(filepath.Join(dir, imageFile))
	if err != nil {
		return fmt.Errorf("layer %s: %w", diffID, err)
	}
	defer m.Close()
	if err := unix.MoveMount(int(m.Fd()), "", unix.AT_FDCWD, fs, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("layer %s: mount at %s: %w", diffID, fs, err)
	}
	if l.shared {
		l.shown[diffID] = true
	}
	return nil
}

// unmount takes away what Show mounted at a path; that there is nothing is no
// error.
func unmount(path string) error {
	for {
		switch err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err {
		case nil:
		case unix.EINVAL, unix.ENOENT, unix.ENOTDIR, unix.EPERM: // EPERM: who may not unmount has not mounted
			return nil
		default:
			return &os.PathError{Op: "unmount", Path: path, Err: err}
		}
	}
}

// Close takes down the mounts of layers that are images. What uses them has
// mounts of its own.
func (l *Store) Close() error {
	names, err := l.names()
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range names {
		if _, err := os.Lstat(filepath.Join(l.dir, n, imageFile)); err == nil {
			errs = append(errs, unmount(filepath.Join(l.dir, n, "fs")))
		}
	}
	return errors.Join(errs...)
}

// VerifyImage compares a layer that is an image with its diffID: the archive is
// in it, and the rest must be what the archive makes.
func (l *Store) VerifyImage(ctx context.Context, diffID image.Digest) error {
	f, err := os.Open(filepath.Join(l.path(diffID), imageFile))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer f.Close()
	raw, err := os.ReadFile(filepath.Join(l.path(diffID), tarFile))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	var version int
	var size int64
	if _, err := fmt.Sscanf(string(raw), "%d %d\n", &version, &size); err != nil || size < 0 {
		return fmt.Errorf("%w: the size of its archive is %q", ErrDamaged, raw)
	}
	if err := checkSeal(l.path(diffID)); err != nil {
		return err
	}
	if version != layoutVersion {
		return fmt.Errorf("its layout has version %d, this program checks version %d", version, layoutVersion)
	}
	h := diffID.Hash()
	archive := &counted{r: io.TeeReader(io.NewSectionReader(f, erofs.Start, size), h)}
	c := newConverter(l.Limits)
	broken := c.read(ctx, archive, func() int64 { return erofs.Start + archive.n })
	if _, err := io.Copy(io.Discard, archive); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if have := image.FromHash(h); have != diffID {
		return fmt.Errorf("%w: its archive is %s", ErrDamaged, have)
	}
	if broken != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, broken)
	}
	want := &comparing{have: f}
	end, err := erofs.Write(want, erofs.Start+size, c.root())
	if st, serr := f.Stat(); err == nil && (serr != nil || st.Size() != end) {
		err = errors.New("its file has another size")
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

// counted counts what is read.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// comparing compares what is written with what a file holds.
type comparing struct{ have *os.File }

func (c *comparing) WriteAt(b []byte, at int64) (int, error) {
	have := make([]byte, len(b))
	if _, err := c.have.ReadAt(have, at); err != nil {
		return 0, err
	}
	if !bytes.Equal(have, b) {
		return 0, fmt.Errorf("its metadata at %d is another", at)
	}
	return len(b), nil
}
