package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"cale/engine"
	"cale/runtime/linux"
)

// dialTimeout is in seconds.
const dialTimeout = 5

// PortForward connects a stream with a port of a pod's loopback.
func (x streamer) PortForward(ctx context.Context, pod string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	if port < 1 || port > 65535 {
		return fmt.Errorf("port %d: not a port number", port)
	}
	p, err := x.s.engine.Pod(pod)
	if err != nil {
		return err
	}
	if !p.Ready {
		return &engine.Error{Class: engine.ErrConflict, Text: "pod " + p.ID + " is not ready"}
	}
	conn, err := dialIn(p.NetNS, int(port))
	if err != nil {
		return fmt.Errorf("port %d of pod %s: %w", port, p.ID, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close(); stream.Close() })
	defer stop()
	var done sync.WaitGroup
	done.Go(func() {
		_, _ = io.Copy(conn, stream)
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	})
	_, err = io.Copy(stream, conn)
	// What the pod closed is closed: the client's half may stay open for ever otherwise.
	stream.Close()
	done.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// dialIn connects to a port of the loopback of a network namespace ("" is the host's). The socket is made by a thread
// in that namespace and stays in it.
func dialIn(netns string, port int) (net.Conn, error) {
	fd, err := -1, error(nil)
	if netns == "" {
		fd, err = connectLoopback(port)
	} else {
		linux.InThread(func() {
			var ns int
			if ns, err = unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
				return
			}
			err = unix.Setns(ns, unix.CLONE_NEWNET)
			unix.Close(ns)
			if err == nil {
				fd, err = connectLoopback(port)
			}
		})
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "port")
	defer f.Close()
	return net.FileConn(f)
}

// connectLoopback connects to a port of the thread's loopback, by IPv6 if nothing listens by IPv4.
func connectLoopback(port int) (int, error) {
	fd, err := connect(unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	if err != nil {
		if fd6, err6 := connect(unix.AF_INET6, &unix.SockaddrInet6{Port: port, Addr: [16]byte{15: 1}}); err6 == nil {
			return fd6, nil
		}
	}
	return fd, err
}

func connect(family int, to unix.Sockaddr) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	tv := unix.Timeval{Sec: dialTimeout}
	if err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err == nil {
		err = unix.Connect(fd, to)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
