package logfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// JournalSocket is where systemd's journal takes entries.
const JournalSocket = "/run/systemd/journal/socket"

// Journal is systemd's journal, which gets what the log gets.
type Journal struct {
	Socket string
	// Fields go with every entry. Their names are made to be the journal's:
	// upper case letters, digits and underscores, no underscore in front.
	Fields map[string]string
}

// journal sends entries by the journal's own protocol: a datagram of fields
// each, or a file of them if that is too large for one.
// Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL
type journal struct {
	fd     int
	to     unix.Sockaddr
	fields []byte
	again  time.Time // until then nothing is sent, as it was stuck
}

// Who waits for a journal that is stuck waits so long, and then not again for a
// while.
const (
	journalWait  = 200 * time.Millisecond
	journalPause = 5 * time.Second
)

func openJournal(j *Journal) (*journal, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	// A journal that is stuck is waited for a little: the container must not stand
	// still for it, and the log has the entry too.
	wait := unix.NsecToTimeval(int64(journalWait))
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20)
	out := &journal{fd: fd, to: &unix.SockaddrUnix{Name: j.Socket}}
	names := make([]string, 0, len(j.Fields))
	for name := range j.Fields {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if field := journalField(name); field != "" {
			out.fields = appendField(out.fields, field, []byte(j.Fields[name]))
		}
	}
	return out, nil
}

// journalField makes a name one that the journal takes; "" if nothing is left.
func journalField(name string) string {
	name = strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(name))
	name = strings.TrimLeft(name, "_0123456789")
	return name[:min(len(name), 64)]
}

// appendField writes a field by its length, so that its value may hold anything.
func appendField(b []byte, name string, value []byte) []byte {
	b = append(append(b, name...), '\n')
	b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	return append(append(b, value...), '\n')
}

// send sends a line, or a piece of one that is not whole yet. Priorities are
// Docker's: what goes to stderr is an error.
func (j *journal) send(s Stream, line []byte, at time.Time) error {
	if !j.again.IsZero() && time.Now().Before(j.again) {
		return unix.EAGAIN
	}
	j.again = time.Time{}
	text, whole := bytes.CutSuffix(line, []byte("\n"))
	priority := "6"
	if s == Stderr {
		priority = "3"
	}
	b := make([]byte, 0, len(j.fields)+len(line)+128)
	b = append(b, j.fields...)
	b = append(append(append(b, "PRIORITY="...), priority...), '\n')
	b = append(at.UTC().AppendFormat(append(b, "SYSLOG_TIMESTAMP="...), time.RFC3339Nano), '\n')
	if !whole && len(line) >= pieceSize {
		b = append(b, "CONTAINER_PARTIAL_MESSAGE=true\n"...)
	}
	b = appendField(b, "MESSAGE", text)
	err := unix.Sendto(j.fd, b, 0, j.to)
	if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) {
		err = j.sendFile(b)
	}
	if errors.Is(err, unix.EAGAIN) {
		j.again = time.Now().Add(journalPause)
	}
	return err
}

// sendFile sends an entry as a file without a name, sealed so that the journal
// takes it.
func (j *journal) sendFile(b []byte) error {
	fd, err := unix.MemfdCreate("journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "journal")
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL); err != nil {
		return err
	}
	return unix.Sendmsg(j.fd, nil, unix.UnixRights(int(f.Fd())), j.to, 0)
}

func (j *journal) close() { unix.Close(j.fd) }
