// Package keep lets a process's ends of its streams, and its pidfd, outlive the supervisor that watches them. One
// keeper serves all supervisors of an instance: it only holds descriptors, so nothing of it has a reason to fail.
// Whoever takes over from a supervisor that died asks it for what that one had.
//
// A message is one packet on a Unix socket, on a connection of its own but for Take's answer and Watch: packets that
// one supervisor sends one after the other arrive in that order, and what is on its way is safe even if the sender
// dies the next moment.
package keep

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"cale/shim/stdio"
	"cale/wire"
)

// Key names a process: of which supervisor, of which container, and which exec ("" for the container's first process).
type Key struct{ Supervisor, Container, Exec string }

// Files are what is held of a process, nil where there is none: the writing end of its input, the reading ends of its
// outputs, or its terminal's master; and its pidfd.
type Files struct {
	Stdio stdio.Ends
	Pidfd *os.File
}

// Entry is one process with what is held of it.
type Entry struct {
	Key
	Pid int
	// Request is what the process was made by, for the supervisor alone to understand.
	Request []byte
	Files   Files
}

// maxPacket bounds a message. It is below what the kernel takes as one packet by default.
const maxPacket = 160 << 10

// patience is how long one end waits for the other.
const patience = 5 // seconds

// The messages' kinds.
const (
	kindPut = iota + 1
	kindCloseInput
	kindDrop
	kindTake
	kindWatch
	kindEnd // of the answer to take
)

// slots is how many descriptors a message has at most.
const slots = 5

type message struct {
	kind    uint64
	key     Key
	pid     uint64
	request []byte
	mask    uint64 // which of the slots come with it
	fds     [slots]int
}

func (m *message) append(b []byte) []byte {
	b = wire.AppendUint(b, 1, m.kind)
	b = wire.AppendString(b, 2, m.key.Supervisor)
	b = wire.AppendString(b, 3, m.key.Container)
	b = wire.AppendString(b, 4, m.key.Exec)
	b = wire.AppendUint(b, 5, m.pid)
	if len(m.request) > 0 {
		b = wire.AppendBytes(b, 6, m.request)
	}
	return wire.AppendUint(b, 7, m.mask)
}

func (m *message) unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		switch f.ID {
		case 1:
			m.kind = f.Num
		case 2:
			m.key.Supervisor = string(f.Data)
		case 3:
			m.key.Container = string(f.Data)
		case 4:
			m.key.Exec = string(f.Data)
		case 5:
			m.pid = f.Num
		case 6:
			m.request = append([]byte(nil), f.Data...)
		case 7:
			m.mask = f.Num
		}
		return nil
	})
}

// send writes the message as one packet; its descriptors stay the caller's.
func (m *message) send(socket int) error {
	var fds []int
	m.mask = 0
	for i, fd := range m.fds {
		if fd >= 0 {
			m.mask |= 1 << i
			fds = append(fds, fd)
		}
	}
	b := m.append(nil)
	if len(b) > maxPacket {
		return fmt.Errorf("message of %d bytes is too large", len(b))
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(socket, b, rights, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// errEnd tells that the other end has closed.
var errEnd = errors.New("the keeper's connection has ended")

// receive reads a packet into m; its descriptors are the caller's.
func (m *message) receive(socket int, buf []byte) error {
	m.fds = [slots]int{-1, -1, -1, -1, -1}
	oob := make([]byte, unix.CmsgSpace(slots*4))
	var n, oobn, flags int
	var err error
	for {
		n, oobn, flags, _, err = unix.Recvmsg(socket, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return os.NewSyscallError("recvmsg", err)
	}
	fds := rights(oob[:oobn])
	if n == 0 {
		closeAll(fds)
		return errEnd
	}
	if err = m.unmarshal(buf[:n]); err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = errors.New("message cut short")
	}
	if err != nil {
		closeAll(fds)
		return err
	}
	for i := range slots {
		if m.mask&(1<<i) != 0 && len(fds) > 0 {
			m.fds[i], fds = fds[0], fds[1:]
		}
	}
	closeAll(fds)
	return nil
}

func rights(oob []byte) (fds []int) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range msgs {
		if got, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
