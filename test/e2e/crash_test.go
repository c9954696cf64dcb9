package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cale/test/images"
	"cale/test/stack"

	"golang.org/x/sys/unix"
)

// noisy is an image whose layers don't compress, each of one file of the size given and some small ones.
func noisy(t *testing.T, seed uint64, compression string, sizes ...int) *images.Image {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	var layers [][]images.File
	for i, size := range sizes {
		data := make([]byte, size)
		for j := range data {
			data[j] = byte(random.Uint32())
		}
		files := []images.File{{Name: fmt.Sprintf("large%d", i), Data: data}, {Name: "dir/"}}
		for j := range 50 {
			files = append(files, images.File{Name: fmt.Sprintf("dir/%d-%d", i, j), Data: data[:min(len(data), j)]})
		}
		layers = append(layers, files)
	}
	img, err := images.New(images.Spec{Layers: layers, Compression: compression, Run: images.Run{Cmd: []string{"/true"}}})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// TestKilledAtWork kills the engine at random moments of pulls, pushes, loads, unpacking and collections: each time
// the store is found whole by the next engine, and the next pull succeeds. CALE_KILLS says how often.
func TestKilledAtWork(t *testing.T) {
	rounds := 8
	if n, err := strconv.Atoi(os.Getenv("CALE_KILLS")); err == nil {
		rounds = n
	}
	s := stack.New(t)
	s.Cale("registry", "--stop", "all").OK(t)
	at := otherRegistry(t, "", "")
	names := []string{at + "/a:1", at + "/b:1", at + "/c:1"}
	for i, img := range []*images.Image{
		noisy(t, 1, "gzip", 100_000, 200_000, 300_000, 50_000, 1, 2),
		noisy(t, 2, "zstd", 5_000_000),
		noisy(t, 3, "gzip", 40_000_000, 1000), // comes in parts
	} {
		if err := img.Push(t.Context(), at, strings.TrimPrefix(names[i], at+"/")); err != nil {
			t.Fatal(err)
		}
	}
	saved := filepath.Join(t.TempDir(), "saved.tar")
	s.Cale("pull", "-q", names[1]).OK(t)
	s.Cale("save", "-o", saved, names[1]).OK(t)

	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 2))
	for round := range rounds {
		works := [][]string{
			{"pull", "-q", names[random.IntN(3)]}, {"pull", "-q", names[random.IntN(3)]}, {"load", "-q", "-i", saved},
			{"tag", names[random.IntN(3)], at + "/out:" + strconv.Itoa(round)}, {"push", "-q", at + "/out:" + strconv.Itoa(round)},
			{"rmi", "-f", names[random.IntN(3)]}, {"image", "prune", "-af"}, {"image", "prune", "-af"},
		}
		random.Shuffle(len(works), func(i, j int) { works[i], works[j] = works[j], works[i] })
		var all sync.WaitGroup
		for _, w := range works[:4] {
			// They fail, or not, as the engine dies.
			all.Go(func() { s.Cale(w...) })
		}
		time.Sleep(time.Duration(random.IntN(250_000)) * time.Microsecond)
		if s.PID() != 0 {
			s.KillEngine()
		}
		all.Wait() // a client that came late has started the next engine
		if out := s.Cale("system", "check").Exit(t, 0).Stdout; !strings.Contains(out, "Problems: 0") {
			t.Fatalf("round %d of seed %d: %s", round, seed, out)
		}
		s.Cale("pull", "-q", names[random.IntN(3)]).OK(t)
	}
	// What was pulled is what was pushed.
	for _, n := range names {
		s.Cale("pull", "-q", n).OK(t)
	}
	if out := s.Cale("system", "check").OK(t); !strings.Contains(out, "Problems: 0") {
		t.Error(out)
	}
}

