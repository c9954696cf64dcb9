package pull

import (
	"bytes"
	"fmt"
	"os"
	"testing"

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
}
