package server

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"time"

	"cale/image"
	"cale/image/store"
)

// stall is how long a client may send or take nothing.
const stall = time.Minute

func (g *registry) getBlob(w http.ResponseWriter, r *http.Request, repo string, d image.Digest) error {
	ok, err := g.hasBlob(repo, d)
	if err != nil {
		return err
	}
	if g.opts.Upstream != nil {
		if _, err := g.store.Stat(d); !ok || errors.Is(err, store.ErrNotFound) {
			return g.mirrorBlob(w, r, repo, d)
		}
	}
	if !ok {
		return blobUnknown()
	}
	return g.sendBlob(w, r, d)
}

// sendBlob sends a blob that is here, or the range of it that is asked for.
func (g *registry) sendBlob(w http.ResponseWriter, r *http.Request, d image.Digest) error {
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", d.String())
	h.Set("ETag", strconv.Quote(d.String()))
	if size, err := g.store.Known(d); err == nil && r.Method == http.MethodHead {
		if has(r, d) {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
		h.Set("Accept-Ranges", "bytes")
		h.Set("Content-Length", strconv.FormatInt(size, 10))
		return nil
	}
	pin, done := g.store.Pin("pull from the registry"), func() {}
	defer func() { pin.Release(); done() }()
	pin.Add(d)
	if g.opts.Restore != nil {
		pass, sent, err := g.opts.Restore(r.Context(), d, g.owned)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return upstreamError(err, blobUnknown)
		}
		if err == nil {
			done = sent
		}
		if pass != nil {
			size, err := g.store.Known(d)
			if err != nil {
				pass.Close()
				return err
			}
			passBlob(w, pass, size)
			return nil
		}
	}
	b, err := g.store.Open(d)
	if errors.Is(err, store.ErrNotFound) {
		return blobUnknown()
	}
	if err != nil {
		return err
	}
	defer b.Close()
	http.ServeContent(steadyWriter{w, http.NewResponseController(w)}, r, "", time.Time{}, b)
	return nil
}

// passBlob sends a blob as it comes from elsewhere, without keeping it.
func passBlob(w http.ResponseWriter, body io.ReadCloser, size int64) {
	defer body.Close()
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	if n, err := io.Copy(steadyWriter{w, http.NewResponseController(w)}, body); err != nil || n != size {
		panic(http.ErrAbortHandler) // the answer has begun: all that can be told is that it is not whole
	}
}

// has tells whether a client says that it has the content of this digest
// (RFC 9110, 13.1.2).
func has(r *http.Request, d image.Digest) bool {
	for _, list := range r.Header.Values("If-None-Match") {
		for tag := range strings.SplitSeq(list, ",") {
			tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
			if tag == "*" || tag == strconv.Quote(d.String()) {
				return true
			}
		}
	}
	return false
}

func (g *registry) deleteBlob(w http.ResponseWriter, repo string, d image.Digest) error {
	if err := g.writable(); err != nil {
		return err
	}
	used, err := g.refersTo(repo, d)
	if err != nil {
		return err
	}
	if used {
		return &problem{http.StatusMethodNotAllowed, "UNSUPPORTED", "the blob belongs to an image: delete that first"}
	}
	if !g.recent.remove(repo, d) {
		return blobUnknown()
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// steady bounds how long a body may stand still.
func steady(w http.ResponseWriter, body io.Reader) io.Reader {
	return &steadyReader{body, http.NewResponseController(w)}
}

type steadyReader struct {
	r  io.Reader
	rc *http.ResponseController
}

func (s *steadyReader) Read(p []byte) (int, error) {
	s.rc.SetReadDeadline(time.Now().Add(stall)) // not every server can
	return s.r.Read(p)
}

// steadyWriter bounds how long a reader may take nothing.
type steadyWriter struct {
	http.ResponseWriter
	rc *http.ResponseController
}

func (s steadyWriter) Write(p []byte) (int, error) {
	s.rc.SetWriteDeadline(time.Now().Add(stall))
	return s.ResponseWriter.Write(p)
}

func mediaType(header string) string {
	if header == "" {
		return ""
	}
	mt, _, err := mime.ParseMediaType(header)
	if err != nil {
		return header
	}
	return mt
}

func sortedRepos(list []entry) []string {
	seen := map[string]bool{}
	var repos []string
	for _, e := range list {
		if !seen[e.repo] {
			seen[e.repo] = true
			repos = append(repos, e.repo)
		}
	}
	sort.Strings(repos)
	return repos
}
