package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cale/network"
)

// isOwn says whether a network mode gives the container a namespace of its own, and whether it joins networks.
func isOwn(mode string) (own, joins bool) {
	switch {
	case mode == "host", strings.HasPrefix(mode, "container:"):
		return false, false
	case mode == "none":
		return true, false
	}
	return true, true
}

// networkName is the first network of a container that joins any.
func networkName(mode string) string {
	if mode == "" || mode == "default" {
		return network.Bridge
	}
	return mode
}

// userDefined says whether a mode is a network that a user made.
func userDefined(mode string) bool {
	_, joins := isOwn(mode)
	return joins && networkName(mode) != network.Bridge
}

// checkNetworks refuses networks that don't go together, and what the built-in ones can't give.
func checkNetworks(n *Network) error {
	if err := checkEndpoint(n.Mode, n.Aliases, n.IPv4, n.IPv6); err != nil {
		return err
	}
	_, joins := isOwn(n.Mode)
	for _, o := range n.Others {
		if _, also := isOwn(o.Network); !joins || !also {
			return invalid("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		}
		if err := checkEndpoint(o.Network, o.Aliases, o.IPv4, o.IPv6); err != nil {
			return err
		}
	}
	return nil
}

func checkEndpoint(mode string, aliases []string, v4, v6 netip.Addr) error {
	switch {
	case userDefined(mode):
	case len(aliases) > 0:
		return invalid("network-scoped aliases are only supported for user-defined networks")
	case v4.IsValid() || v6.IsValid():
		return invalid("user specified IP address is supported on user defined networks only")
	}
	return nil
}

// prepareNetwork pins the container's network namespace, or finds the one it shares. attach says whether it is to
// be connected.
func (e *Engine) prepareNetwork(c *container, rec *record, r *run) (netns string, attach bool, err error) {
	mode := rec.Spec.Network.Mode
	if c.group != nil {
		return c.group.netns(), false, nil
	}
	if mode == "host" {
		return "", false, nil
	}
	if ref, ok := strings.CutPrefix(mode, "container:"); ok {
		netns, err := e.otherNetwork(ref)
		return netns, false, err
	}
	netns = filepath.Join(c.pod, "net")
	if c.idMap() != nil {
		err = c.pinUser()
	} else {
		err = network.NewNamespace(netns)
	}
	if err != nil {
		return "", false, fmt.Errorf("container %s: %w", c.id, err)
	}
	r.netns = netns
	_, joins := isOwn(mode)
	return netns, joins, nil
}

// otherNetwork gives the pinned network namespace of a running container; "" is the host's.
func (e *Engine) otherNetwork(ref string) (string, error) {
	for range 16 { // a chain of containers each of which has the next one's
		other, err := e.find(ref)
		if err != nil {
			return "", err
		}
		other.mu.Lock()
		running, mode := other.run != nil, other.rec.Spec.Network.Mode
		other.mu.Unlock()
		if !running {
			return "", conflict("cannot join network of a non running container: %s", other.id)
		}
		next, shares := strings.CutPrefix(mode, "container:")
		switch {
		case other.group != nil:
			return other.group.netns(), nil
		case mode == "host":
			return "", nil
		case !shares:
			return filepath.Join(other.pod, "net"), nil
		}
		ref = next
	}
	return "", invalid("cannot join network: containers that share it with each other in a circle")
}

func (c *container) networkMode() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec.Spec.Network.Mode
}

// attachNetworks connects the container and writes the files that tell it who it is.
func (e *Engine) attachNetworks(ctx context.Context, c *container, rec *record, netns string) error {
	n := &rec.Spec.Network
	first := networkName(n.Mode)
	if !slices.Contains(rec.Left, first) {
		if _, err := e.attachOther(ctx, rec, netns, n.first()); err != nil {
			return err
		}
	}
	for _, o := range slices.Concat(n.Others, rec.Others) {
		if o.Network == first || slices.Contains(rec.Left, o.Network) {
			continue
		}
		if _, err := e.attachOther(ctx, rec, netns, o); err != nil {
			return err
		}
	}
	return e.writeEtc(c, rec, e.nets.Endpoints(c.id))
}

// first is the place on the network that the mode names.
func (n *Network) first() NetworkEndpoint {
	return NetworkEndpoint{Network: networkName(n.Mode), Aliases: n.Aliases, Links: n.Links, IPv4: n.IPv4, IPv6: n.IPv6, MAC: n.MAC,
		GwPriority: n.GwPriority, Interface: n.Interface}
}

func (e *Engine) attachOther(ctx context.Context, rec *record, netns string, o NetworkEndpoint) (*network.Endpoint, error) {
	a := e.attachment(rec, netns)
	a.Network, a.MAC, a.IPv4, a.IPv6 = o.Network, o.MAC, o.IPv4, o.IPv6
	a.Priority, a.Interface, a.Ports = o.GwPriority, o.Interface, e.publish(rec)
	a.Aliases = append(a.Aliases, o.Aliases...)
	if userDefined(o.Network) {
		a.Links = o.Links
	}
	ep, err := e.nets.Attach(ctx, a)
	if err != nil {
		return nil, networkError(err)
	}
	e.emitNetwork("connect", ep.NetworkID, ep.Network, rec.ID)
	return ep, nil
}

// attachment is what is the same on all of a container's networks.
func (e *Engine) attachment(rec *record, netns string) network.Attach {
	a := network.Attach{ID: rec.ID, NetNS: netns, Hostname: rec.Run.Hostname, Name: rec.Name, Aliases: []string{rec.ID[:12]}}
	for _, s := range e.dnsServers(rec) {
		if addr, err := netip.ParseAddr(s); err == nil {
			a.Servers = append(a.Servers, addr)
		}
	}
	return a
}

func (e *Engine) dnsServers(rec *record) []string {
	if len(rec.Spec.Network.DNS) > 0 {
		return rec.Spec.Network.DNS
	}
	return e.cfg.DNS
}

// publish lists the ports to make reachable: those asked for, and with PublishAll each exposed one.
func (e *Engine) publish(rec *record) []network.PortMapping {
	var out []network.PortMapping
	taken := map[Port]bool{}
	for _, p := range rec.Spec.Network.Publish {
		if p.Protocol == "" {
			p.Protocol = "tcp"
		}
		taken[p.Port] = true
		out = append(out, network.PortMapping{HostIP: p.HostIP, HostPort: p.HostPort, HostPortEnd: p.HostPortEnd, ContainerPort: p.Number, Protocol: p.Protocol})
	}
	if rec.Spec.PublishAll {
		for _, p := range rec.Run.Exposed {
			if !taken[p] {
				out = append(out, network.PortMapping{ContainerPort: p.Number, Protocol: p.Protocol})
			}
		}
	}
	return out
}

// networkError gives an error of package network its class here, and Docker's words around it.
func networkError(err error) error {
	var port *network.PortError
	switch {
	case errors.As(err, &port):
		return &Error{Text: "failed to set up container networking: driver failed programming external connectivity on endpoint: " + port.Error(), Cause: err}
	case errors.Is(err, network.ErrNotFound):
		return &Error{Class: ErrNotFound, Text: err.Error(), Cause: err}
	case errors.Is(err, network.ErrInUse), errors.Is(err, network.ErrExists):
		return &Error{Class: ErrConflict, Text: err.Error(), Cause: err}
	case errors.Is(err, network.ErrInvalid):
		return &Error{Class: ErrInvalid, Text: err.Error(), Cause: err}
	case errors.Is(err, network.ErrForbidden):
		return &Error{Class: ErrForbidden, Text: err.Error(), Cause: err}
	}
	return fmt.Errorf("failed to set up container networking: %w", err)
}

// dropNetwork disconnects a container; its namespace stays until the pod's directory goes.
func (e *Engine) dropNetwork(ctx context.Context, c *container) {
	eps := e.nets.Endpoints(c.id)
	if err := e.nets.Detach(ctx, c.id); err != nil {
		e.cfg.Log("container %s: disconnect: %v", c.id, err)
	}
	for _, ep := range eps {
		e.emitNetwork("disconnect", ep.NetworkID, ep.Network, c.id)
	}
}

// emitNetwork tells that a container came to a network, or left it.
func (e *Engine) emitNetwork(action, id, name, container string) {
	driver := ""
	if i, err := e.nets.Definition(id); err == nil {
		driver = i.Driver
	}
	e.emitOther("network", action, id, "container", container, "name", name, "type", driver)
}

// prepareEtc makes the files that are bound into the container, so that they are there to be bound.
func (e *Engine) prepareEtc(c *container, rec *record) error {
	if c.group != nil || strings.HasPrefix(rec.Spec.Network.Mode, "container:") {
		return nil
	}
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		f, err := os.OpenFile(filepath.Join(c.dir, name), os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return fmt.Errorf("container %s: %w", c.id, err)
		}
		err = f.Chmod(0o644) // whatever our umask is: every user in the container reads it
		f.Close()
		if err != nil {
			return fmt.Errorf("container %s: %w", c.id, err)
		}
	}
	return nil
}

