// Package caller tells a gRPC server who calls it, for the audit log.
package caller

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"

	"cale/audit"
)

// Credentials are transport credentials, of no protection, that note who is at the other end of a connection.
func Credentials() credentials.TransportCredentials { return noting{insecure.NewCredentials()} }

// Of is who makes the call that a context is of; nil if that is unknown.
func Of(ctx context.Context) *audit.Peer {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	i, _ := p.AuthInfo.(info)
	return i.peer
}

type noting struct {
	credentials.TransportCredentials
}

// Clone implements credentials.TransportCredentials.
func (n noting) Clone() credentials.TransportCredentials {
	return noting{n.TransportCredentials.Clone()}
}

// ServerHandshake implements credentials.TransportCredentials.
func (n noting) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, info{audit.PeerOf(c)}, nil
}

type info struct{ peer *audit.Peer }

// AuthType implements credentials.AuthInfo.
func (info) AuthType() string { return "peer" }
