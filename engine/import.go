package engine

import (
	"bufio"
	"compress/bzip2"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"cale/image"
	"cale/layer"
)

// ImportOptions say what to make of a tar of files.
type ImportOptions struct {
	Name     string // repository[:tag]; "" leaves the image untagged
	Message  string
	Platform string   // "" is the host's
	Changes  []string // Dockerfile instructions
	Began    func()   // called when a web server answers; may be nil
}

// Import makes an image of one layer out of a tar of files, which may be compressed with gzip, zstd or bzip2. It
// returns the image's id.
func (e *Engine) Import(ctx context.Context, r io.Reader, o ImportOptions) (id string, err error) {
	defer e.begin()()
	name, err := e.newName(o.Name)
	if err != nil {
		return "", err
	}
	p := image.Host()
	if o.Platform != "" {
		if p, err = image.ParsePlatform(o.Platform); err != nil {
			return "", invalid("%v", err)
		}
	}
	now := time.Now().UTC()
	cfg := &image.Config{Platform: p, Created: &now, History: []image.History{{Created: &now, Comment: o.Message}}}
	if err := change(&cfg.Run, o.Changes); err != nil {
		return "", err
	}
	plain, err := decompress(r)
	if err != nil {
		return "", invalid("import: %v", err)
	}
	defer plain.Close()
	pin := e.store.Pin("import")
	defer pin.Release()
	desc, diffID, err := e.store.PutLayer(ctx, pin, func(ctx context.Context, w io.Writer) error {
		_, err := io.Copy(w, layer.Bound(&cancellable{ctx, plain}, e.store.Layers.MaxBytes()))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("import: %w", err)
	}
	cfg.DiffIDs = []image.Digest{diffID}
	img, err := e.putImage(pin, cfg, []image.Descriptor{desc})
	if err != nil {
		return "", fmt.Errorf("import: %w", err)
	}
	// Unpacking tells whether it is a tar at all.
	if err := e.unpack(ctx, img); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", invalid("import: %v", err)
	}
	if err := e.nameImage(name, img.Target); err != nil {
		return "", err
	}
	e.emitOther("image", "import", img.ID.String(), "name", o.Name)
	return img.ID.String(), nil
}

// decompress also reads bzip2, which no layer of a registry may be.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReader(r)
	if head, _ := br.Peek(3); string(head) == "BZh" {
		return io.NopCloser(bzip2.NewReader(br)), nil
	}
	return layer.Decompress(br)
}

// cancellable is a reader that ends with its context.
type cancellable struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancellable) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// ImportURL is Import of what a web server has.
func (e *Engine) ImportURL(ctx context.Context, from string, o ImportOptions) (id string, err error) {
	if !strings.Contains(from, "://") {
		from = "http://" + from
	}
	u, err := url.Parse(from)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", invalid("import: %q is not the address of a file: it begins with http:// or https://", from)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", invalid("import: %v", err)
	}
	req.Header.Set("User-Agent", "cale")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", &Error{Class: ErrUnavailable, Text: fmt.Sprintf("import: %v", err), Cause: err}
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return "", notFound("import: %s answered %s", u.Redacted(), res.Status)
	}
	if res.StatusCode != http.StatusOK {
		return "", fail(ErrUnavailable, "import: %s answered %s", u.Redacted(), res.Status)
	}
	if o.Began != nil {
		o.Began()
	}
	return e.Import(ctx, res.Body, o)
}
