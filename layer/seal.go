package layer

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where the filesystem has fs-verity, a layer's image is sealed: the kernel
// refuses to change it and checks every block that it reads of it against the
// digest that is noted beside it (kernel documentation, filesystems/fsverity).

// sealFile holds the digest of a sealed image, in hex.
const sealFile = "verity"

// sealBlock is the size of what is checked at once: of a page, which every
// kernel with fs-verity takes.
const sealBlock = 4096

const sealTries = 1000

// seal seals the image in a layer's directory. That the filesystem or the kernel
// has no fs-verity is no error. The image must not be open for writing.
func seal(dir string) error {
	f, err := os.Open(filepath.Join(dir, imageFile))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := enableSeal(f); err != nil {
		if noSeals(err) {
			return nil
		}
		return err
	}
	digest, err := sealOf(f)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, sealFile), []byte(digest+"\n"), 0o600)
}

// noSeals tells whether an error says that the filesystem or the kernel has no fs-verity.
func noSeals(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY)
}

func enableSeal(f *os.File) error {
	// struct fsverity_enable_arg
	arg := struct {
		version, hash, block, salt uint32
		_                          [112]byte
	}{version: 1, hash: unix.FS_VERITY_HASH_ALG_SHA256, block: sealBlock}
	var err error = unix.ETXTBSY
	// Whoever forks meanwhile has what was open for writing until it executes.
	for try := 0; err == unix.ETXTBSY && try < sealTries; try++ {
		if try > 0 {
			time.Sleep(time.Millisecond)
		}
		err = sealCall(f, unix.FS_IOC_ENABLE_VERITY, unsafe.Pointer(&arg))
	}
	if err != nil && err != unix.EEXIST { // another process may have sealed it just now
		return fmt.Errorf("seal %s: %w", f.Name(), err)
	}
	return nil
}

// checkSeal reports whether an image is the one that was sealed, if it was. One
// without its seal may have come from another disk with all the rest, by a
// program that copies no seals: sealed again it has the same digest.
func checkSeal(dir string) error {
	want, err := os.ReadFile(filepath.Join(dir, sealFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(dir, imageFile))
	if err != nil {
		return err
	}
	defer f.Close()
	have, err := sealOf(f)
	if errors.Is(err, unix.ENODATA) {
		if err = enableSeal(f); err == nil {
			have, err = sealOf(f)
		}
	}
	if noSeals(err) { // where it is now nothing has one
		return nil
	}
	if err != nil {
		return err
	}
	if have != strings.TrimSpace(string(want)) {
		return fmt.Errorf("%w: its image is sealed as %s, it was as %.64s", ErrDamaged, have, want)
	}
	return nil
}

// sealOf is the digest that a file is sealed with; unix.ENODATA if it is not.
func sealOf(f *os.File) (string, error) {
	// struct fsverity_digest
	digest := struct {
		algorithm, size uint16
		digest          [64]byte
	}{size: 64}
	if err := sealCall(f, unix.FS_IOC_MEASURE_VERITY, unsafe.Pointer(&digest)); err != nil {
		return "", fmt.Errorf("seal of %s: %w", f.Name(), err)
	}
	return hex.EncodeToString(digest.digest[:min(digest.size, 64)]), nil
}

func sealCall(f *os.File, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
