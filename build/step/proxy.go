package step

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/moby/buildkit/solver/pb"
	bknet "github.com/moby/buildkit/util/network"
	"github.com/moby/buildkit/util/network/proxyprovider"
	"golang.org/x/sys/unix"

	"cale/runtime/linux"
)

// Proxy is BuildKit's provider of networks that reach the outside by its proxy
// alone, so that what a step fetched is known. It is made when a build first
// wants one: its certificate takes a while.
type Proxy struct {
	dir    string
	egress map[pb.NetMode]bknet.Provider

	mu   sync.Mutex
	made bknet.ProxyProvider
}

var _ bknet.ProxyProvider = (*Proxy)(nil)

// NewProxy has the proxy reach the outside by networks; its namespaces are in
// dir.
func NewProxy(dir string, networks map[pb.NetMode]bknet.Provider) *Proxy {
	return &Proxy{dir: dir, egress: map[pb.NetMode]bknet.Provider{
		pb.NetMode_UNSET: networks[pb.NetMode_UNSET], pb.NetMode_HOST: networks[pb.NetMode_HOST],
	}}
}

// NewProxy implements network.ProxyProvider.
func (p *Proxy) NewProxy(ctx context.Context, c *bknet.ProxyConfig) (bknet.ProxyNamespace, error) {
	p.mu.Lock()
	if p.made == nil {
		var err error
		if p.made, err = proxyprovider.New(proxyprovider.Opt{Root: p.dir, EgressProviders: p.egress}); err != nil {
			p.mu.Unlock()
			return nil, err
		}
	}
	p.mu.Unlock()
	return p.made.NewProxy(ctx, c)
}

// Close implements network.ProxyProvider.
func (p *Proxy) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.made == nil {
		return nil
	}
	return p.made.Close()
}

// DialContext implements network.Dialer. Names are looked up as this process
// does.
func (n *attached) DialContext(ctx context.Context, kind, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	list, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	ns, err := os.Open(n.path)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	var failed []error
	for _, ip := range list {
		c, err := dialIn(ctx, ns, kind, ip.Unmap(), port)
		if err == nil {
			return c, nil
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

// dialIn connects from a network namespace. To one address only: for several
// the standard library makes sockets in other threads.
func dialIn(ctx context.Context, ns *os.File, kind string, ip netip.Addr, port string) (c net.Conn, err error) {
	if e := linux.InNamespace(ns, unix.CLONE_NEWNET, func() error {
		d := net.Dialer{FallbackDelay: -1}
		c, err = d.DialContext(ctx, kind, net.JoinHostPort(ip.String(), port))
		return nil
	}); e != nil {
		return nil, e
	}
	return c, err
}
