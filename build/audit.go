package build

import (
	"context"
	"net"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"

	"cale/audit"
)

// peers are transport credentials that note who is at the other end.
type peers struct {
	credentials.TransportCredentials
}

func newPeers() peers { return peers{insecure.NewCredentials()} }

// Clone implements credentials.TransportCredentials.
func (p peers) Clone() credentials.TransportCredentials {
	return peers{p.TransportCredentials.Clone()}
}

// ServerHandshake implements credentials.TransportCredentials.
func (p peers) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, peerInfo{audit.PeerOf(c)}, nil
}

type peerInfo struct{ peer *audit.Peer }

// AuthType implements credentials.AuthInfo.
func (peerInfo) AuthType() string { return "peer" }

// audited records builds that were granted powers over the host.
func audited(record func(audit.Entry)) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		r, ok := req.(*controlapi.SolveRequest)
		if !ok || len(r.Entitlements) == 0 {
			return next(ctx, req)
		}
		e := audit.Entry{Action: "build", Object: objectOf(r), Powers: r.Entitlements, Outcome: "done"}
		if p, ok := peer.FromContext(ctx); ok {
			if i, ok := p.AuthInfo.(peerInfo); ok {
				e.Peer = i.peer
			}
		}
		out, err := next(ctx, req)
		if err != nil {
			e.Outcome = err.Error()
		}
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
