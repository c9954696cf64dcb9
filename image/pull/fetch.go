package pull

import (
	"context"
	"errors"
	"fmt"
	"io"

	"cale/image"
	"cale/image/store"
	"cale/registry/client"
)

const (
	// maxTries bounds the tries that bring no progress worth the name.
	maxTries = 5
	progress = 64 << 10
)

// fetch downloads a blob into w from where w stands, and commits it. also (may
// be nil) gets the bytes as they come, unless the blob must be fetched anew
// because what came was bad; again tells the caller so, who then finds the
// whole blob stored, and what went to also incomplete or wrong.
func (p *puller) fetch(ctx context.Context, d image.Descriptor, w *store.Writer, also io.Writer, report func(int64)) (again bool, err error) {
	old, mirrored := w.Offset() > 0, p.Client.Mirrored(p.Ref)
	for {
		err := p.download(ctx, d, w, also, report)
		wrong := errors.Is(err, client.ErrLong)
		if err == nil {
			if err = w.Commit(); err == nil {
				return again, nil
			}
			wrong = errors.Is(err, store.ErrMismatch)
			err = fmt.Errorf("blob %s: %w", d.Digest.Short(), err)
		}
		if !wrong || context.Cause(ctx) != nil {
			return again, err
		}
		// What an earlier try left behind may be to blame, or a mirror: once
		// more, whole, and then from the registry itself.
		switch {
		case old:
			old = false
		case mirrored:
			mirrored, ctx = false, client.WithoutMirrors(ctx)
		default:
			w.Restart()
			return again, err
		}
		again, also = true, nil
		if err := w.Restart(); err != nil {
			return again, err
		}
	}
}

// download brings the rest of a blob, going on after broken connections.
func (p *puller) download(ctx context.Context, d image.Descriptor, w *store.Writer, also io.Writer, report func(int64)) error {
	if w.Offset() == d.Size {
		return nil
	}
	buf := make([]byte, min(128<<10, d.Size+1))
	return p.persist(ctx, d, w.Offset, func() error { return p.rest(ctx, d, w, also, buf, report) })
}

// persist repeats a transfer that broke off, for as long as it gets anywhere;
// at tells how far it is.
func (p *puller) persist(ctx context.Context, d image.Descriptor, at func() int64, transfer func() error) error {
	for try := 1; ; try++ {
		before := at()
		err := transfer()
		if err == nil {
			return nil
		}
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		broken := errors.Is(err, io.ErrUnexpectedEOF)
		if broken {
			err = fmt.Errorf("blob %s: the registry ended the transfer after %d of %d bytes: %w", d.Digest.Short(), at(), d.Size, err)
		}
		if !broken && !errors.Is(err, client.ErrUnavailable) {
			return err
		}
		if at()-before >= progress {
			try = 1
		}
		if try == maxTries {
			return err
		}
		if err := sleep(ctx, try); err != nil {
			return err
		}
	}
}

// rest copies from one request.
func (p *puller) rest(ctx context.Context, d image.Descriptor, w *store.Writer, also io.Writer, buf []byte, report func(int64)) error {
	body, _, err := p.Client.Blob(ctx, p.Ref, d, w.Offset())
	if err != nil {
		return err
	}
	defer body.Close()
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return fmt.Errorf("blob %s: %w", d.Digest.Short(), err)
			}
			if also != nil {
				also.Write(buf[:n]) // fails only when nobody reads on
			}
			report(w.Offset())
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
