// Package layer keeps the unpacked filesystem layers of images and turns
// trees back into layers.
//
// Each layer is a directory of its own, in overlayfs's form and independent of
// the layers below it: all layers of an image unpack at the same time, and one
// layer serves every image that holds it.
package layer

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"cale/filetree"
	"cale/image"
)

// ErrNotFound is the class of layers that are not in the store.
var ErrNotFound = errors.New("layer not found")

// ErrDigest says that a layer's content is not what its diffID names.
var ErrDigest = errors.New("layer does not match its digest")

// Store holds unpacked layers, one directory <alg>-<hex> each: "fs" is the
// tree, "size" the bytes of its files, "opaque" exists if the layer hides
// everything below it, and "implied" lists the directories that it needed and
// did not hold. A directory appears by rename when it is complete. Where there
// is an "image" it is the tree, as an EROFS filesystem that Show mounts at "fs".
// Power cuts: see Unsynced. One process may have a Store open at a time; others
// have OpenShared.
type Store struct {
	// Limits bound what one layer may unpack to; change it before first use.
	Limits Limits
	// Images has layers become EROFS images rather than directories, where this
	// kernel mounts them from files. It may be changed at any time.
	Images atomic.Bool

	dir    string
	temp   string // where temporary directories are made, on the same filesystem
	tag    string // of this process's temporary directories
	seq    atomic.Uint64
	shared bool // another process removes layers: nothing about them is remembered

	sweep sync.Mutex // one removal of trees at a time

	images   sync.Once     // whether the kernel mounts images is found out
	noImages error         // why it does not
	arriving *treeRoom     // of layers that become images while they come
	again    chan struct{} // of one that does so afterwards
	mounting sync.Mutex
	shown    map[image.Digest]bool // by this process, of a store that it shares

	mu      sync.Mutex
	known   map[image.Digest]info
	running map[image.Digest]chan struct{} // closed when that Unpack ends
	fresh   []image.Digest                 // made since Unsynced was last taken
	fitted  map[image.Digest]string        // what was below a layer when it was last fitted
}

type info struct {
	size    int64
	opaque  bool
	implied bool // there is a list of implied directories
	image   bool // the tree is an EROFS image
}

// Open opens the layers below dir, which it makes if need be.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var b [6]byte
	rand.Read(b[:])
	return &Store{
		dir: dir, temp: dir, tag: tempPrefix + hex.EncodeToString(b[:]) + "-",
		known: map[image.Digest]info{}, running: map[image.Digest]chan struct{}{},
		arriving: newTreeRoom(arrivingMemory), again: make(chan struct{}, 1),
		fitted: map[image.Digest]string{}, shown: map[image.Digest]bool{},
	}, nil
}

const tempPrefix = "tmp-"

func (l *Store) tempPath() string {
	return filepath.Join(l.temp, l.tag+strconv.FormatUint(l.seq.Add(1), 10))
}

// place gives a complete directory its layer's name, or discards it if another
// process that has the store open was faster.
func (l *Store) place(temp string, d image.Digest) error {
	var err error
	for range placeTries {
		if err = os.Rename(temp, l.path(d)); err == nil {
			return nil
		}
		if l.Has(d) {
			return l.discard(temp)
		}
		if !errors.Is(err, unix.ENOTDIR) {
			return err
		}
		// The link of an Exchange that was cut short, or is about to come to its
		// end; then the next try finds the layer.
		if err := removeLink(l.path(d)); err != nil {
			return err
		}
	}
	return err
}

// placeTries bounds how often a name is tried that others give away and take
// back at the same time.
const placeTries = 16

// removeLink removes a link; that there is none, or something else by now, is no
// error.
func removeLink(path string) error {
	// Unlike os.Remove it does not go on to remove a directory.
	err := unix.Unlink(path)
	if err == nil || err == unix.ENOENT || err == unix.EISDIR {
		return nil
	}
	return &os.PathError{Op: "unlink", Path: path, Err: err}
}

func dirName(d image.Digest) string { return d.Algorithm() + "-" + d.Encoded() }

func parseDir(name string) (image.Digest, error) {
	return image.ParseDigest(strings.Replace(name, "-", ":", 1))
}

func (l *Store) path(d image.Digest) string { return filepath.Join(l.dir, dirName(d)) }

// Has tells whether the layer is unpacked.
func (l *Store) Has(diffID image.Digest) bool {
	_, err := l.info(diffID)
	return err == nil
}

// MaxBytes is how much one layer may hold.
func (l *Store) MaxBytes() int64 {
	if l.Limits.Bytes == 0 {
		return defaultBytes
	}
	return l.Limits.Bytes
}

