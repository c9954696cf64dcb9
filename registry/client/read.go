package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"cale/image"
)

// accept lists what a manifest may be. Docker's first schema is not among it.
var accept = strings.Join([]string{
	image.MediaTypeIndex, image.MediaTypeManifest,
	image.MediaTypeDockerIndex, image.MediaTypeDockerManifest,
}, ", ")

// maxPage bounds a page of tags, in bytes, and maxPages and maxTags their
// number.
const (
	maxPage  = 8 << 20
	maxPages = 1000
	maxTags  = 500_000
)

// Ping checks that a domain's registry is there and takes the credentials.
func (c *Client) Ping(ctx context.Context, domain string) error {
	list, err := c.endpoints(domain)
	if err != nil {
		return err
	}
	e := list[len(list)-1]
	for _, other := range list {
		if other.domain == domain {
			e = other
		}
	}
	res, err := e.do(ctx, call{method: http.MethodGet, url: e.url("")})
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return refusal(res)
	}
	drain(res.Body)
	return nil
}

// pullScope is what a token must allow to read a repository.
func pullScope(ref image.Reference) string { return "repository:" + ref.Path + ":pull" }

// target is ref's digest, or else its tag.
func target(ref image.Reference) string {
	if !ref.Digest.IsZero() {
		return ref.Digest.String()
	}
	return ref.Tag
}

// Resolve asks what ref names at its registry: media type, digest and size of
// a manifest or index. A reference with a digest keeps it.
func (c *Client) Resolve(ctx context.Context, ref image.Reference) (image.Descriptor, error) {
	var d image.Descriptor
	may := canResolve
	if !ref.Digest.IsZero() {
		may = canPull
	}
	err := c.reading(ctx, ref, may, func(e *endpoint, ref image.Reference) (err error) {
		d, err = e.head(ctx, ref)
		return err
	})
	if err != nil {
		return image.Descriptor{}, manifestError(ref, err)
	}
	return d, nil
}

func (e *endpoint) head(ctx context.Context, ref image.Reference) (image.Descriptor, error) {
	res, err := e.do(ctx, call{
		method: http.MethodHead, url: e.url(ref.Path + "/manifests/" + target(ref)),
		header: http.Header{"Accept": {accept}}, scope: pullScope(ref),
	})
	if err != nil {
		return image.Descriptor{}, err
	}
	if res.StatusCode == http.StatusOK {
		drain(res.Body)
		d := image.Descriptor{MediaType: mediaType(res.Header), Size: res.ContentLength}
		d.Digest, err = image.ParseDigest(res.Header.Get("Docker-Content-Digest"))
		known := image.IsIndex(d.MediaType) || image.IsManifest(d.MediaType)
		if err == nil && known && d.Size > 0 && (ref.Digest.IsZero() || ref.Digest == d.Digest) {
			return d, nil
		}
	} else {
		res.Body.Close()
	}
	// A refusal of HEAD says nothing of why, and an answer may lack the
	// digest: GET tells.
	raw, mt, err := e.manifest(ctx, ref, image.Descriptor{Digest: ref.Digest})
	if err != nil {
		return image.Descriptor{}, err
	}
	d := image.Descriptor{MediaType: mt, Digest: ref.Digest, Size: int64(len(raw))}
	if d.Digest.IsZero() {
		d.Digest = image.FromBytes(raw)
	}
	return d, nil
}

// Manifest reads the manifest or index desc of ref's repository. Its digest
// and size, as far as desc has them, are enforced, and the media type is the
// one that transport, descriptor and body agree on.
func (c *Client) Manifest(ctx context.Context, ref image.Reference, desc image.Descriptor) (raw []byte, mediaType string, err error) {
	may := canPull
	if desc.Digest.IsZero() {
		may = canResolve
	}
	err = c.reading(ctx, ref, may, func(e *endpoint, ref image.Reference) (err error) {
		raw, mediaType, err = e.manifest(ctx, ref, desc)
		return err
	})
	if err != nil {
		if !desc.Digest.IsZero() {
			ref = ref.WithDigest(desc.Digest)
		}
		return nil, "", manifestError(ref, err)
	}
	return raw, mediaType, nil
}

