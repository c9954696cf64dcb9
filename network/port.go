package network

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ports knows who publishes what. For each published port a socket is bound
// on the host (and never listened on): so no other program starts to serve a
// port whose traffic it would never see, and ports that programs hold already
// are noticed. The sockets are a courtesy: traffic flows without them.
type ports struct {
	byPort map[portKey][]portOwner
}

type portKey struct {
	protocol string
	port     uint16
}

type portOwner struct {
	endpoint string // ID
	addr     netip.Addr
	socket   int // -1 if none
	proxy    *proxy
}

func (o portOwner) close() {
	if o.proxy != nil {
		o.proxy.close()
	}
	closeSocket(o.socket)
}

// free reports whether no endpoint of ours has the port on that address.
func (p *ports) free(addr netip.Addr, key portKey) bool {
	for _, o := range p.byPort[key] {
		if o.addr == addr || o.addr.Is4() == addr.Is4() && (o.addr.IsUnspecified() || addr.IsUnspecified()) {
			return false
		}
	}
	return true
}

// reserve takes one port on one address; port 0 lets the kernel choose.
func (p *ports) reserve(endpoint string, addr netip.Addr, key portKey) (uint16, error) {
	if key.port != 0 && !p.free(addr, key) {
		return 0, &PortError{Addr: netip.AddrPortFrom(addr, key.port), Protocol: key.protocol}
	}
	socket, port, err := bindPort(addr, key)
	if err != nil {
		return 0, err
	}
	key.port = port
	if !p.free(addr, key) { // our own rules hide a port that the kernel thinks free
		closeSocket(socket)
		return 0, &PortError{Addr: netip.AddrPortFrom(addr, port), Protocol: key.protocol}
	}
	p.byPort[key] = append(p.byPort[key], portOwner{endpoint: endpoint, addr: addr, socket: socket})
	return port, nil
}

// restore takes a port that the endpoint has had before, whether or not its
// socket can be bound now; the error says why it can't.
func (p *ports) restore(endpoint string, m PortMapping) error {
	key := portKey{m.Protocol, m.HostPort}
	socket, _, err := bindPort(m.HostIP, key)
	if err != nil {
		socket = -1
	}
	p.byPort[key] = append(p.byPort[key], portOwner{endpoint: endpoint, addr: m.HostIP, socket: socket})
	return err
}

