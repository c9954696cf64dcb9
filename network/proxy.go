package network

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cale/network/rtnl"
)

// Where packets between a bridge's ports pass the hooks of IP (br_netfilter,
// which Docker and Kubernetes switch on), the kernel cannot do two things:
// bring an answer back to ::1, and bring a container back to itself through
// its published port. The first is then done by a proxy in this process, the
// second by letting the bridge send frames back where they came from.

const (
	bridgeFilter4 = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	bridgeFilter6 = "/proc/sys/net/bridge/bridge-nf-call-ip6tables"
)

// watchFilter notices a change of these settings: somebody else may change
// them at any time.
func (s *Store) watchFilter() {
	bridged := readSysctl(bridgeFilter4) == "1" || readSysctl(bridgeFilter6) == "1"
	if bridged == s.bridged {
		return
	}
	s.bridged = bridged
	if !s.anyUp() {
		return
	}
	c := content{}
	c.add(setProxied, loopback6)
	if err := s.changeTable(c, !bridged); err != nil {
		s.warn("published ports on [::1]: %v", err)
	}
	for _, list := range s.containers {
		for _, e := range list {
			if err := s.setPort(s.nets[e.NetworkID], e); err != nil {
				s.warn("%v", err)
			}
			s.startProxies(e)
		}
	}
}

// setPort sets what differs from the bridge's defaults for an endpoint's port.
func (s *Store) setPort(n *network, e *Endpoint) error {
	l, err := s.waitUp(e.HostLink)
	if err == nil && (!n.icc() || s.bridged) {
		err = s.route.Do(rtnl.SetPort(l.Index, !n.icc(), s.bridged))
	}
	if err != nil {
		return fmt.Errorf("set up bridge port %s: %w", e.HostLink, err)
	}
	return nil
}

// waitUp waits until a bridge's port passes frames. The kernel notices in the
// background that a pair has become whole; what a container sends before that
// is lost, and it waits a whole second before it asks for its gateway again.
// Kernels since 6.9 catch up when they are asked for the link.
func (s *Store) waitUp(name string) (rtnl.Link, error) {
	l, err := s.route.Link(name)
	for i := 0; i < 100 && err == nil && l.State != rtnl.StateUp; i++ {
		time.Sleep(100 * time.Microsecond << min(i, 5))
		l, err = s.route.Link(name)
	}
	return l, err
}

// startProxies serves an endpoint's ports on [::1] if the kernel cannot.
func (s *Store) startProxies(e *Endpoint) {
	if !s.bridged || !e.IPv6.IsValid() {
		return
	}
	for _, m := range e.Ports {
		if !m.HostIP.Is6() || !m.HostIP.IsUnspecified() && !m.HostIP.IsLoopback() {
			continue
		}
		list := s.ports.byPort[portKey{m.Protocol, m.HostPort}]
		for i, o := range list {
			if o.endpoint != e.ID || o.addr != m.HostIP || o.proxy != nil || o.socket < 0 {
				continue
			}
			p, err := startProxy(m.Protocol, o.socket, netip.AddrPortFrom(e.IPv6.Addr(), m.ContainerPort))
			if err != nil {
				s.warn("port %d/%s does not answer on [::1]: %v", m.HostPort, m.Protocol, err)
				continue
			}
			list[i].proxy = p
		}
	}
}

// proxy passes on what arrives at a bound socket. Since the table translates
// everything else, only connections to ::1 do.
type proxy struct {
	stop func()
	done sync.WaitGroup
}

func startProxy(protocol string, socket int, to netip.AddrPort) (*proxy, error) {
	fd, err := unix.FcntlInt(uintptr(socket), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "published port")
	defer f.Close()
	p := &proxy{}
	switch protocol {
	case "tcp":
		// Accepted connections inherit it: without it one that lingers in TIME_WAIT would keep the port from the next
		// container, or the next engine, for a minute.
		unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		if err := unix.Listen(socket, 128); err != nil {
			return nil, err
		}
		l, err := net.FileListener(f)
		if err != nil {
			return nil, err
		}
		p.stop = func() {
			l.Close()
			unix.Shutdown(socket, unix.SHUT_RD)
			unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
		}
		p.done.Go(func() { serveTCP(l, to) })
	case "udp":
		unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUF, 256<<10)
		c, err := net.FilePacketConn(f)
		if err != nil {
			return nil, err
		}
		p.stop = func() { c.Close() }
		p.done.Go(func() { serveUDP(c.(*net.UDPConn), to) })
	default:
		p.stop = func() {}
	}
	return p, nil
}

func (p *proxy) close() {
	p.stop()
	p.done.Wait()
}

func serveTCP(l net.Listener, to netip.AddrPort) {
	for {
		c, err := l.Accept()
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				continue
			}
			return
		}
		go passTCP(c.(*net.TCPConn), to)
	}
}

// passTCP joins two connections. Each direction ends by itself, so that a
// peer that has sent everything can still receive.
func passTCP(c *net.TCPConn, to netip.AddrPort) {
	defer c.Close()
	d, err := net.DialTimeout("tcp", to.String(), 10*time.Second)
	if err != nil {
		c.SetLinger(0) // refuse, as the container did
		return
	}
	o := d.(*net.TCPConn)
	defer o.Close()
	var half sync.WaitGroup
	half.Go(func() {
		io.Copy(o, c)
		o.CloseWrite()
	})
	io.Copy(c, o)
	c.CloseWrite()
	half.Wait()
}

const (
	udpIdle  = 60 * time.Second
	udpFlows = 1024 // at most, for each port
)

// serveUDP keeps one socket towards the container for each peer.
func serveUDP(c *net.UDPConn, to netip.AddrPort) {
	var mu sync.Mutex
	flows := map[netip.AddrPort]*net.UDPConn{}
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		for _, f := range flows {
			f.Close()
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, peer, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		mu.Lock()
		f := flows[peer]
		if f == nil && len(flows) < udpFlows {
			if f, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to)); err == nil {
				flows[peer] = f
				go func() {
					answerUDP(c, f, peer)
					mu.Lock()
					delete(flows, peer)
					mu.Unlock()
					f.Close()
				}()
			}
		}
		mu.Unlock()
		if f != nil {
			f.SetReadDeadline(time.Now().Add(udpIdle))
			f.Write(buf[:n])
		}
	}
}

func answerUDP(c, f *net.UDPConn, peer netip.AddrPort) {
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		if err != nil {
			if errors.Is(err, unix.ECONNREFUSED) {
				continue // nobody listens inside, yet
			}
			return
		}
		f.SetReadDeadline(time.Now().Add(udpIdle))
		c.WriteToUDPAddrPort(buf[:n], peer)
	}
}
