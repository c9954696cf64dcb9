package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"cale/image"
	"cale/image/store"
	"cale/registry/client"
)

// Restore makes sure that a blob is in the store: one that is not kept beside
// its unpacked layer is fetched again from where it is known to be. The caller
// has it pinned. A blob that the store knows nothing of is store.ErrNotFound.
func Restore(ctx context.Context, s *store.Store, c *client.Client, d image.Digest) error {
	if _, err := s.Stat(d); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	o, err := s.Origin(d)
	if err != nil {
		return err
	}
	w, err := s.Writer(ctx, o.Blob)
	if err != nil {
		return present(err)
	}
	defer w.Close()
	return refetch(ctx, s, c, o, w)
}

// Lend is Restore for a registry that serves the same store, of which own tells
// by what domains it is called: it does not wait for whoever is fetching the
// blob, as that one may be asking the registry for it. Then pass is the blob, as
// it comes from where it is known to be, for the caller to close.
func Lend(ctx context.Context, s *store.Store, c *client.Client, d image.Digest, own func(domain string) bool) (pass io.ReadCloser, err error) {
	if _, err := s.Stat(d); !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	o, err := s.Origin(d)
	if err != nil {
		return nil, err
	}
	var others []image.Reference
	for _, ref := range o.From {
		if !own(ref.Domain) {
			others = append(others, ref)
		}
	}
	o.From = others
	w, err := s.TryWriter(o.Blob)
	if err == nil {
		defer w.Close()
		return nil, refetch(ctx, s, c, o, w)
	}
	if !errors.Is(err, store.ErrBusy) {
		return nil, present(err)
	}
	err = ask(o, func(from image.Reference) (err error) {
		pass, _, err = c.Blob(ctx, from, o.Blob, 0)
		return err
	})
	return pass, err
}

// present takes it for no error that a blob is there.
func present(err error) error {
	if errors.Is(err, store.ErrExists) {
		return nil
	}
	return err
}

// refetch fetches a blob from the first repository that has it.
func refetch(ctx context.Context, s *store.Store, c *client.Client, o store.Origin, w *store.Writer) error {
	return ask(o, func(from image.Reference) error {
		p := &puller{Options: Options{Store: s, Client: c, Ref: from}}
		_, err := p.fetch(ctx, o.Blob, w, nil, func(int64) {})
		return err
	})
}

// ask tries one repository after the other.
func ask(o store.Origin, fetch func(from image.Reference) error) error {
	var names []string
	var errs []error
	for _, from := range o.From {
		err := fetch(from)
		if err == nil {
			return nil
		}
		names, errs = append(names, from.FamiliarName()), append(errs, err)
	}
	err := errors.Join(errs...)
	if len(errs) == 1 {
		err = errs[0]
	}
	if len(errs) == 0 {
		return fmt.Errorf("layer %s is kept unpacked only, and known to be here alone: %w", o.Blob.Digest.Short(), store.ErrNotFound)
	}
	hint := ""
	if errors.Is(err, client.ErrDenied) {
		hint = " (the engine's own login counts here: cale login as root)"
	}
	return fmt.Errorf("layer %s is kept unpacked only, and can't be fetched again from %s%s: %w", o.Blob.Digest.Short(), strings.Join(names, " or "), hint, err)
}
