package pull

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"cale/image/store"
	"cale/registry/client"
	"cale/test/images"
)

// BenchmarkPull pulls an image of four layers that compress about as well as
// programs do, from a registry in the same process.
func BenchmarkPull(b *testing.B) {
	if os.Getuid() != 0 {
		b.Skip("unpacking layers needs root")
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		b.Fatal(err)
	}
	program = program[:min(len(program), 4<<20)]
	var layers [][]images.File
	size := int64(0)
	for i := range 4 {
		var files []images.File
		for j := range 4 {
			files = append(files, images.File{Name: fmt.Sprintf("bin%d", j), Data: append([]byte{byte(i), byte(j)}, program...)})
		}
		for j := range 500 {
			files = append(files, images.File{Name: fmt.Sprintf("small%d", j), Data: bytes.Repeat([]byte{byte(j)}, 3000)})
		}
		layers = append(layers, files)
	}
	img, err := images.New(images.Spec{Layers: layers})
	if err != nil {
		b.Fatal(err)
	}
	for _, l := range img.Layers {
		size += int64(len(l.Data))
	}
	s := newSetup(b)
	s.reg.add("1", img)
	s.Progress = func(Event) {}
	b.SetBytes(size)
	for b.Loop() {
		pullOnce(b, s)
	}
}

// BenchmarkSmallLayers pulls sixty layers of few small files: what is done once
// for each layer counts.
func BenchmarkSmallLayers(b *testing.B) {
	if os.Getuid() != 0 {
		b.Skip("unpacking layers needs root")
	}
	var layers [][]images.File
	for i := range 60 {
		var files []images.File
		for j := range 20 {
			data := make([]byte, 3000)
			rand.NewChaCha8([32]byte{byte(i), byte(j)}).Read(data)
			files = append(files, images.File{Name: fmt.Sprintf("dir%d/small%d", i, j), Data: data})
		}
		layers = append(layers, files)
	}
	img, err := images.New(images.Spec{Layers: layers})
	if err != nil {
		b.Fatal(err)
	}
	s := newSetup(b)
	s.reg.add("1", img)
	s.Progress = func(Event) {}
	for b.Loop() {
		pullOnce(b, s)
	}
}

// BenchmarkLargeLayer pulls one large layer, as a whole and in parts.
func BenchmarkLargeLayer(b *testing.B) {
	if os.Getuid() != 0 {
		b.Skip("unpacking layers needs root")
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		b.Fatal(err)
	}
	var files []images.File
	for i := range 260 << 20 / len(program) {
		files = append(files, images.File{Name: fmt.Sprintf("bin%d", i), Data: append([]byte{byte(i)}, program...)})
	}
	img, err := images.New(images.Spec{Layers: [][]images.File{files}})
	if err != nil {
		b.Fatal(err)
	}
	for _, parts := range []int{1, 4} {
		b.Run(fmt.Sprint(parts), func(b *testing.B) {
			s := newSetup(b)
			s.reg.add("1", img)
			s.Progress = func(Event) {}
			s.Parts = parts
			b.SetBytes(int64(len(img.Layers[0].Data)))
			var before, after unix.Rusage
			_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
			for b.Loop() {
				pullOnce(b, s)
			}
			_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
			used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
			b.ReportMetric(float64(used)/float64(b.N), "cpu-ns/op")
		})
	}
}

// pullOnce pulls into a store of its own.
func pullOnce(b *testing.B, s *setup) {
	dir, err := os.MkdirTemp("/dev/shm", "cale-pull-bench-")
	if err != nil {
		b.Fatal(err)
	}
	if s.Store, err = store.Open(dir); err != nil {
		b.Fatal(err)
	}
	s.Client = client.New(client.Options{})
	if _, err := s.pull(); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	s.Store.Close()
	os.RemoveAll(dir)
	b.StartTimer()
}
