// Package layer keeps the unpacked filesystem layers of images and turns
// trees back into layers.
package layer

import (
	"context"
	"errors"
	"io"

	"cale/image"
)

// ErrNotFound is the class of layers that are not in the store.
var ErrNotFound = errors.New("layer not found")

// Store holds unpacked layers.
type Store struct{ dir string }

var errNotBuilt = errors.New("layer store: not built yet")

// Open opens the layers below dir.
func Open(dir string) (*Store, error) { return nil, errNotBuilt }

// Has tells whether the layer is unpacked.
func (l *Store) Has(diffID image.Digest) bool { return false }

// Unpack unpacks a layer.
func (l *Store) Unpack(ctx context.Context, r io.Reader, mediaType string, diffID image.Digest) (size int64, err error) {
	return 0, errNotBuilt
}

// Lower is the paths for overlay's lowerdir, top first; diffIDs come lowest first.
func (l *Store) Lower(diffIDs []image.Digest) ([]string, error) { return nil, errNotBuilt }

// Remove removes a layer.
func (l *Store) Remove(diffID image.Digest) error { return errNotBuilt }

// List lists the layers.
func (l *Store) List() ([]image.Digest, error) { return nil, errNotBuilt }

// Size is the bytes of a layer's regular files.
func (l *Store) Size(diffID image.Digest) (int64, error) { return 0, errNotBuilt }
