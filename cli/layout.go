package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"cale/image"
)

// packLayout reads a folder, an OCI image layout, as the tar stream of its
// files. What are no plain files stays out.
func packLayout(dir string) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			fi, err := f.Stat()
			if err != nil {
				return err
			}
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: fi.Size(), Format: tar.FormatPAX}); err != nil {
				return err
			}
			_, err = io.Copy(tw, io.LimitReader(f, fi.Size()))
			return err
		})
		if err == nil {
			err = tw.Close()
		}
		w.CloseWithError(err)
	}()
	return r
}

// unpackLayout makes a folder, an OCI image layout, of what the engine saves.
// It must be empty, or not be there; after an error it is as it was.
func unpackLayout(dir string, open func() (io.ReadCloser, error)) (err error) {
	if list, err := os.ReadDir(dir); err == nil && len(list) > 0 {
		return fmt.Errorf("%s is there, and not empty", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	tmp := fmt.Sprintf("%s.%d.part", strings.TrimRight(dir, "/"), os.Getpid())
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(tmp) // not there any more when all went well
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read the saved images: %w", err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := layoutFile(tmp, h.Name, tr); err != nil {
			return err
		}
	}
	// Over a folder only if it is empty.
	return os.Rename(tmp, dir)
}

// layoutFile writes one file of a layout; docker's are left out, as a folder is
// for those who read layouts.
func layoutFile(dir, name string, r io.Reader) error {
	blob, isBlob := strings.CutPrefix(name, "blobs/")
	switch {
	case isBlob:
		// Nothing else than a digest makes a path.
		d, err := image.ParseDigest(strings.Replace(blob, "/", ":", 1))
		if err != nil {
			return fmt.Errorf("the engine saves a blob called %q", blob)
		}
		name = filepath.Join("blobs", d.Algorithm(), d.Encoded())
		if err := os.MkdirAll(filepath.Join(dir, "blobs", d.Algorithm()), 0o755); err != nil {
			return err
		}
	case name != "index.json" && name != "oci-layout":
		return nil
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
