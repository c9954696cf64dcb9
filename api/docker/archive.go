package docker

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/moby/moby/api/types/container"

	"cale/engine"
)

func pathStatHeader(w http.ResponseWriter, st engine.PathStat) error {
	raw, err := json.Marshal(container.PathStat{Name: st.Name, Size: st.Size, Mode: fs.FileMode(st.Mode), Mtime: st.Mtime, LinkTarget: st.LinkTarget})
	if err != nil {
		return err
	}
	w.Header().Set("X-Docker-Container-Path-Stat", base64.StdEncoding.EncodeToString(raw))
	return nil
}

func archivePath(r *request) (string, error) {
	p := r.text("path")
	if p == "" {
		return "", invalid("missing path: name a path in the container")
	}
	return p, nil
}

func (s *Server) archiveStat(w http.ResponseWriter, r *request) error {
	p, err := archivePath(r)
	if err != nil {
		return err
	}
	st, err := s.engine.StatPath(r.Context(), r.name(), p)
	if err != nil {
		return err
	}
	return pathStatHeader(w, st)
}

func (s *Server) archiveGet(w http.ResponseWriter, r *request) error {
	p, err := archivePath(r)
	if err != nil {
		return err
	}
	st, body, err := s.engine.CopyFrom(r.Context(), r.name(), p)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := pathStatHeader(w, st); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tar")
	out := &started{w: w}
	if _, err := io.Copy(out, body); err != nil {
		return out.fail(err)
	}
	return nil
}

func (s *Server) archivePut(w http.ResponseWriter, r *request) error {
	p, err := archivePath(r)
	if err != nil {
		return err
	}
	body, done, err := plain(r.Body)
	if err != nil {
		return err
	}
	defer done()
	o := engine.CopyOptions{NoOverwriteDirNonDir: r.flag("noOverwriteDirNonDir"), CopyUIDGID: r.flag("copyUIDGID")}
	return s.engine.CopyTo(r.Context(), r.name(), p, body, o)
}

// plain undoes gzip or zstd, in this process: nothing from a container ever decompresses for the host.
func plain(r io.Reader) (io.Reader, func(), error) {
	head := make([]byte, 4)
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return nil, nil, err
	}
	whole := io.MultiReader(bytes.NewReader(head[:n]), r)
	switch {
	case n >= 2 && head[0] == 0x1f && head[1] == 0x8b:
		z, err := gzip.NewReader(whole)
		if err != nil {
			return nil, nil, invalid("invalid archive: %v", err)
		}
		return z, func() { z.Close() }, nil
	case n == 4 && string(head) == "\x28\xb5\x2f\xfd":
		z, err := zstd.NewReader(whole, zstd.WithDecoderMaxMemory(64<<20), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, nil, invalid("invalid archive: %v", err)
		}
		return z, z.Close, nil
	}
	return whole, func() {}, nil
}
