package layer

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// sealing is a folder on a filesystem with fs-verity.
func sealing(t *testing.T) string {
	needRoot(t)
	if _, err := os.Stat("/sys/fs/ext4/features/verity"); err != nil {
		t.Skip("this kernel has no fs-verity (test/vm/run ./layer has one)")
	}
	file, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	for _, argv := range [][]string{
		{"truncate", "-s", "64M", file},
		{"mkfs.ext4", "-q", "-b", "4096", "-O", "verity", file},
		{"mount", "-o", "loop", file, dir},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", argv, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-d", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

func TestSealedImage(t *testing.T) {
	disk := sealing(t)
	make := func(name string, content []byte) string {
		dir := filepath.Join(disk, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, imageFile), content, 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	dir := make("layer", bytes.Repeat([]byte("layer"), 1<<20))
	if err := seal(dir); err != nil {
		t.Fatal(err)
	}
	if err := checkSeal(dir); err != nil {
		t.Errorf("as sealed: %v", err)
	}
	if _, err := os.OpenFile(filepath.Join(dir, imageFile), os.O_WRONLY, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("a sealed image is opened for writing: %v", err)
	}
	// A copy on another disk has no seal, and gets it back.
	again := make("copy", bytes.Repeat([]byte("layer"), 1<<20))
	if raw, err := os.ReadFile(filepath.Join(dir, sealFile)); err != nil || os.WriteFile(filepath.Join(again, sealFile), raw, 0o600) != nil {
		t.Fatal(err)
	}
	if err := checkSeal(again); err != nil {
		t.Errorf("a copy: %v", err)
	}
	if _, err := os.OpenFile(filepath.Join(again, imageFile), os.O_WRONLY, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("a copy that was checked is opened for writing: %v", err)
	}
	// Another one in its place, sealed or not, is found out.
	other := make("other", bytes.Repeat([]byte("other"), 1<<20))
	swap := func() {
		if err := os.Rename(filepath.Join(other, imageFile), filepath.Join(dir, imageFile)); err != nil {
			t.Fatal(err)
		}
	}
	swap()
	if err := checkSeal(dir); !errors.Is(err, ErrDamaged) {
		t.Errorf("an image without a seal in a sealed one's place: %v", err)
	}
	other = make("third", bytes.Repeat([]byte("third"), 1<<20))
	if err := seal(other); err != nil {
		t.Fatal(err)
	}
	swap()
	if err := checkSeal(dir); !errors.Is(err, ErrDamaged) {
		t.Errorf("another sealed image in its place: %v", err)
	}
}

// A filesystem without fs-verity has images without a seal.
func TestNoSeal(t *testing.T) {
	dir := "/dev/shm"
	dir, err := os.MkdirTemp(dir, "cale-seal-")
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, imageFile), []byte("layer"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(seal(dir), checkSeal(dir)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, sealFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a seal that can't be: %v", err)
	}
	// Nor does what was sealed on another one, and was copied, need its seal there.
	if err := os.WriteFile(filepath.Join(dir, sealFile), []byte("00\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkSeal(dir); err != nil {
		t.Error(err)
	}
}
