package filetree

import (
	"bytes"
	"strings"

	"golang.org/x/sys/unix"
)

// maxXattr is the kernel's bound on a value and on a list, in bytes.
const maxXattr = 64 << 10

// PortableXattr tells the extended attributes that belong to a file's content:
// they are carried by archives and copies. Overlay's own attributes would let
// whoever made the file steer the mount (redirects, opaque directories), and
// labels of security modules belong to the machine, not to the file.
func PortableXattr(name string) bool {
	switch name {
	case "security.capability", "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") && len(name) > len("user.") &&
		!strings.HasPrefix(name, "user.overlay.")
}

// Xattrs reads the portable attributes of the file name in dir (not followed),
// nil if there are none.
func Xattrs(dir int, name string) (map[string][]byte, error) {
	path := fdPath(dir) + "/" + name
	var stack [512]byte
	buf := stack[:]
	n, err := unix.Llistxattr(path, buf)
	if err == unix.ERANGE {
		buf = make([]byte, maxXattr)
		n, err = unix.Llistxattr(path, buf)
	}
	if err == unix.ENOTSUP || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all map[string][]byte
	for key := range bytes.SplitSeq(bytes.TrimSuffix(buf[:n], []byte{0}), []byte{0}) {
		k := string(key)
		if !PortableXattr(k) {
			continue
		}
		v, err := Xattr(dir, name, k)
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = map[string][]byte{}
		}
		all[k] = v
	}
	return all, nil
}

// Xattr reads one attribute of the file name in dir, which is not followed.
func Xattr(dir int, name, key string) ([]byte, error) {
	path := fdPath(dir) + "/" + name
	buf := make([]byte, 256)
	for {
		n, err := unix.Lgetxattr(path, key, buf)
		if err == unix.ERANGE && len(buf) < maxXattr {
			buf = make([]byte, maxXattr)
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}

// SetXattr sets one attribute of the file name in dir, which is not followed.
func SetXattr(dir int, name, key string, value []byte) error {
	return unix.Lsetxattr(fdPath(dir)+"/"+name, key, value, 0)
}
