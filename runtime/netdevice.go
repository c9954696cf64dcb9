package runtime

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"syscall"

	"cale/runtime/launch"
	"cale/runtime/linux"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// moveNetDevices moves interfaces of the host into the container's network namespace, with their permanent global
// addresses, and brings them up. The kernel moves a physical one back when the namespace ends.
func moveNetDevices(s *specs.Spec, p *launch.Proc) error {
	if len(s.Linux.NetDevices) == 0 {
		return nil
	}
	ns, err := os.Open("/proc/" + strconv.Itoa(p.Pid) + "/ns/net")
	if err != nil {
		return err
	}
	defer ns.Close()
	for _, name := range slices.Sorted(maps.Keys(s.Linux.NetDevices)) {
		to := s.Linux.NetDevices[name].Name
		if to == "" {
			to = name
		}
		if len(to) >= unix.IFNAMSIZ {
			return fmt.Errorf("network device %s: name %q is too long", name, to)
		}
		if err := moveNetDevice(name, to, ns); err != nil {
			return fmt.Errorf("move network device %s to the container: %w", name, err)
		}
	}
	return nil
}

func moveNetDevice(name, to string, ns *os.File) error {
	index, err := linux.InterfaceIndex(name)
	if err != nil {
		return err
	}
	addrs, err := globalAddresses(index)
	if err != nil {
		return fmt.Errorf("list its addresses: %w", err)
	}
	here, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(here)
	m := newRequest(unix.RTM_NEWLINK, 0, unix.SizeofIfInfomsg)
	order.PutUint32(m.body(4), uint32(index))
	m.attr(unix.IFLA_NET_NS_FD, order.AppendUint32(nil, uint32(ns.Fd())))
	m.attr(unix.IFLA_IFNAME, append([]byte(to), 0))
	if err := m.send(here); err != nil {
		return err
	}
	there, index, err := socketIn(ns, to)
	if err != nil {
		return err
	}
	defer unix.Close(there)
	for _, a := range addrs {
		m := newRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, unix.SizeofIfAddrmsg)
		copy(m.body(0), []byte{a.family, a.prefix, 0, unix.RT_SCOPE_UNIVERSE})
		order.PutUint32(m.body(4), uint32(index))
		m.attr(unix.IFA_LOCAL, a.local)
		m.attr(unix.IFA_ADDRESS, a.address)
		if err := m.send(there); err != nil {
			return fmt.Errorf("add an address: %w", err)
		}
	}
	m = newRequest(unix.RTM_NEWLINK, 0, unix.SizeofIfInfomsg)
	order.PutUint32(m.body(4), uint32(index))
	order.PutUint32(m.body(8), unix.IFF_UP)
	order.PutUint32(m.body(12), unix.IFF_UP)
	if err := m.send(there); err != nil {
		return fmt.Errorf("bring it up: %w", err)
	}
	return nil
}

var order = binary.NativeEndian

// request is a netlink message (netlink(7)).
type request []byte

func newRequest(kind, flags uint16, header int) *request {
	m := make(request, unix.SizeofNlMsghdr+header)
	order.PutUint16(m[4:], kind)
	order.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	order.PutUint32(m[8:], 1)
	return &m
}

func (m *request) body(offset int) []byte { return (*m)[unix.SizeofNlMsghdr+offset:] }

func (m *request) attr(kind uint16, data []byte) {
	n := len(data) + 4
	*m = order.AppendUint16(order.AppendUint16(*m, uint16(n)), kind)
	*m = append(append(*m, data...), make([]byte, (4-n%4)%4)...)
}

// send sends the message and waits for the kernel's word.
func (m *request) send(fd int) error {
	order.PutUint32(*m, uint32(len(*m)))
	if err := unix.Sendto(fd, *m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 8192)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 || order.Uint16(buf[4:]) != unix.NLMSG_ERROR {
		return fmt.Errorf("unexpected answer of %d bytes", n)
	}
	if e := -int32(order.Uint32(buf[unix.SizeofNlMsghdr:])); e != 0 {
		return syscall.Errno(e)
	}
	return nil
}

// address is an address of an interface.
type address struct {
	family, prefix byte
	local, address []byte
}

// globalAddresses are an interface's addresses that somebody has set for good and that mean something elsewhere.
func globalAddresses(index int) ([]address, error) {
	raw, err := syscall.NetlinkRIB(unix.RTM_GETADDR, unix.AF_UNSPEC)
	if err != nil {
		return nil, err
	}
	msgs, err := syscall.ParseNetlinkMessage(raw)
	if err != nil {
		return nil, err
	}
	var list []address
	for _, m := range msgs {
		if m.Header.Type != unix.RTM_NEWADDR || len(m.Data) < unix.SizeofIfAddrmsg || int(order.Uint32(m.Data[4:])) != index {
			continue
		}
		if m.Data[3] != unix.RT_SCOPE_UNIVERSE || m.Data[2]&unix.IFA_F_PERMANENT == 0 {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return nil, err
		}
		a := address{family: m.Data[0], prefix: m.Data[1]}
		for _, at := range attrs {
			switch at.Attr.Type {
			case unix.IFA_LOCAL:
				a.local = at.Value
			case unix.IFA_ADDRESS:
				a.address = at.Value
			}
		}
		if a.local == nil {
			a.local = a.address // as IPv6 has it
		}
		list = append(list, a)
	}
	return list, nil
}

// socketIn opens a netlink socket of a network namespace, and finds an interface there.
func socketIn(ns *os.File, name string) (fd, index int, err error) {
	err = linux.InNamespace(ns, unix.CLONE_NEWNET, func() (err error) {
		if index, err = linux.InterfaceIndex(name); err != nil {
			return err
		}
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return -1, 0, err
	}
	return fd, index, nil
}