// writeEtc fills the files in place: they may be bound already.
func (e *Engine) writeEtc(c *container, rec *record, endpoints []*network.Endpoint) error {
	n := &rec.Spec.Network
	if c.group != nil || strings.HasPrefix(n.Mode, "container:") {
		return nil
	}
	hosts, err := e.hostsFile(rec, endpoints)
	if err != nil {
		return err
	}
	resolv, err := e.resolvFile(rec, endpoints)
	if err != nil {
		return err
	}
	hostname := rec.Run.Hostname
	if n.Mode == "host" || rec.Spec.UTSMode == "host" {
		if hostname, err = os.Hostname(); err != nil {
			return err
		}
	}
	for name, data := range map[string][]byte{"hosts": hosts, "hostname": []byte(hostname + "\n"), "resolv.conf": resolv} {
		if err := os.WriteFile(filepath.Join(c.dir, name), data, 0o644); err != nil {
			return fmt.Errorf("container %s: %w", c.id, err)
		}
	}
	return nil
}

func (e *Engine) hostsFile(rec *record, endpoints []*network.Endpoint) ([]byte, error) {
	n := &rec.Spec.Network
	var entries []network.HostEntry
	for _, x := range n.ExtraHosts {
		name, text, ok := cutHost(x)
		if !ok {
			return nil, invalid("bad format for add-host: %q", x)
		}
		if text == "host-gateway" {
			if addr, ok := hostGateway(endpoints); ok {
				entries = append(entries, network.HostEntry{Addr: addr, Names: []string{name}})
				continue
			}
			return nil, invalid("unable to derive the IP value for host-gateway")
		}
		addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
		if err != nil {
			return nil, invalid("invalid IP address in add-host: %q", text)
		}
		entries = append(entries, network.HostEntry{Addr: addr, Names: []string{name}})
	}
	linked, err := e.linkedHosts(rec)
	if err != nil {
		return nil, err
	}
	entries = append(entries, linked...)
	names := []string{rec.Run.Hostname}
	if d := rec.Spec.Domain; d != "" {
		names = []string{rec.Run.Hostname + "." + d, rec.Run.Hostname}
	} else if short, _, ok := strings.Cut(rec.Run.Hostname, "."); ok {
		names = append(names, short)
	}
	for _, ep := range endpoints {
		for _, p := range []netip.Prefix{ep.IPv4, ep.IPv6} {
			if p.IsValid() {
				entries = append(entries, network.HostEntry{Addr: p.Addr(), Names: names})
			}
		}
	}
	if n.Mode == "host" {
		if own, err := os.ReadFile("/etc/hosts"); err == nil && len(entries) == 0 {
			return own, nil
		}
	}
	return network.WriteHosts(entries), nil
}

