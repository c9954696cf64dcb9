// Package network connects containers: bridges, addresses, published ports,
// networks that users define, and names on them.
//
// The kernel does all the work: veth pairs on a bridge, one nftables table
// for address translation. Everything but the answering of names keeps
// working while the daemon is down; after its restart Reconcile compares what
// is on disk with what the kernel has.
package network

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cale/network/rtnl"
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
	// Firewall is what networks do that say nothing else: FirewallHost or
	// FirewallPublished, which "" is.
	Firewall string
	// Warn is told what does not work but stops nothing; it may be nil.
	Warn func(text string)
}

const defaultName = "cale0"

// InstanceName derives Config.Name from a run directory: "cale0" for
// /run/cale, "cale-" and six hex digits for any other.
func InstanceName(runDir string) string {
	if runDir = filepath.Clean(runDir); runDir == "/run/cale" {
		return defaultName
	}
	sum := sha256.Sum256([]byte(runDir))
	return "cale-" + hex.EncodeToString(sum[:3])
}

// Store holds the networks of one instance. Its methods may be called at the
// same time.
type Store struct {
	cfg    Config
	route  *rtnl.Conn // both sockets belong to the host's network namespace
	filter *rtnl.Conn

	mu         sync.Mutex
	nets       map[string]*network // by ID
	containers map[string][]*Endpoint
	ports      ports
	bridged    bool    // bridged packets pass the IP hooks, see watchFilter
	synced     bool    // the table in the kernel was written by this process
	gates      [2]bool // the gate's table of the family may be there
	dns        *names
	opened     time.Time
	trash      *rtnl.Conn // for deletions, which take long
	deleting   sync.WaitGroup
}

// Open loads the store. It changes nothing on the host: a bridge is made when
// the first container is attached to its network. Everything it makes is in
// the network namespace of the calling thread.
func Open(cfg Config) (*Store, error) {
	if cfg.Name == "" {
		cfg.Name = defaultName
	}
	if err := checkDevice(cfg.Name); err != nil {
		return nil, err
	}
	if err := checkFirewall(cfg.Firewall); err != nil {
		return nil, err
	}
	s := &Store{gates: [2]bool{true, true}, cfg: cfg, opened: time.Now().UTC(), nets: map[string]*network{}, containers: map[string][]*Endpoint{}, ports: ports{byPort: map[portKey][]portOwner{}}}
	for _, dir := range []string{cfg.StateDir, cfg.RunDir, s.leaseDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("network: %w", err)
		}
	}
	var err error
	if s.route, err = rtnl.Open(); err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	if s.trash, err = rtnl.Open(); err != nil {
		s.Close()
		return nil, fmt.Errorf("network: %w", err)
	}
	if s.filter, err = rtnl.OpenNetfilter(); err != nil {
		s.Close()
		return nil, fmt.Errorf("network: %w", err)
	}
	s.dns = newNames(s)
	if err := s.load(); err != nil {
		s.Close()
		return nil, fmt.Errorf("network: %w", err)
	}
	return s, nil
}

