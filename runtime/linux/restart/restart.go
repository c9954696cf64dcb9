// Package restart executes the program anew, so that it can't be written to, before the rest of it is initialised.
//
// It does what linux.ExecUnwritable does in most cases, only sooner: a program that finds out late that it has to start
// again has started in vain. Whatever it can't do it leaves to that call, which is still to be made. A program that is
// to be restarted imports this package; package rawcall says what that costs. Where it is linked with -E _cale_start it
// does the same even before Go starts.
package restart

import (
	"unsafe"

	"cale/runtime/linux/rawcall"
)

// Of linux/fcntl.h, linux/mount.h and linux/stat.h.
const (
	cwd             = -100      // AT_FDCWD
	noFollow        = 0x100     // AT_SYMLINK_NOFOLLOW
	effective       = 0x200     // AT_EACCESS
	emptyPath       = 0x1000    // AT_EMPTY_PATH
	clone           = 1         // OPEN_TREE_CLONE
	closeOnExec     = 0o2000000 // OPEN_TREE_CLOEXEC
	readOnly        = 1         // MOUNT_ATTR_RDONLY
	mayWrite        = 2         // W_OK
	basicStats      = 0x7ff     // STATX_BASIC_STATS
	readOnlyFS      = -30       // EROFS
	typeMask, plain = 0o170000, 0o100000
)

// maxPath is the longest program's path that is restarted from here.
const maxPath = 1000

func init() {
	if named() {
		fromReadOnlyMount()
	}
}

// named reports whether an argument may be one of the commands that have a process among a container's. Any other
// argument of that name costs a restart.
func named() bool {
	n, arguments, _ := rawcall.Arguments()
	for i := 1; i < n; i++ {
		switch text(*(**byte)(unsafe.Add(arguments, uintptr(i)*unsafe.Sizeof(arguments)))) {
		case "create", "exec", "run":
			return true
		}
	}
	return false
}

// text is as much of a C string as the commands' names need.
func text(s *byte) string {
	for n := range 8 {
		if *(*byte)(unsafe.Add(unsafe.Pointer(s), n)) == 0 {
			return unsafe.String(s, n)
		}
	}
	return ""
}

// statx is struct statx.
type statx struct {
	_    [28]byte
	mode uint16
	_    [2]byte
	ino  uint64
	_    [96]byte
	dev  [2]uint32
	_    [112]byte
}

// What system calls read and write lies here, where it does not move.
var (
	self     = [...]byte{'/', 'p', 'r', 'o', 'c', '/', 's', 'e', 'l', 'f', '/', 'e', 'x', 'e', 0}
	path     [maxPath + 1]byte
	again    [maxPath + 64]byte
	empty    [1]byte
	attr     = [4]uint64{readOnly} // struct mount_attr
	one, two statx
)

// call is a system call on a path below an open directory.
func call(number uintptr, dir int, path *byte, rest ...uintptr) int {
	var more [3]uintptr
	copy(more[:], rest)
	return rawcall.Syscall(number, uintptr(dir), uintptr(unsafe.Pointer(path)), more[0], more[1], more[2], 0)
}

// fromReadOnlyMount returns if the program needs no restart, or can't have one from here.
func fromReadOnlyMount() {
	if call(rawcall.Faccessat2, cwd, &self[0], mayWrite, effective) != 0 {
		return
	}
	n := call(rawcall.Readlinkat, cwd, &self[0], uintptr(unsafe.Pointer(&path)), maxPath)
	if n <= 0 || n == maxPath || path[0] != '/' {
		return
	}
	slash := n
	for path[slash] != '/' {
		slash--
	}
	name := path[slash+1 : n+1]
	// Of the directory and not of the file, so that the process is named after the program.
	first := name[0]
	name[0] = 0
	dir := call(rawcall.OpenTree, cwd, &path[0], clone|closeOnExec)
	name[0] = first
	if dir < 0 {
		return
	}
	if call(rawcall.MountSetattr, dir, &empty[0], emptyPath, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr)) == 0 &&
		call(rawcall.Faccessat2, dir, &name[0], mayWrite, effective) == readOnlyFS &&
		call(rawcall.Statx, dir, &name[0], noFollow, basicStats, uintptr(unsafe.Pointer(&one))) == 0 &&
		call(rawcall.Statx, cwd, &self[0], 0, basicStats, uintptr(unsafe.Pointer(&two))) == 0 &&
		one.mode&typeMask == plain && one.ino == two.ino && one.dev == two.dev {
		execute(dir, name)
	}
	rawcall.Syscall(rawcall.Close, uintptr(dir), 0, 0, 0, 0, 0)
}

// execute does not return if it succeeds. name ends in a zero.
func execute(dir int, name []byte) {
	to := append(again[:0], "/proc/self/fd/"...)
	digits := 1
	for dir/digits >= 10 {
		digits *= 10
	}
	for ; digits > 0; digits /= 10 {
		to = append(to, '0'+byte(dir/digits%10))
	}
	to = append(append(to, '/'), name...)
	_, arguments, environment := rawcall.Arguments()
	rawcall.Syscall(rawcall.Execve, uintptr(unsafe.Pointer(&to[0])), uintptr(arguments), uintptr(environment), 0, 0, 0)
}