// cutHost splits name:address or name=address; the address may have colons itself.
func cutHost(s string) (name, addr string, ok bool) {
	i := strings.IndexAny(s, ":=")
	if i <= 0 || i == len(s)-1 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

func hostGateway(endpoints []*network.Endpoint) (netip.Addr, bool) {
	for _, ep := range endpoints {
		if ep.Gateway.IsValid() {
			return ep.Gateway, true
		}
	}
	return netip.Addr{}, false
}

func (e *Engine) resolvFile(rec *record, endpoints []*network.Endpoint) ([]byte, error) {
	n := &rec.Spec.Network
	servers := e.dnsServers(rec)
	var d network.DNS
	if own, joins := isOwn(n.Mode); !own || !joins {
		// Without a network of ours between, the host's own servers are reachable, or nothing is.
		raw, err := os.ReadFile("/etc/resolv.conf")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		d = network.ParseResolv(raw)
		if len(servers)+len(n.DNSSearch)+len(n.DNSOptions) == 0 {
			return raw, nil
		}
	} else {
		var err error
		if d, err = network.HostDNS(); err != nil {
			return nil, err
		}
	}
	if len(servers) > 0 {
		d.Servers = nil
		for _, s := range servers {
			addr, err := netip.ParseAddr(s)
			if err != nil {
				return nil, invalid("invalid IP address for DNS server: %q", s)
			}
			d.Servers = append(d.Servers, addr)
		}
	}
	for _, ep := range endpoints {
		if ep.DNS.IsValid() { // this network answers for its names, and asks the servers above for others
			d.Servers = []netip.Addr{ep.DNS}
			break
		}
	}
	if len(n.DNSSearch) > 0 {
		d.Search = n.DNSSearch
		if len(d.Search) == 1 && d.Search[0] == "." {
			d.Search = nil
		}
	}
	if len(n.DNSOptions) > 0 {
		d.Options = n.DNSOptions
	}
	return network.WriteResolv(d), nil
}