func (e *endpoint) manifest(ctx context.Context, ref image.Reference, desc image.Descriptor) ([]byte, string, error) {
	at := target(ref)
	if !desc.Digest.IsZero() {
		at = desc.Digest.String()
	}
	res, err := e.do(ctx, call{
		method: http.MethodGet, url: e.url(ref.Path + "/manifests/" + at),
		header: http.Header{"Accept": {accept}}, scope: pullScope(ref),
	})
	if err != nil {
		return nil, "", err
	}
	if res.StatusCode != http.StatusOK {
		return nil, "", refusal(res)
	}
	defer res.Body.Close()
	limit := int64(image.MaxManifestSize)
	if desc.Size > 0 && desc.Size < limit {
		limit = desc.Size
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, "", unreachable(e.base.Host, err)
	}
	switch {
	case desc.Size > 0 && int64(len(raw)) != desc.Size:
		return nil, "", fmt.Errorf("%w: %d bytes of manifest where %d are announced", ErrDigest, len(raw), desc.Size)
	case int64(len(raw)) > limit:
		return nil, "", fmt.Errorf("the manifest is larger than %d bytes", limit)
	}
	if !desc.Digest.IsZero() {
		h := desc.Digest.Hash()
		h.Write(raw)
		if got := image.FromHash(h); got != desc.Digest {
			return nil, "", fmt.Errorf("%w: expected %s, got %s", ErrDigest, desc.Digest, got)
		}
	}
	mt := mediaType(res.Header)
	switch mt {
	case image.MediaTypeDockerSchema1, image.MediaTypeDockerSchema1Signed:
		return nil, "", fmt.Errorf("%s is Docker's manifest schema 1, which is obsolete: push the image again with a newer tool", ref.Familiar())
	case "", "application/json", "text/plain", "application/octet-stream":
		if mt, err = image.DetectMediaType(raw); err != nil {
			return nil, "", err
		}
	}
	if desc.MediaType != "" && desc.MediaType != mt {
		return nil, "", fmt.Errorf("the registry serves %s as %s, its index says %s", at, oneLine(mt, 100), desc.MediaType)
	}
	return raw, mt, nil
}

func mediaType(h http.Header) string {
	mt, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(mt))
}

// manifestError words a failure to read a manifest as Docker does.
func manifestError(ref image.Reference, err error) error {
	switch {
	case errors.Is(err, ErrNotFound):
		return fmt.Errorf("manifest for %s not found: %w", ref.Familiar(), err)
	case errors.Is(err, ErrDenied):
		return fmt.Errorf("pull access denied for %s, repository does not exist or may require 'docker login': %w", ref.FamiliarName(), err)
	}
	return fmt.Errorf("%s: %w", ref.Familiar(), err)
}

