// Package landlock reads what a container may do by Landlock's rules, which an annotation has, and knows what of it the
// kernel can hold it to (landlock(7)).
//
// The annotation's value is a list of rules, separated by spaces:
//
//	read=PATH      files below PATH may be read and executed, directories listed
//	write=PATH     all may be done below PATH, devices and links between directories included
//	bind=PORT      a TCP socket may listen at PORT
//	connect=PORT   a TCP socket may be connected to PORT
//	scope=signal   processes outside may not be signalled
//	scope=abstract abstract Unix sockets of others outside may not be connected to
//
// What no rule allows is refused: any rule with a path holds for the whole tree, any with bind for all ports to listen
// at, any with connect for all to connect to. "bind=none" and "connect=none" allow none. Paths are the container's.
package landlock

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Annotation is the key of the annotation that has the rules. Without it nothing is restricted.
const Annotation = "cale.landlock"

// Rules are what an annotation says.
type Rules struct {
	Paths []Path
	Ports []Port
	// Files, bind and connect are what is held to rules; Scoped are LANDLOCK_SCOPE_*.
	files, bind, connect bool
	scoped               uint64
}

// Path is a rule of files below a path in the container.
type Path struct {
	Path  string
	Write bool
}

// Port is a rule of a TCP port.
type Port struct {
	Port   uint16
	Access uint64 // LANDLOCK_ACCESS_NET_*
}

// maxRules bounds an annotation's rules.
const maxRules = 1024

// Parse reads an annotation's value.
func Parse(text string) (*Rules, error) {
	r := &Rules{}
	words := strings.Fields(text)
	if len(words) == 0 || len(words) > maxRules {
		return nil, fmt.Errorf("annotation %s: %d rules, not 1 to %d", Annotation, len(words), maxRules)
	}
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		err := r.add(key, value)
		if err != nil {
			return nil, fmt.Errorf("annotation %s: rule %q: %w", Annotation, w, err)
		}
	}
	return r, nil
}

func (r *Rules) add(key, value string) error {
	switch key {
	case "read", "write":
		if !path.IsAbs(value) || strings.ContainsRune(value, 0) {
			return errors.New("not an absolute path")
		}
		r.files = true
		r.Paths = append(r.Paths, Path{value, key == "write"})
	case "bind", "connect":
		access := uint64(unix.LANDLOCK_ACCESS_NET_BIND_TCP)
		if key == "bind" {
			r.bind = true
		} else {
			r.connect, access = true, unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		}
		if value == "none" {
			return nil
		}
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil {
			return errors.New("neither a port nor none")
		}
		r.Ports = append(r.Ports, Port{uint16(n), access})
	case "scope":
		switch value {
		case "signal":
			r.scoped |= unix.LANDLOCK_SCOPE_SIGNAL
		case "abstract":
			r.scoped |= unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		default:
			return errors.New("no such scope: signal or abstract")
		}
	default:
		return errors.New("no such rule: read, write, bind, connect or scope")
	}
	return nil
}

// ABI asks the kernel which version of Landlock it has.
func ABI() (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch errno {
	case 0:
		return int(n), nil
	case unix.ENOSYS, unix.EOPNOTSUPP:
		return 0, errors.New("landlock: this kernel does not have it, or it is not among its active security modules (lsm=)")
	}
	return 0, fmt.Errorf("landlock: %w", errno)
}

// Attr is struct landlock_ruleset_attr: what is refused where no rule allows it.
type Attr struct{ Files, Net, Scoped uint64 }

// Rights of files that came with versions of the kernel's Landlock.
const (
	readRights  = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	firstRights = unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1
	fileRights  = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// Attr works out what a kernel of some version is to refuse. What it can't hold anything to, but was asked for, is an
// error; rights that it has never heard of can't be refused and aren't.
func (r *Rules) Attr(abi int) (Attr, error) {
	var a Attr
	if r.files {
		a.Files = firstRights
		for _, later := range []struct {
			abi   int
			right uint64
		}{{2, unix.LANDLOCK_ACCESS_FS_REFER}, {3, unix.LANDLOCK_ACCESS_FS_TRUNCATE}, {5, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV}} {
			if abi >= later.abi {
				a.Files |= later.right
			}
		}
	}
	if r.bind {
		a.Net |= unix.LANDLOCK_ACCESS_NET_BIND_TCP
	}
	if r.connect {
		a.Net |= unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	a.Scoped = r.scoped
	switch {
	case abi < 4 && a.Net != 0:
		return a, fmt.Errorf("landlock: rules of ports need Linux 6.7 (version 4), this kernel has version %d", abi)
	case abi < 6 && a.Scoped != 0:
		return a, fmt.Errorf("landlock: scopes need Linux 6.12 (version 6), this kernel has version %d", abi)
	}
	return a, nil
}

// Size is how much of the structure a kernel of some version knows.
func (a Attr) Size(abi int) int {
	switch {
	case abi < 4:
		return 8
	case abi < 6:
		return 16
	}
	return int(unsafe.Sizeof(a))
}

// Access is what a rule of a path allows, of what is refused otherwise: for directories, and for what is none.
func (a Attr) Access(p Path) (dir, file uint64) {
	allowed := a.Files
	if !p.Write {
		allowed &= readRights
	}
	return allowed, allowed & fileRights
}
