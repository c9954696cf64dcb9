package build

import (
	"context"
	"fmt"

	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/source"
	"github.com/moby/buildkit/source/containerimage"

	"cale/build/keep"
	"cale/image"
)

// judged is the source of images, which asks the engine's policy whether a
// build may use them before anything of them is unpacked. Images that are in
// the store under their name were judged when they came, or made here.
type judged struct {
	source.Source
	keeper keep.Keeper
}

// Resolve implements source.Source.
func (j judged) Resolve(ctx context.Context, id source.Identifier, sm *session.Manager, v solver.Vertex) (source.SourceInstance, error) {
	s, err := j.Source.Resolve(ctx, id, sm, v)
	if img, ok := id.(*containerimage.ImageIdentifier); ok && err == nil {
		return &judgedImage{SourceInstance: s, keeper: j.keeper, name: img.Reference.String()}, nil
	}
	return s, err
}

type judgedImage struct {
	source.SourceInstance
	keeper keep.Keeper
	name   string
	passed string // the digest that was judged
}

// CacheKey implements source.SourceInstance.
func (i *judgedImage) CacheKey(ctx context.Context, job solver.JobContext, index int) (key, pin string, opts solver.CacheOpts, done bool, err error) {
	key, pin, opts, done, err = i.SourceInstance.CacheKey(ctx, job, index)
	if err != nil || pin == i.passed {
		return key, pin, opts, done, err
	}
	if err := i.judge(ctx, pin); err != nil {
		return "", "", nil, false, err
	}
	i.passed = pin
	return key, pin, opts, done, nil
}

func (i *judgedImage) judge(ctx context.Context, pin string) error {
	d, err := image.ParseDigest(pin)
	if err != nil {
		return fmt.Errorf("image %s: %w", i.name, err)
	}
	return i.keeper.Judge(ctx, i.name, d)
}
