package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// created is when everything here was made: fixed, so that digests are too.
var created = time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)

// File is one entry of a layer. A name that ends in "/" is a directory; Link
// makes a hard link, Symlink a symbolic one; Type is a tar type such as
// tar.TypeChar, 0 for what the other fields say. A zero Mode is 0755 for
// directories and 0644 for files; a zero time is one that all images share.
type File struct {
	Name    string
	Mode    int64
	UID     int
	GID     int
	Data    []byte
	Link    string
	Symlink string
	Xattrs  map[string]string
	Type    byte
	Major   int64
	Minor   int64
	Time    time.Time
}

// Tar packs files in the order given.
func Tar(files []File) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.Name, Mode: f.Mode, Uid: f.UID, Gid: f.GID, ModTime: created, Typeflag: tar.TypeReg, Size: int64(len(f.Data))}
		switch {
		case f.Name == "":
			return nil, fmt.Errorf("a file without a name")
		case f.Link != "":
			h.Typeflag, h.Linkname = tar.TypeLink, f.Link
		case f.Symlink != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.Symlink
		case f.Name[len(f.Name)-1] == '/':
			h.Typeflag = tar.TypeDir
		case f.Type != 0:
			h.Typeflag, h.Devmajor, h.Devminor = f.Type, f.Major, f.Minor
		}
		if !f.Time.IsZero() {
			h.ModTime, h.Format = f.Time, tar.FormatPAX
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
			if h.Typeflag == tar.TypeSymlink {
				h.Mode = 0o777
			}
		}
		for k, v := range f.Xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(f.Data); err != nil {
				return nil, fmt.Errorf("%s: %w", f.Name, err)
			}
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func compress(how string, tar []byte) (Blob, error) {
	var buf bytes.Buffer
	switch how {
	case "none":
		return Blob{TypeTar, tar}, nil
	case "zstd":
		w, err := zstd.NewWriter(&buf)
		if err != nil {
			return Blob{}, err
		}
		if _, err := w.Write(tar); err != nil {
			return Blob{}, err
		}
		return Blob{TypeZstd, nil}.with(&buf, w.Close())
	case "", "gzip":
		w := gzip.NewWriter(&buf)
		if _, err := w.Write(tar); err != nil {
			return Blob{}, err
		}
		return Blob{TypeGzip, nil}.with(&buf, w.Close())
	}
	return Blob{}, fmt.Errorf("unknown compression %q", how)
}

func (b Blob) with(buf *bytes.Buffer, err error) (Blob, error) {
	b.Data = buf.Bytes()
	return b, err
}
