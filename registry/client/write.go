package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"cale/image"
)

func pushScope(ref image.Reference) string { return "repository:" + ref.Path + ":pull,push" }

// HasBlob tells whether ref's repository holds the blob.
func (c *Client) HasBlob(ctx context.Context, ref image.Reference, d image.Digest) (bool, error) {
	e, err := c.writer(ref.Domain)
	if err != nil {
		return false, err
	}
	res, err := e.do(ctx, call{method: http.MethodHead, url: e.url(ref.Path + "/blobs/" + d.String()), scope: pushScope(ref)})
	if err != nil {
		return false, pushError(ref, err)
	}
	switch res.StatusCode {
	case http.StatusOK:
		drain(res.Body)
		return true, nil
	case http.StatusNotFound:
		drain(res.Body)
		return false, nil
	}
	return false, pushError(ref, refusal(res))
}

// HasManifest tells whether ref's repository holds the manifest.
func (c *Client) HasManifest(ctx context.Context, ref image.Reference, d image.Digest) bool {
	e, err := c.writer(ref.Domain)
	if err != nil {
		return false
	}
	res, err := e.do(ctx, call{
		method: http.MethodHead, url: e.url(ref.Path + "/manifests/" + d.String()),
		header: http.Header{"Accept": {accept}}, scope: pushScope(ref),
	})
	if err != nil {
		return false
	}
	drain(res.Body)
	return res.StatusCode == http.StatusOK
}

// MountBlob asks the registry to take a blob over from another repository of
// its own, and tells whether it did.
func (c *Client) MountBlob(ctx context.Context, ref image.Reference, d image.Digest, from string) (bool, error) {
	e, err := c.writer(ref.Domain)
	if err != nil {
		return false, err
	}
	at := e.url(ref.Path + "/blobs/uploads/")
	at.RawQuery = url.Values{"mount": {d.String()}, "from": {from}}.Encode()
	res, err := e.do(ctx, call{method: http.MethodPost, url: at, scope: pushScope(ref) + " repository:" + from + ":pull"})
	if err != nil {
		return false, pushError(ref, err)
	}
	drain(res.Body)
	if res.StatusCode == http.StatusAccepted {
		// An upload was opened instead; it is not the one we'd use.
		if to, err := uploadAt(res, at); err == nil {
			if res, err := e.do(ctx, call{method: http.MethodDelete, url: to, scope: pushScope(ref), once: true}); err == nil {
				drain(res.Body)
			}
		}
	}
	return res.StatusCode == http.StatusCreated, nil
}

// PushBlob uploads a blob of desc.Size bytes to ref's repository. A broken
// upload goes on where the registry says it stands. progress (may be nil) is
// told how many bytes are sent so far.
func (c *Client) PushBlob(ctx context.Context, ref image.Reference, desc image.Descriptor, r io.ReaderAt, progress func(int64)) error {
	e, err := c.writer(ref.Domain)
	if err != nil {
		return err
	}
	u := upload{e: e, ref: ref, desc: desc, r: r, progress: progress}
	for try := 1; try <= 3; try++ {
		if err = u.run(ctx); err == nil || context.Cause(ctx) != nil || !errors.Is(err, errLost) {
			break
		}
	}
	if err != nil {
		return pushError(ref, err)
	}
	return nil
}

// errLost says that an upload session is gone, and a new one may do.
var errLost = errors.New("upload lost")

// upload is one blob on its way.
type upload struct {
	e        *endpoint
	ref      image.Reference
	desc     image.Descriptor
	r        io.ReaderAt
	progress func(int64)
	at       *url.URL // the session
}

func (u *upload) run(ctx context.Context) error {
	open := u.e.url(u.ref.Path + "/blobs/uploads/")
	res, err := u.e.do(ctx, call{method: http.MethodPost, url: open, scope: pushScope(u.ref)})
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusAccepted {
		return refusal(res)
	}
	drain(res.Body)
	if u.at, err = uploadAt(res, open); err != nil {
		return err
	}
	// All in the request that ends the upload: registries then need not read back what they wrote to know its digest.
	err = u.finish(ctx, 0)
	for try := 1; err != nil; try++ {
		if context.Cause(ctx) != nil || try == maxTries || (!errors.Is(err, ErrUnavailable) && !errors.Is(err, errOffset)) {
			return err
		}
		if err := sleep(ctx, u.e.c.backoff(try)); err != nil {
			return err
		}
		var offset int64
		if offset, err = u.standing(ctx); err != nil {
			return err
		}
		if err = u.patch(ctx, offset); err == nil {
			return u.finish(ctx, u.desc.Size)
		}
	}
	return nil
}

// errOffset is the answer to a chunk that doesn't begin where the last ended.
var errOffset = fmt.Errorf("%w: the registry expects other bytes", errLost)

// patch sends all from offset on.
func (u *upload) patch(ctx context.Context, offset int64) error {
	c := u.bytes(http.MethodPatch, u.at, offset)
	if offset > 0 {
		c.header.Set("Content-Range", fmt.Sprintf("%d-%d", offset, u.desc.Size-1))
	}
	res, err := u.e.do(ctx, c)
	if err != nil {
		return err
	}
	switch res.StatusCode {
	case http.StatusAccepted, http.StatusNoContent, http.StatusCreated:
		drain(res.Body)
		return u.moved(res)
	case http.StatusRequestedRangeNotSatisfiable:
		drain(res.Body)
		return errOffset
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", errLost, refusal(res))
	}
	return refusal(res)
}

