package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"

	"cale/image"
	"cale/image/store"
)

// upload answers what concerns uploads; id is empty for the collection.
func (g *registry) upload(w http.ResponseWriter, r *http.Request, repo, id string) error {
	if err := g.writable(); err != nil {
		return err
	}
	if id == "" {
		return methods(w, r, action{"POST", func() error { return g.startUpload(w, r, repo) }})
	}
	u, err := g.uploads.take(r.Context(), repo, id)
	if err != nil {
		return err
	}
	defer u.release()
	return methods(w, r,
		action{"GET", func() error { return u.answer(w, http.StatusNoContent) }},
		action{"PATCH", func() error { return g.patchUpload(w, r, u) }},
		action{"PUT", func() error { return g.finishUpload(w, r, u) }},
		action{"DELETE", func() error {
			if err := u.cancel(); err != nil {
				return err
			}
			w.WriteHeader(http.StatusNoContent)
			return nil
		}})
}

// startUpload opens a session, takes a whole blob, or takes a blob over from
// another repository.
func (g *registry) startUpload(w http.ResponseWriter, r *http.Request, repo string) error {
	q := r.URL.Query()
	if v := q.Get("mount"); v != "" {
		if d, err := image.ParseDigest(v); err == nil {
			done, err := g.mount(repo, d, q.Get("from"))
			if err != nil {
				return err
			}
			if done {
				return created(w, repo, d)
			}
		}
	}
	u, err := g.uploads.start(repo)
	if err != nil {
		return err
	}
	defer u.release()
	if q.Get("digest") != "" {
		return g.finishUpload(w, r, u)
	}
	return u.answer(w, http.StatusAccepted)
}

// mount makes a blob of one repository known in another. Without a source any
// repository will do (distribution-spec 1.1, "automatic content discovery").
func (g *registry) mount(repo string, d image.Digest, from string) (bool, error) {
	if ok, err := g.hasBlob(repo, d); ok || err != nil {
		return ok, err
	}
	if err := g.recent.add(repo, d); err != nil {
		return false, err
	}
	ok := false
	var err error
	if from == "" {
		_, err = g.store.Known(d)
		ok = err == nil
	} else if image.ValidRepository(from) {
		ok, err = g.hasBlob(from, d)
	}
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	if !ok {
		g.recent.remove(repo, d)
	}
	return ok, err
}

func created(w http.ResponseWriter, repo string, d image.Digest) error {
	w.Header().Set("Location", "/v2/"+repo+"/blobs/"+d.String())
	w.Header().Set("Docker-Content-Digest", d.String())
	w.WriteHeader(http.StatusCreated)
	return nil
}

var contentRange = regexp.MustCompile(`^(?:bytes )?([0-9]{1,18})-([0-9]{1,18})(?:/.*)?$`)

// chunk checks where the body of a request belongs.
func (g *registry) chunk(w http.ResponseWriter, r *http.Request, u *session) error {
	v := r.Header.Get("Content-Range")
	if v == "" {
		return nil
	}
	m := contentRange.FindStringSubmatch(v)
	if m == nil {
		return &problem{http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "invalid Content-Range"}
	}
	first, _ := strconv.ParseInt(m[1], 10, 64)
	last, _ := strconv.ParseInt(m[2], 10, 64)
	if first != u.up.Offset() {
		u.place(w)
		return &problem{http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", fmt.Sprintf("the upload stands at %d bytes", u.up.Offset())}
	}
	if n := r.ContentLength; n >= 0 && n != last-first+1 {
		return &problem{http.StatusBadRequest, "SIZE_INVALID", "Content-Range and Content-Length disagree"}
	}
	return nil
}

// receive appends the body. What arrived before a connection broke is kept.
func (g *registry) receive(w http.ResponseWriter, r *http.Request, u *session) error {
	room := g.opts.MaxBlob - u.up.Offset()
	if r.ContentLength > room {
		return &problem{http.StatusRequestEntityTooLarge, "SIZE_INVALID", fmt.Sprintf("blobs may have %d bytes", g.opts.MaxBlob)}
	}
	n, err := io.Copy(u.up, &fromClient{io.LimitReader(steady(w, r.Body), room+1)})
	var broken clientError
	switch {
	case errors.As(err, &broken):
		return &problem{http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "the data ended early"}
	case err != nil:
		return err
	case n > room:
		u.cancel()
		return &problem{http.StatusRequestEntityTooLarge, "SIZE_INVALID", fmt.Sprintf("blobs may have %d bytes", g.opts.MaxBlob)}
	}
	return nil
}

// fromClient marks errors as the client's.
type fromClient struct{ r io.Reader }

type clientError struct{ error }

func (f *fromClient) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		err = clientError{err}
	}
	return n, err
}

func (g *registry) patchUpload(w http.ResponseWriter, r *http.Request, u *session) error {
	if err := g.chunk(w, r, u); err != nil {
		return err
	}
	if err := g.receive(w, r, u); err != nil {
		return err
	}
	return u.answer(w, http.StatusAccepted)
}

func (g *registry) finishUpload(w http.ResponseWriter, r *http.Request, u *session) error {
	d, err := parseDigest(r.URL.Query().Get("digest"))
	if err != nil {
		return err
	}
	if err := g.chunk(w, r, u); err != nil {
		return err
	}
	if err := g.receive(w, r, u); err != nil {
		return err
	}
	if err := g.recent.add(u.repo, d); err != nil {
		return err
	}
	u.over = true // whatever comes of it
	_, err = u.up.Commit(d)
	if err == nil {
		return created(w, u.repo, d)
	}
	if _, stat := g.store.Stat(d); stat != nil {
		g.recent.remove(u.repo, d)
	}
	if errors.Is(err, store.ErrMismatch) {
		return &problem{http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content"}
	}
	u.up.Cancel()
	return err
}

// place writes where an upload is and stands. Nothing and one byte both read
// "0-0", as in Docker's registry.
func (u *session) place(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Location", "/v2/"+u.repo+"/blobs/uploads/"+u.id)
	h.Set("Range", fmt.Sprintf("0-%d", max(0, u.up.Offset()-1)))
	h.Set("Docker-Upload-UUID", u.id)
}

func (u *session) answer(w http.ResponseWriter, status int) error {
	u.place(w)
	if status == http.StatusAccepted {
		w.Header().Set("Content-Length", "0")
	}
	w.WriteHeader(status)
	return nil
}
