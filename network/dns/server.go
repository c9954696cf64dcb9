// Package dns answers the names of containers to containers, and asks other
// servers for all else.
package dns

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// Zone knows who may ask and what the answers are. Its methods may be called
// at the same time.
type Zone interface {
	// Lookup returns the addresses of a name as a client sees it. known is
	// false if the name is not one of ours; client is false if nobody with
	// this address may ask at all. The name is in lower case.
	Lookup(from netip.Addr, name string) (addrs []netip.Addr, known, client bool)
	// Reverse returns the name of an address, "" if it is not one of ours.
	Reverse(from netip.Addr, addr netip.Addr) string
	// Upstream returns the servers to ask for everything else; none means
	// that this client must get no answer from outside.
	Upstream(from netip.Addr) []netip.AddrPort
}

const (
	forwards     = 256             // queries under way at once; more are refused
	connections  = 64              // of clients by TCP
	tryFor       = 3 * time.Second // until the next server is asked
	clientIdle   = 10 * time.Second
	largestReply = 64 << 10
)

// Server answers on one UDP and one TCP socket.
type Server struct {
	zone    Zone
	udp     *net.UDPConn
	tcp     *net.TCPListener
	forward chan struct{}
	clients chan struct{}
}

// Listen starts a server on free ports of an address. The sockets belong to
// the network namespace of the calling thread.
func Listen(addr netip.Addr, zone Zone) (*Server, error) { return ListenPort(addr, 0, zone) }

// ListenPort starts a server on a given port.
func ListenPort(addr netip.Addr, port uint16, zone Zone) (*Server, error) {
	s := &Server{zone: zone, forward: make(chan struct{}, forwards), clients: make(chan struct{}, connections)}
	at := netip.AddrPortFrom(addr, port)
	var err error
	if s.udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)); err != nil {
		return nil, err
	}
	if s.tcp, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at)); err != nil {
		s.udp.Close()
		return nil, err
	}
	go s.serveUDP()
	go s.serveTCP()
	return s, nil
}

// Ports returns the ports that were free.
func (s *Server) Ports() (udp, tcp uint16) {
	return s.udp.LocalAddr().(*net.UDPAddr).AddrPort().Port(), s.tcp.Addr().(*net.TCPAddr).AddrPort().Port()
}

// Close stops the server. Queries under way get no answer.
func (s *Server) Close() error { return errors.Join(s.udp.Close(), s.tcp.Close()) }

func (s *Server) serveUDP() {
	buf := make([]byte, largestReply)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // such as lack of memory; never spin
			continue
		}
		client := from.Addr().Unmap()
		reply, servers := s.answer(client, buf[:n], maxUDP)
		if len(servers) == 0 {
			if reply != nil {
				s.udp.WriteToUDPAddrPort(reply, from)
			}
			continue
		}
		msg := append([]byte(nil), buf[:n]...)
		select {
		case s.forward <- struct{}{}:
		default:
			s.udp.WriteToUDPAddrPort(failure(msg, codeServFail), from)
			continue
		}
		go func() {
			defer func() { <-s.forward }()
			s.udp.WriteToUDPAddrPort(ask("udp", servers, msg), from)
		}()
	}
}

func (s *Server) serveTCP() {
	for {
		c, err := s.tcp.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		select {
		case s.clients <- struct{}{}:
			go func() {
				defer func() { <-s.clients }()
				s.serveConn(c)
			}()
		default:
			c.Close()
		}
	}
}

func (s *Server) serveConn(c *net.TCPConn) {
	defer c.Close()
	client := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	for {
		c.SetDeadline(time.Now().Add(clientIdle))
		msg, err := readFramed(c)
		if err != nil {
			return
		}
		reply, servers := s.answer(client, msg, 0xffff)
		if len(servers) > 0 {
			reply = ask("tcp", servers, msg)
		}
		if reply == nil || writeFramed(c, reply) != nil {
			return
		}
	}
}

// answer returns a reply, or the servers that have one.
func (s *Server) answer(from netip.Addr, msg []byte, limit int) (reply []byte, servers []netip.AddrPort) {
	q, err := parse(msg)
	if err != nil {
		return failure(msg, codeFormat), nil
	}
	addrs, known, client := s.zone.Lookup(from, q.name)
	if !client {
		return q.reply(codeRefused), nil
	}
	if opcode(msg) != 0 {
		return q.reply(codeNotImpl), nil
	}
	if q.class == classIN && known {
		var records [][]byte
		for _, a := range addrs {
			if a.Is4() && q.qtype == typeA || a.Is6() && q.qtype == typeAAAA {
				records = append(records, a.AsSlice())
			}
		}
		// Several containers with one name share what comes.
		rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		return q.answer(records, limit), nil
	}
	if q.class == classIN && q.qtype == typePTR {
		if a, ok := reverse(q.name); ok {
			if name := encodeName(s.zone.Reverse(from, a)); name != nil {
				return q.answer([][]byte{name}, limit), nil
			}
		}
	}
	if servers = s.zone.Upstream(from); len(servers) == 0 {
		return q.reply(codeServFail), nil
	}
	return nil, servers
}

// ask asks one server after the other. A reply that is a failure of that
// server's is only used if no other has a better one.
func ask(network string, servers []netip.AddrPort, msg []byte) []byte {
	var last []byte
	for _, server := range servers[:min(len(servers), 3)] {
		reply, err := exchange(network, server, msg)
		if err != nil {
			continue
		}
		if code := reply[3] & 15; code != codeServFail && code != codeRefused {
			return reply
		}
		last = reply
	}
	if last != nil {
		return last
	}
	return failure(msg, codeServFail)
}

// exchange asks one server. A new socket for each query has a source port
// nobody can guess.
func exchange(network string, server netip.AddrPort, msg []byte) ([]byte, error) {
	c, err := net.DialTimeout(network, server.String(), tryFor)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(tryFor))
	if network == "tcp" {
		if err := writeFramed(c, msg); err != nil {
			return nil, err
		}
	} else if _, err := c.Write(msg); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096) // more than any client announces
	for {
		var reply []byte
		if network == "tcp" {
			reply, err = readFramed(c)
		} else {
			var n int
			n, err = c.Read(buf)
			reply = buf[:n]
		}
		if err != nil {
			return nil, err
		}
		if len(reply) >= headerLen && reply[0] == msg[0] && reply[1] == msg[1] && reply[2]&0x80 != 0 {
			return reply, nil
		}
		if network == "tcp" {
			return nil, errFormat
		}
	}
}

func readFramed(r io.Reader) ([]byte, error) {
	var n [2]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	b := make([]byte, big.Uint16(n[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeFramed(w io.Writer, b []byte) error {
	_, err := w.Write(append(big.AppendUint16(nil, uint16(len(b))), b...))
	return err
}
