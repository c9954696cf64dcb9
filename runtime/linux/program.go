package linux

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Program is an executable that can be started but not be written to, by anyone who reaches it through the process.
//
// Processes in a container reach the file of a runtime that works among them by /proc/<pid>/exe; they can even have it
// executed again, by naming /proc/self/exe as an interpreter, and then keep it open until it may be written
// (CVE-2019-5736). The way that they reach it by is the mount it was executed from: that is a read-only one here.
type Program struct {
	// Path is to be executed while the Program is open, by this process or its children.
	Path string
	file *os.File
}

// Close lets the program's file go; processes that run it are not disturbed.
func (p *Program) Close() error {
	if p.file == nil {
		return nil
	}
	return p.file.Close()
}

// OpenProgram opens an executable file for such starts. Where read-only mounts can't be made, a file that this process
// may not write serves as it is, and any other is copied to memory that nobody may write.
func OpenProgram(file string) (*Program, error) {
	file, err := filepath.EvalSymlinks(file)
	if err != nil {
		return nil, err
	}
	p, err := mountProgram(file)
	if err == nil {
		return p, nil
	}
	if unwritable(unix.AT_FDCWD, file) {
		return &Program{Path: file}, nil
	}
	p, memErr := copyProgram(file)
	if memErr != nil {
		return nil, fmt.Errorf("make %s unwritable: %w", file, errors.Join(err, memErr))
	}
	return p, nil
}

// ExecUnwritable returns if this process can't be written to, and otherwise executes its program anew so that it
// can't. It is to be called before anything else is done: on success it does not return.
func ExecUnwritable() error {
	const self = "/proc/self/exe"
	if unwritable(unix.AT_FDCWD, self) || sealed(self) {
		return nil
	}
	name, err := os.Readlink(self)
	if err != nil {
		return err
	}
	p, err := mountProgram(name)
	if err == nil && !same(p.Path, self) {
		p.Close()
		err = fmt.Errorf("%s was replaced", name)
	}
	if err != nil {
		if p, err = copyProgram(self); err != nil {
			return fmt.Errorf("make this program unwritable: %w", err)
		}
	}
	return fmt.Errorf("execute %s: %w", p.Path, syscall.Exec(p.Path, os.Args, os.Environ()))
}

// CoverUnwritable makes a file one that can't be written to by its name, nor by those who see a process that executes it
// from then on. It is for callers with a mount namespace of their own, where the file keeps its name.
func CoverUnwritable(file string) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, file, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return &os.PathError{Op: "open_tree", Path: file, Err: err}
	}
	defer unix.Close(fd)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return &os.PathError{Op: "mount_setattr", Path: file, Err: err}
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, file, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "move_mount", Path: file, Err: err}
	}
	return nil
}

// mountProgram makes a read-only mount of the program's directory, seen by nobody else. Of the directory and not of
// the file, so that the process is named after the program.
func mountProgram(file string) (*Program, error) {
	if !filepath.IsAbs(file) {
		return nil, fmt.Errorf("%s is not an absolute path", file)
	}
	dir, name := filepath.Split(file)
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "mount_setattr", Path: dir, Err: err}
	}
	// A link would lead out of the mount.
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || !unwritable(fd, name) {
		f.Close()
		return nil, fmt.Errorf("%s cannot be executed from a mount of its directory", file)
	}
	return &Program{Path: descriptorPath(f) + "/" + name, file: f}, nil
}

// copyProgram copies a program to memory.
func copyProgram(file string) (*Program, error) {
	from, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("program", flags|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3 all may be executed
		fd, err = unix.MemfdCreate("program", flags)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	to := os.NewFile(uintptr(fd), "memfd:program")
	if _, err = io.Copy(to, from); err == nil {
		_, err = unix.FcntlInt(to.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		to.Close()
		return nil, fmt.Errorf("copy to memory: %w", err)
	}
	return &Program{Path: descriptorPath(to), file: to}, nil
}

// descriptorPath names an open file by a path that this process's children can use, whatever their own descriptors are.
func descriptorPath(f *os.File) string {
	return "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(f.Fd()))
}

// unwritable reports whether the kernel says that this process may not write a file, be it in use or not, and could
// not give itself the right to.
func unwritable(dir int, name string) bool {
	switch unix.Faccessat(dir, name, unix.W_OK, unix.AT_EACCESS) {
	case unix.EROFS:
		return true
	case unix.EACCES:
		var st unix.Stat_t
		owns := unix.Fstatat(dir, name, &st, 0) != nil || int(st.Uid) == os.Geteuid()
		return !owns && PermittedCapabilities()&(1<<unix.CAP_FOWNER) == 0
	}
	return false
}

func sealed(file string) bool {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	return err == nil && seals&unix.F_SEAL_WRITE != 0
}

func same(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Stat(a, &x) == nil && unix.Stat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}