// Close releases sockets and files. Networks keep working.
func (s *Store) Close() error {
	s.deleting.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dns != nil {
		s.dns.close()
	}
	s.ports.close()
	var errs []error
	for _, c := range []*rtnl.Conn{s.route, s.trash, s.filter} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

func (s *Store) warn(format string, args ...any) {
	if s.cfg.Warn != nil {
		s.cfg.Warn(fmt.Sprintf(format, args...))
	}
}

func (s *Store) leaseDir() string    { return filepath.Join(s.cfg.RunDir, "endpoints") }
func (s *Store) defaultFile() string { return filepath.Join(s.cfg.RunDir, "bridge.json") }
func (s *Store) definitionFile(id string) string {
	return filepath.Join(s.cfg.StateDir, id+".json")
}

// load reads definitions and leases.
func (s *Store) load() error {
	if err := s.loadDefault(); err != nil {
		return err
	}
	err := readFiles(s.cfg.StateDir, func(d *Definition) error {
		n := &network{def: *d, endpoints: map[string]*Endpoint{}}
		n.pools()
		s.nets[d.ID] = n
		return nil
	})
	if err != nil {
		return err
	}
	return readFiles(s.leaseDir(), func(e *Endpoint) error {
		n := s.nets[e.NetworkID]
		if n == nil {
			// Its network's definition is gone: so is what the lease is for.
			return removeFile(s.leaseFile(e))
		}
		if n.v4 == nil { // the default network's file is lost, but not its addresses
			n.def.Subnet = e.IPv4.Masked()
			n.def.Gateway = e.Gateway
			n.pools()
		}
		s.insert(n, e)
		return nil
	})
}

// loadDefault sets up the default network, with the subnet of its last use.
func (s *Store) loadDefault() error {
	d := Definition{ID: s.fixedID(Bridge), Name: Bridge, Driver: "bridge", Bridge: s.cfg.Name, Created: s.opened}
	err := readFiles(s.cfg.RunDir, func(old *Definition) error {
		if old.ID == d.ID {
			d = *old
		}
		return nil
	})
	if err != nil {
		return err
	}
	if s.cfg.Subnet.IsValid() && d.Subnet != s.cfg.Subnet.Masked() {
		d.Subnet, d.Gateway = s.cfg.Subnet.Masked(), nth(s.cfg.Subnet, 1)
	}
	if !d.Subnet6.IsValid() || s.cfg.Subnet6.IsValid() && d.Subnet6 != s.cfg.Subnet6.Masked() {
		d.Subnet6 = newULA()
		if s.cfg.Subnet6.IsValid() {
			d.Subnet6 = s.cfg.Subnet6.Masked()
		}
		d.Gateway6 = nth(d.Subnet6, 1)
	}
	n := &network{def: d, endpoints: map[string]*Endpoint{}}
	s.nets[d.ID] = n
	if !d.Subnet.IsValid() {
		return nil // settle chooses
	}
	n.pools()
	return writeFile(s.defaultFile(), d, false)
}

// fixedID is a predefined network's ID: the same at every start.
func (s *Store) fixedID(name string) string {
	sum := sha256.Sum256([]byte("network " + name + " of " + s.cfg.Name))
	return hex.EncodeToString(sum[:])
}

func (s *Store) leaseFile(e *Endpoint) string {
	return filepath.Join(s.leaseDir(), e.Container+"@"+e.NetworkID[:16]+".json")
}

// insert enters an endpoint into the books.
func (s *Store) insert(n *network, e *Endpoint) {
	n.endpoints[e.Container] = e
	if n.v4 != nil && e.IPv4.IsValid() {
		n.v4.used[e.IPv4.Addr()] = true
	}
	if n.v6 != nil && e.IPv6.IsValid() {
		n.v6.used[e.IPv6.Addr()] = true
	}
	s.containers[e.Container] = append(s.containers[e.Container], e)
	s.order(e.Container)
}

// order sorts a container's endpoints: first the one with the default route,
// then by interface.
func (s *Store) order(id string) {
	list := s.containers[id]
	sort.Slice(list, func(i, j int) bool {
		if list[i].Default != list[j].Default {
			return list[i].Default
		}
		return list[i].Interface < list[j].Interface
	})
}

// strike takes it out again.
func (s *Store) strike(n *network, e *Endpoint) {
	delete(n.endpoints, e.Container)
	if e.IPv4.IsValid() {
		n.v4.give(e.IPv4.Addr())
	}
	if n.v6 != nil && e.IPv6.IsValid() {
		n.v6.give(e.IPv6.Addr())
	}
	var rest []*Endpoint
	for _, o := range s.containers[e.Container] {
		if o != e {
			rest = append(rest, o)
		}
	}
	if rest == nil {
		delete(s.containers, e.Container)
	} else {
		s.containers[e.Container] = rest
	}
}

// find looks a network up by name, ID or unique prefix of an ID.
func (s *Store) find(name string) (*network, error) {
	if name == "" {
		name = Bridge
	}
	if n := s.nets[name]; n != nil {
		return n, nil // a whole ID is nobody else's name
	}
	var found *network
	for _, n := range s.nets {
		if n.def.Name == name {
			return n, nil
		}
	}
	for id, n := range s.nets {
		if strings.HasPrefix(id, name) {
			if found != nil {
				return nil, fmt.Errorf("network %s is ambiguous (2 matches found on ID prefix): %w", name, ErrInvalid)
			}
			found = n
		}
	}
	if found == nil {
		return nil, fmt.Errorf("network %s %w", name, ErrNotFound)
	}
	return found, nil
}

// checkDevice refuses what the kernel refuses as a device's name.
func checkDevice(name string) error {
	if name == "" || len(name) >= unix.IFNAMSIZ || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n%") {
		return fmt.Errorf("%w device name %q: 1 to 15 bytes without space, slash, colon and percent sign", ErrInvalid, name)
	}
	return nil
}

// Endpoint returns the container's first endpoint: the one with the default
// route, if any.
func (s *Store) Endpoint(id string) (*Endpoint, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.containers[id]
	if len(list) == 0 {
		return nil, false
	}
	return list[0].clone(), true
}

// Endpoints returns all of the container's endpoints, first the one with the
// default route, then by interface.
func (s *Store) Endpoints(id string) []*Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*Endpoint
	for _, e := range s.containers[id] {
		list = append(list, e.clone())
	}
	return list
}

func (e *Endpoint) clone() *Endpoint {
	c := *e
	c.Ports = append([]PortMapping(nil), e.Ports...)
	c.Aliases = append([]string(nil), e.Aliases...)
	c.Links = append([]string(nil), e.Links...)
	c.Want = append([]PortMapping(nil), e.Want...)
	c.Servers = append([]netip.Addr(nil), e.Servers...)
	return &c
}
