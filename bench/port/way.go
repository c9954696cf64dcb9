package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// way is where a client is and what address it asks; without a namespace it is where we are.
type way struct {
	name    string
	netns   *os.File
	address string
}

// Addresses of the link between this machine and the other, set aside for benchmarks by RFC 2544.
const hostAddress, otherAddress = "198.18.0.1", "198.18.0.2"

// another makes the network namespace that is another machine, and the link to it.
func another() (ns *os.File, end func(), err error) {
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with us
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- err
			return
		}
		ns, err = os.Open("/proc/thread-self/ns/net")
		made <- err
	}()
	if err := <-made; err != nil {
		return nil, nil, fmt.Errorf("make a network namespace: %w", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "bench0"
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "bench1", PeerNamespace: netlink.NsFd(int(ns.Fd()))}
	if err := netlink.LinkAdd(pair); err != nil {
		return nil, nil, fmt.Errorf("link to it: %w", err)
	}
	err = errors.Join(raise("bench0", hostAddress), within(ns, func() error { return raise("bench1", otherAddress) }))
	return ns, func() { _ = netlink.LinkDel(pair); _ = ns.Close() }, err
}

func raise(name, address string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(address + "/24")
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(link, a), netlink.LinkSetUp(link))
}

// within does something in a network namespace.
func within(ns *os.File, do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with us
		err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

// dial connects and says what it wants.
func (w way) dial(port int, wish byte) (c net.Conn, err error) {
	connect := func() (err error) {
		c, err = net.DialTimeout("tcp", fmt.Sprintf("%s:%d", w.address, port), 5*time.Second)
		return err
	}
	if w.netns != nil {
		err = within(w.netns, connect) // a socket stays in the namespace that it was made in
	} else {
		err = connect()
	}
	if err == nil {
		err = c.SetDeadline(time.Now().Add(*duration + 20*time.Second))
	}
	if err == nil {
		_, err = c.Write([]byte{wish})
	}
	return c, err
}

// measure does one round.
func (w way) measure(f *figures, port int) error {
	b := make([]byte, 128<<10)
	flow := func(wish byte, some func(c net.Conn) (int, error)) (float64, error) {
		c, err := w.dial(port, wish)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		bytes, began := 0, time.Now()
		for time.Since(began) < *duration {
			n, err := some(c)
			if err != nil {
				return 0, err
			}
			bytes += n
		}
		return float64(bytes) * 8 / 1e9 / time.Since(began).Seconds(), nil
	}
	down, err := flow('d', func(c net.Conn) (int, error) { return c.Read(b) })
	if err != nil {
		return err
	}
	up, err := flow('u', func(c net.Conn) (int, error) { return c.Write(b) })
	if err != nil {
		return err
	}
	c, err := w.dial(port, 'e')
	if err != nil {
		return err
	}
	defer c.Close()
	var answers []time.Duration
	for range 2000 {
		began := time.Now()
		if _, err := c.Write(b[:1]); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, b[:1]); err != nil {
			return err
		}
		answers = append(answers, time.Since(began))
	}
	f.down, f.up, f.answer = append(f.down, down), append(f.up, up), append(f.answer, median(answers))
	return nil
}