// bytes is a call that sends all from offset on.
func (u *upload) bytes(method string, to *url.URL, offset int64) call {
	n := u.desc.Size - offset
	c := call{
		method: method, url: to, scope: pushScope(u.ref), length: n, once: true,
		header: http.Header{"Content-Type": {"application/octet-stream"}},
	}
	if n > 0 {
		c.body = func() io.Reader {
			sent := offset
			return &paced{Reader: io.NewSectionReader(u.r, offset, n), count: func(n int) {
				sent += int64(n)
				if u.progress != nil {
					u.progress(sent)
				}
			}}
		}
	}
	if n > 1<<20 {
		// A registry that wants another token says so before the bytes.
		c.header.Set("Expect", "100-continue")
	}
	return c
}

// standing asks how much of the upload the registry has.
func (u *upload) standing(ctx context.Context) (int64, error) {
	res, err := u.e.do(ctx, call{method: http.MethodGet, url: u.at, scope: pushScope(u.ref)})
	if err != nil {
		return 0, err
	}
	if res.StatusCode != http.StatusNoContent && res.StatusCode != http.StatusOK && res.StatusCode != http.StatusAccepted {
		return 0, fmt.Errorf("%w: %w", errLost, refusal(res))
	}
	drain(res.Body)
	if err := u.moved(res); err != nil {
		return 0, err
	}
	// "Range: 0-LAST"; 0-0 stands for nothing as well as for one byte, and
	// sending one byte too many is answered with 416, so start anew then.
	_, last, ok := strings.Cut(strings.TrimPrefix(res.Header.Get("Range"), "bytes="), "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if !ok || err != nil || n <= 0 {
		return 0, nil
	}
	if n >= u.desc.Size {
		return 0, fmt.Errorf("%w: the registry has more bytes than were sent", errLost)
	}
	return n + 1, nil
}

// finish sends all from offset on, and says that it is all.
func (u *upload) finish(ctx context.Context, offset int64) error {
	at := *u.at
	q := at.Query()
	q.Set("digest", u.desc.Digest.String())
	at.RawQuery = q.Encode()
	res, err := u.e.do(ctx, u.bytes(http.MethodPut, &at, offset))
	if err != nil {
		// The answer may have been lost after the blob was stored.
		if errors.Is(err, ErrUnavailable) {
			if has, _ := u.e.c.HasBlob(ctx, u.ref, u.desc.Digest); has {
				return nil
			}
			if offset == u.desc.Size {
				return fmt.Errorf("%w: %w", errLost, err)
			}
		}
		return err
	}
	switch res.StatusCode {
	case http.StatusCreated, http.StatusNoContent, http.StatusOK:
		drain(res.Body)
		return nil
	case http.StatusNotFound:
		return fmt.Errorf("%w: %w", errLost, refusal(res))
	}
	return refusal(res)
}

// moved follows the session to where the registry says it is now.
func (u *upload) moved(res *http.Response) error {
	if res.Header.Get("Location") == "" {
		return nil
	}
	to, err := uploadAt(res, u.at)
	if err == nil {
		u.at = to
	}
	return err
}

// uploadAt is where an upload goes on. It may be another host, which gets the
// bytes but no credentials; it may not be one without TLS if the registry has.
func uploadAt(res *http.Response, base *url.URL) (*url.URL, error) {
	to, err := base.Parse(res.Header.Get("Location"))
	if err != nil || res.Header.Get("Location") == "" || to.Host == "" {
		return nil, fmt.Errorf("registry %s gave no place to upload to", base.Host)
	}
	if to.Scheme != "https" && to.Scheme != base.Scheme {
		if to.Host != base.Host {
			return nil, fmt.Errorf("registry %s wants the upload at %s without TLS", base.Host, to.Host)
		}
		// Registries behind a TLS proxy often think that they speak HTTP.
		to.Scheme = base.Scheme
	}
	to.User = nil
	return to, nil
}

// PushManifest uploads a manifest or index under ref's tag, or by its digest
// when ref has no tag.
func (c *Client) PushManifest(ctx context.Context, ref image.Reference, mediaType string, raw []byte) error {
	e, err := c.writer(ref.Domain)
	if err != nil {
		return err
	}
	at := ref.Tag
	if at == "" {
		at = image.FromBytes(raw).String()
		if !ref.Digest.IsZero() {
			at = ref.Digest.String()
		}
	}
	res, err := e.do(ctx, call{
		method: http.MethodPut, url: e.url(ref.Path + "/manifests/" + at), scope: pushScope(ref),
		header: http.Header{"Content-Type": {mediaType}},
		body:   func() io.Reader { return bytes.NewReader(raw) }, length: int64(len(raw)),
	})
	if err != nil {
		return pushError(ref, err)
	}
	if res.StatusCode != http.StatusCreated && res.StatusCode != http.StatusOK && res.StatusCode != http.StatusAccepted {
		return pushError(ref, refusal(res))
	}
	drain(res.Body)
	return nil
}

func pushError(ref image.Reference, err error) error {
	if errors.Is(err, ErrDenied) {
		return fmt.Errorf("push access denied for %s: %w", ref.FamiliarName(), err)
	}
	return fmt.Errorf("push %s: %w", ref.FamiliarName(), err)
}
