// Package store keeps images: blobs by digest, names, leases.
package store

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"cale/image"
	"cale/layer"
)

// ErrNotFound is the class of blobs and names that are not in the store.
var ErrNotFound = errors.New("not found")

var errNotBuilt = errors.New("image store: not built yet")

// Store is the image store below one directory.
type Store struct {
	// Layers are the unpacked layers of the images.
	Layers *layer.Store
}

// Open opens the store below root.
func Open(root string) (*Store, error) { return nil, errNotBuilt }

// Close closes the store.
func (s *Store) Close() error { return nil }

// Stat is the size of a blob in bytes.
func (s *Store) Stat(d image.Digest) (int64, error) { return 0, errNotBuilt }

// Blob is an open blob.
type Blob struct {
	f    *os.File
	size int64
}

// Size is the blob's size in bytes.
func (b *Blob) Size() int64                             { return b.size }
func (b *Blob) Read(p []byte) (int, error)              { return b.f.Read(p) }
func (b *Blob) ReadAt(p []byte, off int64) (int, error) { return b.f.ReadAt(p, off) }
func (b *Blob) Seek(off int64, whence int) (int64, error) {
	return b.f.Seek(off, whence)
}

// Close closes the blob.
func (b *Blob) Close() error { return b.f.Close() }

var _ io.ReadSeekCloser = (*Blob)(nil)

// Open opens a blob.
func (s *Store) Open(d image.Digest) (*Blob, error) { return nil, errNotBuilt }

// Read reads a whole blob of at most max bytes.
func (s *Store) Read(d image.Digest, max int64) ([]byte, error) { return nil, errNotBuilt }

// Remove removes a blob.
func (s *Store) Remove(d image.Digest) error { return errNotBuilt }

// Blobs lists the blobs.
func (s *Store) Blobs() ([]image.Digest, error) { return nil, errNotBuilt }

// Writer takes one blob in; it continues a partial one.
type Writer struct{}

// Writer opens the ingest of desc. If the blob is there already, ErrExists. A
// second Writer of one digest waits for the first (or for ctx).
func (s *Store) Writer(ctx context.Context, desc image.Descriptor) (*Writer, error) {
	return nil, errNotBuilt
}

// ErrExists says that the blob is complete already.
var ErrExists = errors.New("blob exists")

// Offset is how many bytes are there already.
func (w *Writer) Offset() int64               { return 0 }
func (w *Writer) Write(p []byte) (int, error) { return 0, errNotBuilt }

// Partial reads what is there already: bytes 0 to Offset.
func (w *Writer) Partial() io.Reader { return nil }

// Restart throws away what is there.
func (w *Writer) Restart() error { return errNotBuilt }

// Commit verifies size and digest and makes the blob visible.
func (w *Writer) Commit() error { return errNotBuilt }

// Close ends the ingest; without Commit the part is kept for later.
func (w *Writer) Close() error { return nil }

// Put stores a small blob.
func (s *Store) Put(mediaType string, raw []byte) (image.Descriptor, error) {
	return image.Descriptor{}, errNotBuilt
}

// Name is one name and what it points at.
type Name struct {
	Name    string
	Target  image.Descriptor
	Updated time.Time
}

// SetName points name at target, durably.
func (s *Store) SetName(name string, target image.Descriptor) error { return errNotBuilt }

// RemoveName removes a name.
func (s *Store) RemoveName(name string) error { return errNotBuilt }

// Resolve is what a name points at.
func (s *Store) Resolve(name string) (image.Descriptor, error) {
	return image.Descriptor{}, errNotBuilt
}

// Names lists all names, sorted.
func (s *Store) Names() ([]Name, error) { return nil, errNotBuilt }

// AddLease keeps digests (and what they refer to) from being collected.
func (s *Store) AddLease(id string, digests ...image.Digest) error { return errNotBuilt }

// RemoveLease ends a lease.
func (s *Store) RemoveLease(id string) error { return errNotBuilt }

// Leases lists the leases.
func (s *Store) Leases() (map[string][]image.Digest, error) { return nil, errNotBuilt }

// Pin keeps blobs from being collected while this process works on them.
type Pin struct{}

// Pin opens an empty pin.
func (s *Store) Pin() *Pin { return &Pin{} }

// Add adds digests (blobs or diffIDs) to the pin.
func (p *Pin) Add(d ...image.Digest) {}

// Release ends the pin.
func (p *Pin) Release() {}

// Freed is what a collection removed.
type Freed struct {
	Blobs  int
	Bytes  int64
	Layers []image.Digest
}

// GC removes what no name, lease or pin reaches.
func (s *Store) GC(ctx context.Context) (Freed, error) { return Freed{}, errNotBuilt }

// Sync writes everything to disk.
func (s *Store) Sync() error { return errNotBuilt }

// Image is one image for one platform, read from the store.
type Image struct {
	Target             image.Descriptor // what was asked for, maybe an index
	ManifestDescriptor image.Descriptor
	Manifest           *image.Manifest
	Config             *image.Config
	ID                 image.Digest // digest of the config
}

// Image reads the image that target holds for platform p.
func (s *Store) Image(target image.Descriptor, p image.Platform) (*Image, error) {
	return nil, errNotBuilt
}

// Missing lists the blobs of the image that are not in the store.
func (s *Store) Missing(target image.Descriptor, p image.Platform) ([]image.Descriptor, error) {
	return nil, errNotBuilt
}
