package linux

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// SendFD connects to a Unix stream socket and sends data with a descriptor. (Package net does the same; for a
// program that lives for milliseconds its initialisation is too much.)
func SendFD(socket string, data []byte, fd int) error {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	for {
		err = unix.Connect(s, &unix.SockaddrUnix{Name: socket})
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("connect to %s: %w", socket, err)
	}
	n, err := unix.SendmsgN(s, data, unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL)
	for err == nil && n < len(data) {
		var m int
		m, err = unix.SendmsgN(s, data[n:], nil, nil, unix.MSG_NOSIGNAL)
		n += m
	}
	if err != nil {
		return fmt.Errorf("send to %s: %w", socket, err)
	}
	return nil
}

// InterfaceIndex is the index of a network interface of the caller's namespace.
func InterfaceIndex(name string) (int, error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFINDEX, req); err != nil {
		return 0, err
	}
	return int(req.Uint32()), nil
}
