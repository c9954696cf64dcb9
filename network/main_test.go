package network

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cale/network/rtnl"
)

const patience = 30 * time.Second

// TestMain runs the tests in a network and mount namespace of their own: they
// have a "host" to themselves, and whatever they leave ends with them.
func TestMain(m *testing.M) {
	const mark = "CALE_NETWORK_TEST"
	if os.Getuid() != 0 {
		fmt.Println("skipped: needs root for network namespaces")
		os.Exit(0)
	}
	if os.Getenv(mark) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), mark+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
		if err := cmd.Run(); err != nil {
			if _, failed := err.(*exec.ExitError); !failed {
				fmt.Println("make namespaces for the tests:", err)
			}
			os.Exit(1)
		}
		os.Exit(0)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		fmt.Println("make mounts private:", err)
		os.Exit(1)
	}
	c, err := rtnl.Open()
	if err == nil {
		err = c.Do(rtnl.SetUp(1))
	}
	if err != nil {
		fmt.Println("bring loopback up:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// box is a network namespace as a container has one.
type box struct {
	t    testing.TB
	path string
	fd   int
}

func newBox(t testing.TB) *box {
	t.Helper()
	path := filepath.Join(tempDir(t), "net")
	if err := NewNamespace(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := RemoveNamespace(path); err != nil {
			t.Error(err)
		}
	})
	fd, err := openNamespace(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &box{t, path, fd}
}

func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "network-test-")
	if err != nil {
		t.Skip("needs /dev/shm:", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// serve answers every TCP connection and UDP datagram on a port with the
// peer's address as the container sees it.
func (b *box) serve(port uint16) {
	b.t.Helper()
	err := rtnl.In(b.fd, func() error {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		p, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		b.t.Cleanup(func() { l.Close(); p.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, c.RemoteAddr().String())
				c.Close()
			}
		}()
		go func() {
			buf := make([]byte, 100)
			for {
				_, from, err := p.ReadFrom(buf)
				if err != nil {
					return
				}
				p.WriteTo([]byte(from.String()), from)
			}
		}()
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// ask connects from the box, or from the host if b is nil, and returns what
// serve answers.
func (b *box) ask(network, addr string, timeout time.Duration) (answer string, err error) {
	var c net.Conn
	dial := func() error {
		c, err = net.DialTimeout(network, addr, timeout)
		return err
	}
	if b == nil {
		err = dial()
	} else {
		err = rtnl.In(b.fd, dial)
	}
	if err != nil {
		return "", err
	}
	defer c.Close()
	deadline := time.Now().Add(timeout)
	buf := make([]byte, 100)
	for {
		if network[:3] == "udp" {
			c.Write([]byte("?"))
		}
		c.SetReadDeadline(min2(deadline, time.Now().Add(time.Second)))
		n, err := c.Read(buf)
		if err == nil {
			return string(buf[:n]), nil
		}
		if time.Now().After(deadline) || network[:3] != "udp" && !os.IsTimeout(err) {
			return "", err
		}
	}
}

func min2(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func openStore(t testing.TB, cfg Config) *Store {
	t.Helper()
	if cfg.RunDir == "" {
		dir := tempDir(t)
		cfg.RunDir, cfg.StateDir = filepath.Join(dir, "run"), filepath.Join(dir, "state")
	}
	cfg.Warn = func(s string) { t.Log("warning:", s) }
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.mu.Lock()
		var ids []string
		for id := range s.containers {
			ids = append(ids, id)
		}
		s.mu.Unlock()
		for _, id := range ids {
			s.Detach(t.Context(), id)
		}
		if err := s.Teardown(); err != nil {
			t.Error("teardown:", err)
		}
		s.Close()
	})
	return s
}

// outside makes another machine beside the host: 198.51.100.1 is the host's
// address towards it, 198.51.100.2 its own; likewise 2001:db8::1 and ::2.
func outside(t testing.TB) *box {
	t.Helper()
	b := newBox(t)
	c, err := rtnl.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Do(rtnl.NewVeth(rtnl.Veth{Name: "wan", Peer: "wan", PeerNS: b.fd})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c, err := rtnl.Open(); err == nil {
			c.Do(rtnl.DelLink("wan"))
			c.Close()
		}
	})
	in, err := rtnl.OpenIn(b.fd)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for i, conn := range []*rtnl.Conn{c, in} {
		l, err := conn.Link("wan")
		if err != nil {
			t.Fatal(err)
		}
		a4 := netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)})
		a6 := nth(netip.MustParsePrefix("2001:db8::/64"), uint32(i+1))
		if err := conn.Do(rtnl.SetUp(l.Index), rtnl.NewAddr(l.Index, netip.PrefixFrom(a4, 24)), rtnl.NewAddr(l.Index, netip.PrefixFrom(a6, 64))); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func attach(t testing.TB, s *Store, b *box, a Attach) *Endpoint {
	t.Helper()
	a.NetNS = b.path
	e, err := s.Attach(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// addRoute sends a destination to the box's gateway; addRouteVia to another.
func addRoute(t testing.TB, b *box, dst string) { addRouteVia(t, b, dst, "") }

func addRouteVia(t testing.TB, b *box, dst, via string) {
	t.Helper()
	args := []string{"--net=" + b.path, "ip", "route", "replace", dst}
	if via == "" {
		args = append(args, "dev", "eth0", "scope", "link", "table", "local")
	} else {
		args = append(args, "via", via)
	}
	if out, err := exec.Command("nsenter", args...).CombinedOutput(); err != nil {
		t.Skipf("needs nsenter and ip: %v: %s", err, out)
	}
}