// Size is the bytes of the layer's regular files.
func (l *Store) Size(diffID image.Digest) (int64, error) {
	i, err := l.info(diffID)
	return i.size, err
}

func (l *Store) info(d image.Digest) (info, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i, ok := l.known[d]; ok {
		return i, nil
	}
	i, err := l.note(d)
	if err == nil && !l.shared {
		l.known[d] = i
	}
	return i, err
}

// note reads what is noted of a layer beside its tree.
func (l *Store) note(d image.Digest) (info, error) {
	if d.IsZero() {
		return info{}, fmt.Errorf("%w: empty digest", ErrNotFound)
	}
	b, err := os.ReadFile(filepath.Join(l.path(d), "size"))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ELOOP) { // ELOOP: see Exchange
		return info{}, fmt.Errorf("%w: %s", ErrNotFound, d)
	}
	if err != nil {
		return info{}, fmt.Errorf("layer %s: %w", d, err)
	}
	var i info
	if i.size, err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err != nil {
		return info{}, fmt.Errorf("layer %s: its size is not readable: %w", d, err)
	}
	if _, err := os.Lstat(filepath.Join(l.path(d), "opaque")); err == nil {
		i.opaque = true
	}
	if _, err := os.Lstat(filepath.Join(l.path(d), "implied")); err == nil {
		i.implied = true
	}
	if _, err := os.Lstat(filepath.Join(l.path(d), imageFile)); err == nil {
		i.image = true
	}
	return i, nil
}

// Lower is what overlayfs takes as lowerdir for these layers, which are given
// lowest first as in an image config: their paths, the top one first. A layer
// that hides all below it ends the list. One that is there twice is named once,
// as overlayfs wants it: the upper one has all that the lower one has.
func (l *Store) Lower(diffIDs []image.Digest) ([]string, error) {
	if err := l.fit(diffIDs); err != nil {
		return nil, err
	}
	out := make([]string, 0, len(diffIDs))
	for i := len(diffIDs) - 1; i >= 0; i-- {
		in, err := l.info(diffIDs[i])
		if err != nil {
			return nil, err
		}
		if err := l.Show(diffIDs[i]); err != nil {
			return nil, err
		}
		if path := filepath.Join(l.path(diffIDs[i]), "fs"); !slices.Contains(out, path) {
			out = append(out, path)
		}
		if in.opaque {
			break
		}
	}
	return out, nil
}

