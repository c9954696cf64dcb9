// Package client speaks the OCI distribution protocol (distribution-spec 1.1)
// to a registry: it resolves names, reads and writes manifests and blobs.
package client

import (
	"context"
	"errors"
	"io"
	"net/http"

	"cale/image"
)

// Options says how to reach registries. The zero value is usable.
type Options struct {
	// HTTP carries the requests; nil means a client of the package's own,
	// which takes proxies from the environment.
	HTTP *http.Client
	// Credentials gives user and password for a registry host ("docker.io",
	// "127.0.0.1:5000"); two empty strings mean anonymous. A user of
	// "<token>" means that the password is an identity token.
	Credentials func(host string) (user, pass string)
	// PlainHTTP tells whether host is spoken to without TLS; nil means
	// loopback hosts only.
	PlainHTTP func(host string) bool
	// UserAgent is sent with each request.
	UserAgent string
}

// Client reads and writes registries. It is safe for concurrent use and keeps
// the tokens it was given for as long as it lives.
type Client struct{ opts Options }

var errTodo = errors.New("registry client: not built yet")

// New returns a client.
func New(o Options) *Client { return &Client{opts: o} }

// Resolve asks what ref names at its registry.
func (c *Client) Resolve(ctx context.Context, ref image.Reference) (image.Descriptor, error) {
	return image.Descriptor{}, errTodo
}

// Manifest reads the manifest or index desc of ref's repository, verified.
func (c *Client) Manifest(ctx context.Context, ref image.Reference, desc image.Descriptor) (raw []byte, mediaType string, err error) {
	return nil, "", errTodo
}

// Blob opens a blob of ref's repository at offset. The registry may not be
// able to start there: got is where the stream really starts (offset or 0).
func (c *Client) Blob(ctx context.Context, ref image.Reference, desc image.Descriptor, offset int64) (body io.ReadCloser, got int64, err error) {
	return nil, 0, errTodo
}

// HasBlob tells whether ref's repository holds the blob.
func (c *Client) HasBlob(ctx context.Context, ref image.Reference, d image.Digest) (bool, error) {
	return false, errTodo
}

// PushBlob uploads a blob to ref's repository; progress (may be nil) is told
// the bytes sent so far.
func (c *Client) PushBlob(ctx context.Context, ref image.Reference, desc image.Descriptor, r io.ReaderAt, progress func(int64)) error {
	return errTodo
}

// PushManifest uploads a manifest or index under ref's tag, or by its digest
// when ref has no tag.
func (c *Client) PushManifest(ctx context.Context, ref image.Reference, mediaType string, raw []byte) error {
	return errTodo
}

// Tags lists the tags of ref's repository.
func (c *Client) Tags(ctx context.Context, ref image.Reference) ([]string, error) {
	return nil, errTodo
}
