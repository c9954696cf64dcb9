package build

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/worker"
)

type unreadable struct {
	images.Store
	err error
}

func (u unreadable) Get(context.Context, string) (images.Image, error) {
	return images.Image{}, u.err
}

type asked struct {
	worker.Worker
	n int
}

func (a *asked) ResolveSourceMetadata(context.Context, *pb.SourceOp, sourceresolver.Opt, *session.Manager, solver.JobContext) (*sourceresolver.MetaResponse, error) {
	a.n++
	return &sourceresolver.MetaResponse{}, nil
}

// TestNamesUnreadable: no registry is asked for what may well be here.
func TestNamesUnreadable(t *testing.T) {
	broken := errors.New("the engine is gone")
	for _, c := range []struct {
		names error
		asked int
	}{{broken, 0}, {fmt.Errorf("image base: %w", errdefs.ErrNotFound), 1}} {
		a := &asked{}
		_, err := preferred{Worker: a, names: unreadable{err: c.names}}.ResolveSourceMetadata(t.Context(),
			&pb.SourceOp{Identifier: "docker-image://docker.io/library/base:latest"},
			sourceresolver.Opt{ImageOpt: &sourceresolver.ResolveImageOpt{ResolveMode: pb.AttrImageResolveModePreferLocal}}, nil, nil)
		if a.n != c.asked || (err == nil) != (c.asked > 0) || err != nil && !errors.Is(err, broken) {
			t.Errorf("%v: the registry is asked %d times, %v", c.names, a.n, err)
		}
	}
}
