package lent

import (
	"context"
	"errors"
	"io"
	gofs "io/fs"
	"os"
	"sync"
	"time"

	"github.com/moby/buildkit/cache/contenthash"
	"github.com/tonistiigi/fsutil"

	"cale/filetree"
)

// tick is how long the kernel may give the same time of change.
const tick = 20 * time.Millisecond

// watched is a folder that is being transferred: it notes which files were
// changed since the last time, and which of those were asked for.
type watched struct {
	fsutil.FS
	since time.Time

	mu      sync.Mutex
	changed map[string]bool // and not asked for
}

// Walk implements fsutil.FS.
func (w *watched) Walk(ctx context.Context, target string, fn gofs.WalkDirFunc) error {
	return w.FS.Walk(ctx, target, func(path string, e gofs.DirEntry, err error) error {
		if c, ok := e.(Changed); ok && err == nil && e.Type().IsRegular() && !c.Changed().Before(w.since) {
			w.mu.Lock()
			w.changed[path] = true
			w.mu.Unlock()
		}
		return fn(path, e, err)
	})
}

// Open implements fsutil.FS.
func (w *watched) Open(path string) (io.ReadCloser, error) {
	w.mu.Lock()
	delete(w.changed, path)
	w.mu.Unlock()
	return w.FS.Open(path)
}

// drop removes from the tree at dest what was changed and not asked for, and
// tells whether there was any.
func (w *watched) drop(dest string, known contenthash.CacheContext) (any bool, err error) {
	if len(w.changed) == 0 {
		return false, nil
	}
	tree, err := filetree.Open(dest)
	if err != nil {
		return false, err
	}
	defer tree.Close()
	for path := range w.changed {
		st, err := tree.Lstat(path)
		if errors.Is(err, os.ErrNotExist) { // it was left out
			continue
		}
		if err != nil {
			return false, err
		}
		if st.Nlink > 1 { // its other name was asked for
			continue
		}
		if err := tree.RemoveAll(path); err != nil {
			return false, err
		}
		if err := known.HandleChange(fsutil.ChangeKindDelete, path, nil, nil); err != nil {
			return false, err
		}
		any = true
	}
	return any, nil
}
