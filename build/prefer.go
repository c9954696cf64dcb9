package build

import (
	"context"
	"maps"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/pb"
)

// preferLocal is a front end that takes base images which are in the store as
// they are, unless the client says how to resolve them: as docker build does.
type preferLocal struct{ frontend.Frontend }

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
