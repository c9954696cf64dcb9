package runtime

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"

	"cale/runtime/launch"
	"cale/runtime/linux"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// moveNetDevices moves interfaces of the host into the container's network namespace. The kernel moves a physical
// one back when the namespace ends.
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
		if err := moveLink(name, to, int(ns.Fd())); err != nil {
			return fmt.Errorf("move network device %s to the container: %w", name, err)
		}
	}
	return nil
}

// moveLink is one RTM_NEWLINK message (rtnetlink(7)).
func moveLink(name, to string, ns int) error {
	index, err := linux.InterfaceIndex(name)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	order := binary.NativeEndian
	msg := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
	order.PutUint16(msg[4:], unix.RTM_NEWLINK)
	order.PutUint16(msg[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	order.PutUint32(msg[8:], 1)
	order.PutUint32(msg[unix.SizeofNlMsghdr+4:], uint32(index))
	attr := func(kind uint16, data []byte) {
		n := len(data) + 4
		msg = order.AppendUint16(order.AppendUint16(msg, uint16(n)), kind)
		msg = append(append(msg, data...), make([]byte, (4-n%4)%4)...)
	}
	attr(unix.IFLA_NET_NS_FD, order.AppendUint32(nil, uint32(ns)))
	attr(unix.IFLA_IFNAME, append([]byte(to), 0))
	order.PutUint32(msg, uint32(len(msg)))
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
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
		return unix.Errno(e)
	}
	return nil
}
