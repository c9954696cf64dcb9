package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

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
	src.to = &sparse{f: f, at: erofs.Start}
	c := newConverter(l.Limits, l.arriving)
	defer c.release()
	unsuited := c.read(ctx, src, func() int64 { return erofs.Start + src.at })
	if unsuited != nil {
		c.release()
		if !errors.Is(unsuited, erofs.ErrUnsuited) && !errors.Is(unsuited, errNoRoom) {
			return got, false, unsuited
		}
	}
	// What the archive says is settled; its bytes are wanted to the last.
	if err := src.drain(ctx); err != nil {
		return got, false, fmt.Errorf("read archive: %w", err)
	}
	src.to = nil
	if err := f.Truncate(erofs.Start + src.at); err != nil { // it may end with a gap
		return got, false, err
	}
	sum := c.sum
	if unsuited == nil {
		_, unsuited = erofs.Write(f, erofs.Start+src.at, c.root())
	} else if errors.Is(unsuited, errNoRoom) {
		sum, unsuited = l.convertAgain(ctx, f, src.at)
	}
	if unsuited == nil {
		err := os.WriteFile(filepath.Join(temp, tarFile), fmt.Appendf(nil, "%d %d\n", layoutVersion, src.at), 0o600)
		if err == nil {
			err = f.Close()
		}
		if err == nil {
			err = seal(temp)
		}
		return sum, true, err
	}
	if !errors.Is(unsuited, erofs.ErrUnsuited) && !errors.Is(unsuited, errNoRoom) {
		return got, false, unsuited
	}
	got, err = l.extract(ctx, temp, &consumed{f: f, at: erofs.Start, end: erofs.Start + src.at})
	if err != nil {
		return got, false, err
	}
	return got, false, os.Remove(path)
}

// convertAgain writes the metadata of an archive that is in a file already, of
// which there was no memory to hold the tree while it and others came. One at a
// time has that.
func (l *Store) convertAgain(ctx context.Context, f *os.File, size int64) (Extracted, error) {
	select {
	case l.again <- struct{}{}:
		defer func() { <-l.again }()
	case <-ctx.Done():
		return Extracted{}, ctx.Err()
	}
	archive := io.NewSectionReader(f, erofs.Start, size)
	c := newConverter(l.Limits, newTreeRoom(againMemory))
	err := c.read(ctx, archive, func() int64 {
		at, _ := archive.Seek(0, io.SeekCurrent) // of a section it can't fail
		return erofs.Start + at
	})
	if err == nil {
		_, err = erofs.Write(f, erofs.Start+size, c.root())
	}
	return c.sum, err
}

// sparse writes a file with gaps for zeros, so that a layer which holds little
// else takes no room.
type sparse struct {
	f  *os.File
	at int64
}

var nothing [chunkSize]byte

func (s *sparse) Write(b []byte) (n int, err error) {
	if n = len(b); n > len(nothing) || !bytes.Equal(b, nothing[:n]) {
		n, err = s.f.WriteAt(b, s.at)
	}
	s.at += int64(n)
	return n, err
}

// consumed reads a file from at to end and gives back the room that what was read
// takes, where the filesystem can: a layer is not on the disk twice.
type consumed struct {
	f       *os.File
	at, end int64
	gone    int64 // up to where
}

const consumeStep = 4 << 20

func (c *consumed) Read(p []byte) (int, error) {
	if c.at >= c.end {
		return 0, io.EOF
	}
	if c.at-c.gone >= consumeStep {
		_ = unix.Fallocate(int(c.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, c.gone, c.at-c.gone)
		c.gone = c.at
	}
	n, err := c.f.ReadAt(p[:min(int64(len(p)), c.end-c.at)], c.at)
	c.at += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
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
	c := newConverter(l.Limits, nil)
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