// Unpack unpacks one layer and returns the bytes of its files. r is the blob as
// distributed, of one of the layer media types ("" if unknown); on success it
// has been read to its end. Nothing is visible under the diffID unless the
// whole content matched it. If the layer is being unpacked already, Unpack
// waits for that and, should it have failed, does it itself.
func (l *Store) Unpack(ctx context.Context, r io.Reader, mediaType string, diffID image.Digest) (size int64, err error) {
	if mediaType != "" && !image.IsLayer(mediaType) {
		return 0, fmt.Errorf("unpack layer %s: %q is no layer", diffID, mediaType)
	}
	for {
		l.mu.Lock()
		wait, busy := l.running[diffID]
		if !busy {
			l.running[diffID] = make(chan struct{})
		}
		l.mu.Unlock()
		if !busy {
			break
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	defer func() {
		l.mu.Lock()
		close(l.running[diffID])
		delete(l.running, diffID)
		l.mu.Unlock()
	}()
	if i, err := l.info(diffID); err == nil {
		if _, err := io.Copy(io.Discard, r); err != nil {
			return 0, err
		}
		return i.size, nil
	}
	i, err := l.unpack(ctx, r, diffID)
	if err != nil {
		return 0, fmt.Errorf("unpack layer %s: %w", diffID, err)
	}
	l.mu.Lock()
	if !l.shared {
		l.known[diffID] = i
	}
	l.fresh = append(l.fresh, diffID)
	l.mu.Unlock()
	return i.size, nil
}

// unpack fills a temporary directory and renames it.
func (l *Store) unpack(ctx context.Context, r io.Reader, diffID image.Digest) (i info, err error) {
	temp := l.tempPath()
	if err := os.Mkdir(temp, 0o700); err != nil {
		return info{}, err
	}
	defer func() {
		if err != nil {
			l.discard(temp)
		}
	}()
	d, err := newDecoder(r)
	if err != nil {
		return info{}, err
	}
	a := newAhead(d)
	defer a.Close()
	src := &hashing{src: a, h: diffID.Hash(), left: l.MaxBytes()}
	var got Extracted
	asImage := l.makesImages()
	if asImage {
		got, asImage, err = l.unpackImage(ctx, temp, src)
	} else {
		got, err = l.extract(ctx, temp, src)
	}
	if err != nil {
		return info{}, err
	}
	// Closing first makes sure that nothing reads r any more.
	a.Close()
	if have := image.FromHash(src.h); have != diffID {
		return info{}, fmt.Errorf("%w: its content is %s", ErrDigest, have)
	}
	if got.Opaque {
		if err := os.WriteFile(filepath.Join(temp, "opaque"), nil, 0o600); err != nil {
			return info{}, err
		}
	}
	if len(got.Implied) > 0 {
		// Names hold no zero bytes.
		if err := os.WriteFile(filepath.Join(temp, "implied"), []byte(strings.Join(got.Implied, "\x00")), 0o600); err != nil {
			return info{}, err
		}
	}
	if err := os.WriteFile(filepath.Join(temp, "size"), strconv.AppendInt(nil, got.Bytes, 10), 0o600); err != nil {
		return info{}, err
	}
	if err := l.place(temp, diffID); err != nil {
		return info{}, err
	}
	return info{got.Bytes, got.Opaque, len(got.Implied) > 0, asImage}, nil
}

// extract makes the directory "fs" of a layer.
func (l *Store) extract(ctx context.Context, temp string, r io.Reader) (Extracted, error) {
	fs := filepath.Join(temp, "fs")
	if err := os.Mkdir(fs, 0o755); err != nil {
		return Extracted{}, err
	}
	if err := os.Chmod(fs, 0o755); err != nil {
		return Extracted{}, err
	}
	root, err := filetree.Open(fs)
	if err != nil {
		return Extracted{}, err
	}
	defer root.Close()
	return Extract(ctx, root, r, ExtractOptions{Layer: true, Limits: l.Limits})
}

// hashing hashes what is read, a chunk at a time, and bounds it: the headers of
// an archive count as well as its files.
type hashing struct {
	src  *ahead
	h    hash.Hash
	to   io.Writer // gets all that is read, if not nil
	rest []byte
	at   int64 // bytes given out
	left int64
	err  error // stays: what came after it would not be where it belongs
}

// fill gets the next chunk when there is nothing left.
func (r *hashing) fill() error {
	for len(r.rest) == 0 && r.err == nil {
		r.rest, r.err = r.chunk()
	}
	if len(r.rest) > 0 {
		return nil
	}
	return r.err
}

func (r *hashing) chunk() ([]byte, error) {
	b, err := r.src.next()
	if err != nil {
		return nil, err
	}
	if r.left -= int64(len(b)); r.left < 0 {
		return nil, ErrTooLarge
	}
	r.h.Write(b)
	if r.to != nil {
		if _, err := r.to.Write(b); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (r *hashing) Read(p []byte) (int, error) {
	if err := r.fill(); err != nil {
		return 0, err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	r.at += int64(n)
	return n, nil
}

// Adopt makes the tree at path, a directory on the same filesystem in the form
// described for Store, the layer diffID, by a rename of that directory. The
// caller vouches for the digest: it has just computed it from this tree.
func (l *Store) Adopt(path string, diffID image.Digest, size int64) error {
	if l.Has(diffID) {
		return nil
	}
	temp := l.tempPath()
	if err := os.Mkdir(temp, 0o700); err != nil {
		return fmt.Errorf("adopt layer %s: %w", diffID, err)
	}
	err := os.WriteFile(filepath.Join(temp, "size"), strconv.AppendInt(nil, size, 10), 0o600)
	if err == nil {
		err = os.Rename(path, filepath.Join(temp, "fs"))
	}
	if err == nil {
		err = l.place(temp, diffID)
	}
	if err != nil {
		l.discard(temp)
		return fmt.Errorf("adopt layer %s: %w", diffID, err)
	}
	l.mu.Lock()
	l.fresh = append(l.fresh, diffID)
	l.mu.Unlock()
	return nil
}

// List lists the layers.
func (l *Store) List() ([]image.Digest, error) {
	names, err := l.names()
	if err != nil {
		return nil, err
	}
	var out []image.Digest
	for _, n := range names {
		if d, err := parseDir(n); err == nil {
			out = append(out, d)
		}
	}
	return out, nil
}

func (l *Store) names() ([]string, error) {
	f, err := os.Open(l.dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// Unsynced takes the list of layers made since it was last called. They are
// whole for every process, but only after a syncfs of the filesystem will they
// be so after a power cut; the image store keeps book of that.
func (l *Store) Unsynced() []image.Digest {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.fresh
	l.fresh = nil
	return out
}

// Refresh puts a layer on the list that Unsynced takes.
func (l *Store) Refresh(diffID image.Digest) {
	l.mu.Lock()
	l.fresh = append(l.fresh, diffID)
	l.mu.Unlock()
}
