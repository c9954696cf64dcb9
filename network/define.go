package network

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"
	"sort"
	"strconv"
	"time"
)

var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

// Create makes a network and returns its complete definition. The definition
// is on disk before anything else happens.
func (s *Store) Create(ctx context.Context, d Definition) (Definition, error) {
	if !validName.MatchString(d.Name) {
		return Definition{}, fmt.Errorf("%w network name %q: letters, digits, _, . and -, beginning with a letter or digit", ErrInvalid, d.Name)
	}
	if d.Name == Bridge || d.Name == Host || d.Name == None || d.Name == "default" || d.Name == "container" {
		return Definition{}, fmt.Errorf("operation is not permitted on predefined %s network: %w", d.Name, ErrForbidden)
	}
	if d.Driver == "" {
		d.Driver = "bridge"
	}
	if d.Driver != "bridge" && !d.child() {
		return Definition{}, fmt.Errorf("could not find plugin %s: network driver %w", d.Driver, ErrNotFound)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nets {
		if n.def.Name == d.Name {
			return Definition{}, fmt.Errorf("network with name %s %w", d.Name, ErrExists)
		}
	}
	id := make([]byte, 32)
	rand.Read(id)
	d.ID = hex.EncodeToString(id)
	d.Created = time.Now().UTC()
	if err := s.complete(&d); err != nil {
		return Definition{}, err
	}
	if err := writeFile(s.definitionFile(d.ID), d, true); err != nil {
		return Definition{}, fmt.Errorf("write network %s: %w", d.Name, err)
	}
	n := &network{def: d, endpoints: map[string]*Endpoint{}}
	n.pools()
	s.nets[d.ID] = n
	return d, nil
}

// complete checks a definition and fills in what it leaves open.
func (s *Store) complete(d *Definition) error {
	if d.child() {
		if err := s.completeChild(d); err != nil {
			return err
		}
	} else if err := s.completeBridge(d); err != nil {
		return err
	}
	if v, ok := d.Options[optMTU]; ok {
		if n, err := strconv.Atoi(v); err != nil || n < 68 || n > 65535 {
			return fmt.Errorf("%w MTU %q: use a number from 68 to 65535", ErrInvalid, v)
		}
	}
	if err := s.completeSubnet(d); err != nil {
		return err
	}
	if d.NoIPv6 {
		d.Subnet6, d.Gateway6 = netip.Prefix{}, netip.Addr{}
		return nil
	}
	if !d.Subnet6.IsValid() {
		d.Subnet6 = newULA()
	}
	if !d.Subnet6.Addr().Is6() || d.Subnet6.Addr().Is4In6() || d.Subnet6.Bits() > 126 {
		return fmt.Errorf("%w IPv6 subnet %s", ErrInvalid, d.Subnet6)
	}
	d.Subnet6 = d.Subnet6.Masked()
	return s.checkPlace(d, d.Subnet6, &d.Gateway6)
}

// completeBridge settles the bridge's name and checks the options that bridges have.
func (s *Store) completeBridge(d *Definition) error {
	d.Bridge = d.Options[optBridge]
	if d.Bridge == "" {
		d.Bridge = "cn-" + d.ID[:9]
	}
	if err := checkDevice(d.Bridge); err != nil {
		return err
	}
	if err := checkFirewall(d.Options[optFirewall]); err != nil {
		return err
	}
	for _, key := range []string{optICC, optMasquerade} {
		if v, ok := d.Options[key]; ok {
			b, err := strconv.ParseBool(v)
			if err != nil {
				return fmt.Errorf("%w value %q of option %s: use true or false", ErrInvalid, v, key)
			}
			d.Options[key] = strconv.FormatBool(b)
		}
	}
	for _, n := range s.nets {
		if n.def.Bridge == d.Bridge {
			return fmt.Errorf("bridge %s is already %w by network %s", d.Bridge, ErrInUse, n.def.Name)
		}
	}
	return nil
}

func (s *Store) completeSubnet(d *Definition) (err error) {
	if !d.Subnet.IsValid() {
		if d.Gateway.IsValid() || d.Range.IsValid() {
			return fmt.Errorf("%w network %s: a gateway or range needs a subnet", ErrInvalid, d.Name)
		}
		if d.Subnet, err = s.chooseSubnet(userSubnets()); err != nil {
			return err
		}
	}
	if !d.Subnet.Addr().Is4() || d.Subnet.Bits() > 30 || d.Subnet.Bits() < 4 {
		return fmt.Errorf("%w IPv4 subnet %s: the prefix must be from /4 to /30", ErrInvalid, d.Subnet)
	}
	d.Subnet = d.Subnet.Masked()
	if d.Range.IsValid() {
		d.Range = d.Range.Masked()
		if !d.Subnet.Contains(d.Range.Addr()) || d.Range.Bits() < d.Subnet.Bits() {
			return fmt.Errorf("%w range %s: it is not inside of subnet %s", ErrInvalid, d.Range, d.Subnet)
		}
	}
	return s.checkPlace(d, d.Subnet, &d.Gateway)
}

// checkPlace refuses a subnet that another network of ours has, and a gateway
// outside. That the host has a route there is the user's choice if it was the
// user who gave the subnet.
func (s *Store) checkPlace(d *Definition, subnet netip.Prefix, gateway *netip.Addr) error {
	for _, n := range s.nets {
		if n.def.Subnet.Overlaps(subnet) || n.def.Subnet6.Overlaps(subnet) {
			return fmt.Errorf("%w subnet %s: Pool overlaps with other one on this address space (network %s)", ErrForbidden, subnet, n.def.Name)
		}
	}
	if !gateway.IsValid() {
		*gateway = nth(subnet, 1)
	}
	if !subnet.Contains(*gateway) {
		return fmt.Errorf("%w gateway %s: it is not in subnet %s", ErrInvalid, gateway, subnet)
	}
	return nil
}

// Remove removes a network that nothing is attached to.
func (s *Store) Remove(ctx context.Context, network string) error {
	if network == Host || network == None {
		return fmt.Errorf("%s is a pre-defined network and cannot be removed: %w", network, ErrForbidden)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.find(network)
	if err != nil {
		return err
	}
	if n.def.Name == Bridge {
		return fmt.Errorf("%s is a pre-defined network and cannot be removed: %w", Bridge, ErrForbidden)
	}
	if len(n.endpoints) > 0 {
		return fmt.Errorf("error while removing network: network %s has active endpoints: %w", n.def.Name, ErrInUse)
	}
	down := s.down
	if n.def.child() {
		down = s.removeChild
	}
	if err := down(n); err != nil {
		return err
	}
	if err := removeFile(s.definitionFile(n.def.ID)); err != nil {
		return fmt.Errorf("remove network %s: %w", n.def.Name, err)
	}
	delete(s.nets, n.def.ID)
	return nil
}

// Inspect finds a network by name, ID or unique prefix of an ID.
func (s *Store) Inspect(network string) (*Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.find(network)
	if err == nil {
		return n.info(), nil
	}
	for _, i := range s.predefined() {
		if i.Name == network || i.ID == network || len(network) >= 4 && len(network) < 64 && i.ID[:len(network)] == network {
			return i, nil
		}
	}
	return nil, err
}

// Definition finds a network as Inspect does, and gives what it is without who is in it: that may be many.
func (s *Store) Definition(network string) (Definition, error) {
	s.mu.Lock()
	n, err := s.find(network)
	if err == nil {
		defer s.mu.Unlock()
		return n.def, nil
	}
	s.mu.Unlock()
	i, err := s.Inspect(network)
	if err != nil {
		return Definition{}, err
	}
	return i.Definition, nil
}

// List returns all networks, the predefined ones first, the others by name.
func (s *Store) List() []*Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.predefined()
	var users []*Info
	for _, n := range s.nets {
		if n.def.Name == Bridge {
			list = append([]*Info{n.info()}, list...)
		} else {
			users = append(users, n.info())
		}
	}
	sort.Slice(users, func(i, j int) bool { return users[i].Name < users[j].Name })
	return append(list, users...)
}

func (s *Store) predefined() []*Info {
	var list []*Info
	for _, p := range [][2]string{{Host, "host"}, {None, "null"}} {
		list = append(list, &Info{Definition: Definition{ID: s.fixedID(p[0]), Name: p[0], Driver: p[1], Created: s.opened}})
	}
	return list
}

func (n *network) info() *Info {
	i := &Info{Definition: n.def}
	for _, e := range n.endpoints {
		i.Endpoints = append(i.Endpoints, e.clone())
	}
	sort.Slice(i.Endpoints, func(a, b int) bool { return i.Endpoints[a].Container < i.Endpoints[b].Container })
	return i
}

// Rename changes the name under which DNS knows a container.
func (s *Store) Rename(id, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.containers[id] {
		e.Name = name
		if err := writeFile(s.leaseFile(e), e, false); err != nil {
			return fmt.Errorf("rename %.12s on network %s: %w", id, e.Network, err)
		}
	}
	return nil
}
