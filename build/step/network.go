package step

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"

	containerdoci "github.com/containerd/containerd/v2/pkg/oci"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/identity"
	bknet "github.com/moby/buildkit/util/network"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"cale/network"
)

// Bridge is BuildKit's network provider for steps that have an address of
// their own. The next step's is made while the one before runs.
type Bridge struct {
	nets *network.Store
	dir  string // of pinned namespaces

	mu     sync.Mutex
	spare  *attached
	making sync.WaitGroup
	closed bool
}

var _ bknet.Provider = (*Bridge)(nil)

// NewBridge attaches steps to the default network of nets. Namespaces that an
// earlier process left in dir are removed.
func NewBridge(nets *network.Store, dir string) (*Bridge, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range left {
		if err := errors.Join(nets.Detach(context.Background(), e.Name()), network.RemoveNamespace(filepath.Join(dir, e.Name()))); err != nil {
			return nil, err
		}
	}
	return &Bridge{nets: nets, dir: dir}, nil
}

// attached is a namespace with an interface on the bridge.
type attached struct {
	b        *Bridge
	id, path string
}

// New implements network.Provider.
func (b *Bridge) New(ctx context.Context, _ string, _ bknet.NamespaceOptions) (bknet.Namespace, error) {
	b.mu.Lock()
	ns := b.spare
	b.spare = nil
	b.mu.Unlock()
	if ns == nil {
		var err error
		if ns, err = b.make(ctx); err != nil {
			return nil, err
		}
	}
	b.making.Go(func() {
		next, err := b.make(context.WithoutCancel(ctx))
		if err != nil {
			return // told when it is needed
		}
		b.mu.Lock()
		keep := b.spare == nil && !b.closed
		if keep {
			b.spare = next
		}
		b.mu.Unlock()
		if !keep {
			_ = next.Close()
		}
	})
	return ns, nil
}

func (b *Bridge) make(ctx context.Context) (*attached, error) {
	ns := &attached{b: b, id: "build-" + identity.NewID()}
	ns.path = filepath.Join(b.dir, ns.id)
	if err := network.NewNamespace(ns.path); err != nil {
		return nil, err
	}
	if _, err := b.nets.Attach(ctx, network.Attach{ID: ns.id, NetNS: ns.path}); err != nil {
		return nil, errors.Join(err, network.RemoveNamespace(ns.path))
	}
	return ns, nil
}

// Close implements network.Provider.
func (b *Bridge) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.making.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.spare == nil {
		return nil
	}
	ns := b.spare
	b.spare = nil
	return ns.Close()
}

// Set implements network.Namespace.
func (n *attached) Set(s *specs.Spec) error {
	return containerdoci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: n.path})(nil, nil, nil, s)
}

// Close implements network.Namespace.
func (n *attached) Close() error {
	return errors.Join(n.b.nets.Detach(context.Background(), n.id), network.RemoveNamespace(n.path))
}

// Sample implements network.Namespace; traffic is not counted.
func (n *attached) Sample() (*resourcestypes.NetworkSample, error) { return nil, nil }
