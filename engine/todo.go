package engine

import (
	"context"
	"io"
)

func todo(what string) error { return fail(ErrUnsupported, "%s is not built yet", what) }

func (e *Engine) Top(ctx context.Context, ref, psArgs string) (titles []string, rows [][]string, err error) {
	return nil, nil, todo("top")
}

func (e *Engine) Stats(ctx context.Context, ref string) (Stats, error) { return Stats{}, todo("stats") }

func (e *Engine) Changes(ctx context.Context, ref string) ([]Change, error) {
	return nil, todo("changes")
}

func (e *Engine) Export(ctx context.Context, ref string, w io.Writer) error { return todo("export") }

// CopyFrom writes a tar of path (the last element is the archive's top) and returns its stat before the first byte.
func (e *Engine) CopyFrom(ctx context.Context, ref, path string) (PathStat, io.ReadCloser, error) {
	return PathStat{}, nil, todo("copy")
}

// CopyTo unpacks a plain tar into the directory path.
func (e *Engine) CopyTo(ctx context.Context, ref, path string, r io.Reader, o CopyOptions) error {
	return todo("copy")
}

func (e *Engine) StatPath(ctx context.Context, ref, path string) (PathStat, error) {
	return PathStat{}, todo("stat")
}

// LoadImages reads a tar (docker save's or an OCI layout), telling each name or id loaded.
func (e *Engine) LoadImages(ctx context.Context, r io.Reader, loaded func(string)) error {
	return todo("load")
}

func (e *Engine) SaveImages(ctx context.Context, refs []string, w io.Writer) error {
	return todo("save")
}
