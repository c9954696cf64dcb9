package engine

import (
	"context"
	"io"
)

func todo(what string) error { return fail(ErrUnsupported, "%s is not built yet", what) }

// LoadImages reads a tar (docker save's or an OCI layout), telling each name or id loaded.
func (e *Engine) LoadImages(ctx context.Context, r io.Reader, loaded func(string)) error {
	return todo("load")
}

func (e *Engine) SaveImages(ctx context.Context, refs []string, w io.Writer) error {
	return todo("save")
}