// smallDisk gives a stack's trees a filesystem of their own.
func smallDisk(t *testing.T, size string) (s *stack.Stack, dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("/dev/shm", "cale-disk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	stack.Programs(t) // not onto that disk
	t.Setenv("TMPDIR", dir)
	return stack.New(t), dir
}

// TestDiskFull: a pull that finds no room fails with that word, leaves the room as it was, and works once there is.
func TestDiskFull(t *testing.T) {
	s, dir := smallDisk(t, "40m")
	at := otherRegistry(t, "", "")
	for name, img := range map[string]*images.Image{
		"big:1":   noisy(t, 1, "gzip", 20_000_000, 20_000_000),
		"parts:1": noisy(t, 2, "gzip", 60_000_000),
		"small:1": noisy(t, 3, "gzip", 5_000_000),
	} {
		if err := img.Push(t.Context(), at, name); err != nil {
			t.Fatal(err)
		}
	}
	free := func() uint64 {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		return st.Bavail * uint64(st.Bsize)
	}
	before := free()
	for _, name := range []string{"big:1", "parts:1"} {
		r := s.Cale("pull", "-q", at+"/"+name).Exit(t, 1)
		if !strings.Contains(r.Stderr, "no space left on device") || strings.Contains(r.Stderr, "\n/") {
			t.Errorf("%s: %s", name, r.Stderr)
		}
		if out := s.Cale("images", "-q", at+"/"+name).OK(t); out != "" {
			t.Errorf("%s is there: %s", name, out)
		}
		stack.Until(t, "the room is free again", func() bool { return free()+2<<20 > before })
	}
	s.Cale("pull", "-q", at+"/small:1").OK(t)
	if out := s.Cale("system", "check").OK(t); !strings.Contains(out, "Problems: 0") {
		t.Error(out)
	}
	// Full to the last byte: what is there can be listed, and removed.
	fill(t, filepath.Join(dir, "fill"))
	s.Cale("pull", "-q", at+"/big:1").Exit(t, 1)
	s.Cale("images").OK(t)
	s.Cale("rmi", at+"/small:1").OK(t)
	if err := os.Remove(filepath.Join(dir, "fill")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=400m"); err != nil {
		t.Fatal(err)
	}
	s.Cale("pull", "-q", at+"/big:1").OK(t)
	s.Cale("pull", "-q", at+"/parts:1").OK(t)
	if out := s.Cale("system", "check").OK(t); !strings.Contains(out, "Problems: 0") {
		t.Error(out)
	}
}

func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 64<<10); len(chunk) > 0; {
		if _, err := f.Write(chunk); err != nil {
			chunk = chunk[:len(chunk)/2]
		}
	}
}

// TestDiskReadOnly: an engine whose disk can't be written says so, and one that could be again goes on.
func TestDiskReadOnly(t *testing.T) {
	s := stack.New(t)
	at := otherRegistry(t, "", "")
	for name, img := range map[string]*images.Image{"one:1": noisy(t, 1, "gzip", 300_000), "two:1": noisy(t, 2, "gzip", 300_000)} {
		if err := img.Push(t.Context(), at, name); err != nil {
			t.Fatal(err)
		}
	}
	s.Cale("pull", "-q", at+"/one:1").OK(t)
	// A mount with files open for writing can't be made read-only.
	s.KillEngine()
	if err := unix.Mount(s.Root, s.Root, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("cannot mount here: %v", err)
	}
	defer unix.Unmount(s.Root, unix.MNT_DETACH)
	if err := unix.Mount("", s.Root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, verb := range [][]string{{"images"}, {"pull", at + "/two:1"}, {"system", "check"}} {
		if r := s.Cale(verb...).Exit(t, 1); !strings.Contains(r.Stderr, "read-only file system") {
			t.Errorf("%s: %s", verb, r.Stderr)
		}
	}
	if err := unix.Unmount(s.Root, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	s.Cale("pull", "-q", at+"/two:1").OK(t)
	if out := s.Cale("system", "check").OK(t); !strings.Contains(out, "Problems: 0") {
		t.Error(out)
	}
}
