// Package network connects containers: bridges, addresses, published ports,
// networks that users define, and names on them.
//
// The kernel does all the work: veth pairs on a bridge, one nftables table
// for address translation. Everything keeps working while the daemon is down;
// after its restart Reconcile compares what is on disk with what the kernel
// has.
package network

import (
	"context"
	"errors"
	"net/netip"
)

// Config says where a store keeps its files and how it names what it makes.
type Config struct {
	StateDir string // definitions of networks; survives a reboot
	RunDir   string // leases; lost with a reboot, as are the interfaces
	// Name is the default network's bridge and the name of the nftables table:
	// at most 15 bytes. "" is "cale0". Two stores on one machine need two
	// names (see InstanceName).
	Name string
	// Subnet and Subnet6 are the default network's. Zero values choose
	// a subnet that overlaps no route of the host.
	Subnet, Subnet6 netip.Prefix
}

// Store holds the networks of one instance. Its methods may be called at the
// same time.
type Store struct{ cfg Config }

// Open loads the store. It changes nothing on the host: a bridge is made when
// the first container is attached to its network.
func Open(cfg Config) (*Store, error) { return nil, errNotBuilt }

// Close releases sockets and files. Networks keep working.
func (s *Store) Close() error { return nil }

var errNotBuilt = errors.New("network: not built yet")

// Attach gives the namespace an interface on a network. Attaching what is
// already attached returns the same endpoint.
func (s *Store) Attach(ctx context.Context, a Attach) (*Endpoint, error) { return nil, errNotBuilt }

// Detach takes a container off all its networks and frees its addresses and
// ports. A container that is on none is no error.
func (s *Store) Detach(ctx context.Context, id string) error { return errNotBuilt }

// Disconnect takes a container off one network.
func (s *Store) Disconnect(ctx context.Context, id, network string) error { return errNotBuilt }

// Endpoint returns the container's first endpoint: the one with the default
// route, if any.
func (s *Store) Endpoint(id string) (*Endpoint, bool) { return nil, false }

// Endpoints returns all of the container's endpoints, sorted by interface.
func (s *Store) Endpoints(id string) []*Endpoint { return nil }

// Rename changes the name under which DNS knows a container.
func (s *Store) Rename(id, name string) error { return errNotBuilt }

// Create makes a network and returns its complete definition.
func (s *Store) Create(ctx context.Context, d Definition) (Definition, error) {
	return Definition{}, errNotBuilt
}

// Remove removes a network that nothing is attached to.
func (s *Store) Remove(ctx context.Context, network string) error { return errNotBuilt }

// Inspect finds a network by name, ID or unique prefix of an ID.
func (s *Store) Inspect(network string) (*Info, error) { return nil, errNotBuilt }

// List returns all networks, the predefined ones first.
func (s *Store) List() []*Info { return nil }

// Reconcile brings disk and kernel together after a restart: endpoints of
// containers that are not alive go, links and rules that belong to nobody go,
// and what is missing of the living ones is made again.
func (s *Store) Reconcile(ctx context.Context, alive func(id string) bool) error { return errNotBuilt }

// Teardown removes bridges and rules if nothing is attached to any network.
func (s *Store) Teardown() error { return errNotBuilt }

// InstanceName derives Config.Name from a run directory: "cale0" for
// /run/cale, "cale-" and six hex digits for any other.
func InstanceName(runDir string) string { return "cale0" }
