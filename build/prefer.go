package build

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/worker"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/metadata"
)

// preferLocal is a front end that takes base images which are in the store as
// they are, unless the client says how to resolve them: as docker build does.
type preferLocal struct{ frontend.Frontend }

// KeepCacheMounts is the call's metadata of a build whose steps keep their cache
// mounts although they are run anew.
const KeepCacheMounts = "cale-keep-cache-mounts"

// PruneCacheMounts implements worker.Worker: it is called for steps that are to
// be run anew.
func (w preferred) PruneCacheMounts(ctx context.Context, ids map[string]bool) error {
	if len(metadata.ValueFromIncomingContext(ctx, KeepCacheMounts)) > 0 {
		return nil
	}
	return w.Worker.PruneCacheMounts(ctx, ids)
}

// Solve implements frontend.Frontend.
func (p preferLocal) Solve(ctx context.Context, b frontend.FrontendLLBBridge, exec executor.Executor, opt map[string]string, inputs map[string]*pb.Definition, sid string, sm *session.Manager) (*frontend.Result, error) {
	if opt["image-resolve-mode"] == "" {
		opt = maps.Clone(opt)
		if opt == nil {
			opt = map[string]string{}
		}
		opt["image-resolve-mode"] = "local"
	}
	return p.Frontend.Solve(ctx, b, exec, opt, inputs, sid, sm)
}

// preferred is a worker that takes a local image only where it is of the
// platform that is built for; else the registry is asked as well.
type preferred struct {
	worker.Worker
	names images.Store
	blobs content.Provider // all of the image store, held or not
}

// ResolveSourceMetadata implements worker.Worker. Where the names can't be read
// there is no going on: BuildKit would ask the registry for an image that is
// here, and take what somebody else has by its name there.
func (w preferred) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt, sm *session.Manager, job solver.JobContext) (*sourceresolver.MetaResponse, error) {
	if o := opt.ImageOpt; o != nil && o.ResolveMode == pb.AttrImageResolveModePreferLocal {
		i, err := w.names.Get(ctx, strings.TrimPrefix(op.Identifier, "docker-image://"))
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, fmt.Errorf("look for a local image: %w", err)
		}
		if err == nil && o.Platform != nil && w.isOther(ctx, i, *o.Platform) {
			other := *o
			other.ResolveMode = pb.AttrImageResolveModeDefault
			opt.ImageOpt = &other
		}
	}
	return w.Worker.ResolveSourceMetadata(ctx, op, opt, sm, job)
}

// isOther tells whether a local image is of other platforms only.
func (w preferred) isOther(ctx context.Context, i images.Image, p ocispec.Platform) bool {
	all, err := images.Platforms(ctx, w.blobs, i.Target)
	if err != nil || len(all) == 0 {
		return false
	}
	match := platforms.Only(p)
	return !slices.ContainsFunc(all, match.Match)
}