// Blob opens a blob of ref's repository at offset. Where the registry can't
// start in the middle the beginning is read and thrown away, so got is always
// offset. The body ends with an error when it is shorter than desc says, or
// longer; its digest is the reader's to check.
func (c *Client) Blob(ctx context.Context, ref image.Reference, desc image.Descriptor, offset int64) (body io.ReadCloser, got int64, err error) {
	if offset < 0 || offset > desc.Size {
		return nil, 0, fmt.Errorf("blob %s: offset %d is outside its %d bytes", desc.Digest, offset, desc.Size)
	}
	err = c.reading(ctx, ref, canPull, func(e *endpoint, ref image.Reference) (err error) {
		body, err = e.blob(ctx, ref, desc, offset)
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("%s: blob %s: %w", ref.FamiliarName(), desc.Digest.Short(), err)
	}
	return body, offset, nil
}

func (e *endpoint) blob(ctx context.Context, ref image.Reference, desc image.Descriptor, offset int64) (io.ReadCloser, error) {
	c := call{method: http.MethodGet, url: e.url(ref.Path + "/blobs/" + desc.Digest.String()), header: http.Header{}, scope: pullScope(ref)}
	if offset > 0 {
		c.header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	res, err := e.do(ctx, c)
	if err != nil {
		return nil, err
	}
	if offset > 0 && (res.StatusCode == http.StatusRequestedRangeNotSatisfiable ||
		res.StatusCode == http.StatusPartialContent && !rangeFits(res.Header.Get("Content-Range"), offset, desc.Size-1, desc.Size)) {
		drain(res.Body)
		c.header.Del("Range")
		if res, err = e.do(ctx, c); err != nil {
			return nil, err
		}
	}
	start := int64(0)
	switch {
	case res.StatusCode == http.StatusOK:
	case res.StatusCode == http.StatusPartialContent && c.header.Get("Range") != "":
		start = offset
	default:
		return nil, refusal(res)
	}
	if n := res.ContentLength; n >= 0 && n != desc.Size-start {
		res.Body.Close()
		return nil, fmt.Errorf("%w: the registry has %d bytes, the manifest says %d", ErrDigest, n+start, desc.Size)
	}
	b := &sized{ReadCloser: res.Body, left: desc.Size - start, host: e.base.Host}
	if _, err := io.CopyN(io.Discard, b, offset-start); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// ErrLong says that a registry sent more than a blob's size.
var ErrLong = fmt.Errorf("%w: more bytes than the manifest says", ErrDigest)

// sized enforces a body's length.
type sized struct {
	io.ReadCloser
	left int64
	host string
}

func (s *sized) Read(p []byte) (int, error) {
	if int64(len(p)) > s.left+1 {
		p = p[:s.left+1]
	}
	n, err := s.ReadCloser.Read(p)
	if int64(n) > s.left {
		return int(s.left), ErrLong
	}
	s.left -= int64(n)
	switch {
	case err == io.EOF && s.left > 0:
		err = io.ErrUnexpectedEOF
	case err != nil && err != io.EOF:
		err = unreachable(s.host, err)
	}
	return n, err
}

// Tags lists the tags of ref's repository.
func (c *Client) Tags(ctx context.Context, ref image.Reference) (tags []string, err error) {
	err = c.reading(ctx, ref, canResolve, func(e *endpoint, ref image.Reference) (err error) {
		tags, err = e.allTags(ctx, ref)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("tags of %s: %w", ref.FamiliarName(), err)
	}
	return tags, nil
}

func (e *endpoint) allTags(ctx context.Context, ref image.Reference) ([]string, error) {
	at := e.url(ref.Path + "/tags/list")
	at.RawQuery = "n=1000"
	var tags []string
	for range maxPages {
		page, next, err := e.tags(ctx, ref, at)
		if err != nil {
			return nil, err
		}
		tags = append(tags, page...)
		switch {
		case next == nil:
			return tags, nil
		case len(tags) > maxTags:
			return nil, fmt.Errorf("the registry lists more than %d tags", maxTags)
		case len(page) == 0 || *next == *at:
			return nil, errors.New("the registry's pages lead nowhere")
		}
		at = next
	}
	return nil, fmt.Errorf("the registry lists more than %d pages", maxPages)
}

func (e *endpoint) tags(ctx context.Context, ref image.Reference, at *url.URL) (tags []string, next *url.URL, err error) {
	res, err := e.do(ctx, call{method: http.MethodGet, url: at, scope: pullScope(ref)})
	if err != nil {
		return nil, nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, nil, refusal(res)
	}
	defer res.Body.Close()
	var body struct{ Tags []string }
	if err := json.NewDecoder(io.LimitReader(res.Body, maxPage)).Decode(&body); err != nil {
		return nil, nil, fmt.Errorf("the answer is no list of tags: %w", err)
	}
	for _, t := range body.Tags {
		if !image.ValidTag(t) {
			return nil, nil, fmt.Errorf("the registry lists an invalid tag %q", oneLine(t, 128))
		}
	}
	// Link: </v2/…?last=…>; rel="next" (RFC 8288), on this registry only.
	link, rel, _ := strings.Cut(res.Header.Get("Link"), ">")
	link, ok := strings.CutPrefix(strings.TrimSpace(link), "<")
	if !ok || !strings.Contains(rel, "next") {
		return body.Tags, nil, nil
	}
	next, err = at.Parse(link)
	if err != nil || next.Host != at.Host || next.Scheme != at.Scheme {
		return nil, nil, errors.New("the registry's next page is elsewhere")
	}
	return body.Tags, next, nil
}
