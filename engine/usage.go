package engine

import (
	"context"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cale/image"
	"cale/image/store"
)

// DiskUsage measures everything; what only the build cache holds is the builder's to tell of.
func (e *Engine) DiskUsage(ctx context.Context) (Usage, error) {
	defer e.begin()()
	var u Usage
	if err := e.imageUsage(ctx, &u); err != nil {
		return u, err
	}
	u.Containers = e.List(ctx, true)
	vols, err := e.Volumes(ctx)
	if err != nil {
		return u, err
	}
	for _, v := range vols {
		if err := ctx.Err(); err != nil {
			return u, err
		}
		u.Volumes = append(u.Volumes, VolumeUsage{Volume: v, Size: treeSize(v.Mountpoint), Refs: len(e.volumes.users(v.Name))})
	}
	return u, nil
}

func (e *Engine) imageUsage(ctx context.Context, u *Usage) (err error) {
	if u.Images, err = e.Images(ctx, false); err != nil {
		return err
	}
	users, err := e.shareSizes(u.Images)
	if err != nil {
		return err
	}
	held, err := e.Build().Held(context.Background())
	if err != nil {
		return err
	}
	builds := map[image.Digest]bool{}
	for _, d := range append(held.Blobs, held.Layers...) {
		builds[d] = users[d] == 0
	}
	blobs, err := e.store.Blobs()
	if err != nil {
		return err
	}
	for _, d := range blobs {
		if n, err := e.store.Stat(d); err == nil && !builds[d] {
			u.LayersSize += n
		}
	}
	layers, err := e.store.Layers.List()
	if err != nil {
		return err
	}
	for _, d := range layers {
		if n, err := e.store.Layers.Size(d); err == nil && !builds[d] {
			u.LayersSize += n
		}
	}
	return nil
}

// ShareSizes fills in how much of each image others of the list have too.
func (e *Engine) ShareSizes(images []Image) error {
	_, err := e.shareSizes(images)
	return err
}

// shareSizes also says how many of the images have each content.
func (e *Engine) shareSizes(images []Image) (users map[image.Digest]int, err error) {
	parts := make([]map[image.Digest]int64, len(images))
	users = map[image.Digest]int{}
	for i := range images {
		if parts[i], err = e.contentOf(&images[i]); err != nil {
			return nil, err
		}
		for d := range parts[i] {
			users[d]++
		}
	}
	for i := range images {
		for d, n := range parts[i] {
			if users[d] > 1 {
				images[i].Shared += n
			}
		}
	}
	return users, nil
}

// contentOf is content by what an image is described as.
func (e *Engine) contentOf(i *Image) (map[image.Digest]int64, error) {
	target, err := image.ParseDigest(i.Target)
	if err != nil {
		return nil, err
	}
	img, err := e.loadImage(image.Descriptor{Digest: target, MediaType: i.MediaType, Size: i.TargetSize}, image.Platform{})
	if err != nil {
		return nil, nil // removed meanwhile
	}
	return e.content(img), nil
}

// content lists the blobs and unpacked layers of an image that are here, with their sizes: what it takes on disk. That
// is an image's size wherever one is told.
func (e *Engine) content(img *store.Image) map[image.Digest]int64 {
	out := map[image.Digest]int64{}
	blobs := append([]image.Descriptor{img.Target, img.ManifestDescriptor, img.Manifest.Config}, img.Manifest.Layers...)
	for _, d := range blobs {
		if n, err := e.store.Stat(d.Digest); err == nil {
			out[d.Digest] = n
		}
	}
	for _, d := range img.Config.DiffIDs {
		if n, err := e.store.Layers.Size(d); err == nil {
			out[d] += n // a layer that came uncompressed has one digest for both
		}
	}
	return out
}

// Written is what a container has written to its root, as it takes up space: bytes of blocks, and files of all kinds.
func (e *Engine) Written(ref string) (bytes, files int64, err error) {
	c, err := e.find(ref)
	if err != nil {
		return 0, 0, err
	}
	t := measureTree(c.upper())
	return t.blocks, t.files, nil
}

func treeSize(dir string) int64 { return measureTree(dir).size }

// tree is how large a directory tree is. Files with several names count once.
type tree struct {
	size   int64 // of the regular files
	blocks int64 // bytes that all take up
	files  int64 // of all kinds
}

// measureTree looks at all of a tree. What can't be read counts nothing.
func measureTree(dir string) (t tree) {
	seen := map[[2]uint64]bool{}
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err != nil || unix.Lstat(path, &st) != nil {
			return nil
		}
		if st.Nlink > 1 && !d.IsDir() {
			key := [2]uint64{uint64(st.Dev), st.Ino}
			if seen[key] {
				return nil
			}
			seen[key] = true
		}
		if d.Type().IsRegular() {
			t.size += st.Size
		}
		t.blocks += st.Blocks * 512
		t.files++
		return nil
	})
	return t
}