// release gives one port back.
func (p *ports) release(endpoint string, addr netip.Addr, key portKey) {
	list := p.byPort[key]
	for i, o := range list {
		if o.endpoint == endpoint && o.addr == addr {
			o.close()
			list = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(p.byPort, key)
	} else {
		p.byPort[key] = list
	}
}

func (p *ports) releaseAll(e *Endpoint) {
	for _, m := range e.Ports {
		p.release(e.ID, m.HostIP, portKey{m.Protocol, m.HostPort})
	}
}

func (p *ports) close() {
	for _, list := range p.byPort {
		for _, o := range list {
			o.close()
		}
	}
	p.byPort = map[portKey][]portOwner{}
}

func closeSocket(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}

// publish reserves everything the mappings ask for and returns one mapping
// for each port and address. On failure nothing stays reserved.
func (p *ports) publish(endpoint string, want []PortMapping, v6 bool) (got []PortMapping, err error) {
	defer func() {
		if err != nil {
			p.releaseAll(&Endpoint{ID: endpoint, Ports: got})
			got = nil
		}
	}()
	for _, m := range want {
		if err := checkMapping(&m); err != nil {
			return got, err
		}
		addrs, err := hostAddrs(m.HostIP, v6)
		if err != nil {
			return got, err
		}
		count := int(m.ContainerPortEnd-m.ContainerPort) + 1
		for i := range count {
			one := m
			one.ContainerPort += uint16(i)
			one.ContainerPortEnd = 0
			first, last := m.HostPort, m.HostPort
			if m.HostPort != 0 {
				if count > 1 {
					first += uint16(i)
					last = first
				} else {
					last = m.HostPortEnd
				}
			}
			one.HostPortEnd = 0
			port, err := p.reserveOn(endpoint, addrs, one.Protocol, first, last)
			if err != nil {
				return got, err
			}
			one.HostPort = port
			for _, a := range addrs {
				one.HostIP = a
				got = append(got, one)
			}
		}
	}
	return got, nil
}

// reserveOn takes the same port on all addresses: the first of a range on
// which that works, or any if first is 0.
func (p *ports) reserveOn(endpoint string, addrs []netip.Addr, protocol string, first, last uint16) (uint16, error) {
	tries := int(last-first) + 1
	if first == 0 {
		tries = 64
	}
	var failed error
	for i := range tries {
		port := uint16(0)
		if first != 0 {
			port = first + uint16(i)
		}
		var err error
		for n, a := range addrs {
			var got uint16
			if got, err = p.reserve(endpoint, a, portKey{protocol, port}); err != nil {
				for _, b := range addrs[:n] {
					p.release(endpoint, b, portKey{protocol, port})
				}
				break
			}
			port = got
		}
		if err == nil {
			return port, nil
		}
		if !errors.Is(err, ErrPortInUse) {
			return 0, err
		}
		failed = err
	}
	if first != 0 && last > first {
		return 0, fmt.Errorf("all ports of %d-%d/%s: %w", first, last, protocol, failed)
	}
	return 0, failed
}

// checkMapping refuses nonsense and fills in ends and protocol.
func checkMapping(m *PortMapping) error {
	if m.Protocol == "" {
		m.Protocol = "tcp"
	}
	if protocols[m.Protocol] == 0 {
		return fmt.Errorf("%w protocol %q: use tcp, udp or sctp", ErrInvalid, m.Protocol)
	}
	if m.ContainerPort == 0 {
		return fmt.Errorf("%w container port 0", ErrInvalid)
	}
	if m.ContainerPortEnd == 0 {
		m.ContainerPortEnd = m.ContainerPort
	}
	if m.HostPortEnd == 0 {
		m.HostPortEnd = m.HostPort
	}
	if m.ContainerPortEnd < m.ContainerPort || m.HostPortEnd < m.HostPort || m.HostPort == 0 && m.HostPortEnd != 0 {
		return fmt.Errorf("%w port range: it ends before it starts", ErrInvalid)
	}
	count := m.ContainerPortEnd - m.ContainerPort
	if count > 0 && m.HostPort != 0 {
		if m.HostPortEnd == m.HostPort && int(m.HostPort)+int(count) <= 0xffff {
			m.HostPortEnd = m.HostPort + count
		}
		if m.HostPortEnd-m.HostPort != count {
			return fmt.Errorf("%w port ranges: %d host ports for %d container ports", ErrInvalid, m.HostPortEnd-m.HostPort+1, count+1)
		}
	}
	return nil
}

func hostAddrs(ip netip.Addr, v6 bool) ([]netip.Addr, error) {
	ip = ip.Unmap().WithZone("")
	switch {
	case !ip.IsValid() && v6:
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, nil
	case !ip.IsValid():
		return []netip.Addr{netip.IPv4Unspecified()}, nil
	case ip.Is6() && !v6:
		return nil, fmt.Errorf("%w host address %s: the container has no IPv6 address", ErrInvalid, ip)
	}
	return []netip.Addr{ip}, nil
}

// bindPort binds a socket without letting anything arrive at it.
func bindPort(addr netip.Addr, key portKey) (socket int, port uint16, err error) {
	fail := func(err error) (int, uint16, error) {
		at := netip.AddrPortFrom(addr, key.port)
		if errors.Is(err, unix.EADDRINUSE) {
			return -1, 0, &PortError{Addr: at, Protocol: key.protocol, Other: true}
		}
		return -1, 0, fmt.Errorf("failed to bind host port %s/%s: %w", at, key.protocol, err)
	}
	family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(key.port), Addr: [4]byte{}})
	if addr.Is4() {
		sa.(*unix.SockaddrInet4).Addr = addr.As4()
	} else {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(key.port), Addr: addr.As16()}
	}
	kind := unix.SOCK_STREAM
	if key.protocol == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(protocols[key.protocol]))
	if err != nil {
		if key.protocol == "sctp" && key.port != 0 {
			return -1, key.port, nil // no SCTP on this host itself; passing it on works
		}
		return fail(err)
	}
	if family == unix.AF_INET6 {
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	switch key.protocol {
	case "udp":
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
	case "tcp":
		// Connections that a server left in TIME_WAIT do not count, but then
		// only listening tells whether somebody else listens.
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err = unix.Bind(fd, sa); err == nil && key.protocol == "tcp" {
		if err = unix.Listen(fd, 0); err == nil {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
			unix.Shutdown(fd, unix.SHUT_RD) // no longer listening, still bound
		}
	}
	if err != nil {
		unix.Close(fd)
		return fail(err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		unix.Close(fd)
		return fail(err)
	}
	switch b := bound.(type) {
	case *unix.SockaddrInet4:
		port = uint16(b.Port)
	case *unix.SockaddrInet6:
		port = uint16(b.Port)
	}
	return fd, port, nil
}
