package build

import (
	"context"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/grpc"

	"cale/audit"
	"cale/audit/caller"
)

// audited records builds, with the powers over the host that they were granted.
func audited(record func(audit.Entry)) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		r, ok := req.(*controlapi.SolveRequest)
		if !ok {
			return next(ctx, req)
		}
		e := audit.Entry{API: "build", Action: "build", Request: info.FullMethod, Object: objectOf(r), Powers: r.Entitlements, Peer: caller.Of(ctx)}
		out, err := next(ctx, req)
		e.End(err)
		record(e)
		return out, err
	}
}

// objectOf is what a build makes: its images' names or, without, its own.
func objectOf(r *controlapi.SolveRequest) string {
	var names []string
	for _, x := range r.Exporters {
		if n := x.Attrs["name"]; n != "" {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return r.Ref
	}
	return strings.Join(names, ",")
}
