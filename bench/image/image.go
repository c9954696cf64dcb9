package main

import (
	"fmt"
	"math/rand/v2"

	"cale/test/images"
)

// shape is what an image is made of.
type shape struct {
	name          string
	layers, files int // files in all
	bytes         int // of the files, in all
}

var shapes = []shape{
	{"8 layers, 25,000 files, 250 MB", 8, 25_000, 250 << 20},
	{"60 layers of 20 small files", 60, 1200, 3 << 20},
}

// make builds the image. What is in the files compresses to about two fifths, as programs and texts do together, and
// is the same each time.
func (s shape) make() (*images.Image, error) {
	random := rand.New(rand.NewPCG(1, uint64(s.layers)))
	words := make([][]byte, 4096)
	for i := range words {
		w := make([]byte, 2+random.IntN(10))
		for j := range w {
			w[j] = byte('a' + random.IntN(26))
		}
		words[i] = append(w, ' ')
	}
	spec := images.Spec{Run: images.Run{Cmd: []string{"/program"}}}
	for l := range s.layers {
		var files []images.File
		n := s.files / s.layers
		for i := range n {
			if i == 0 {
				files = append(files, images.File{Name: "usr/"}, images.File{Name: fmt.Sprintf("usr/%d/", l)})
			}
			if i%25 == 0 {
				files = append(files, images.File{Name: fmt.Sprintf("usr/%d/%d/", l, i/25)})
			}
			// Sizes as in a distribution: many small ones, few large ones.
			size := s.bytes / s.files
			switch i % 100 {
			case 0:
				size *= 40
			default:
				size = size * 6 / 10
			}
			data := make([]byte, 0, size+16)
			for len(data) < size {
				if random.IntN(8) == 0 { // as machine code is: hardly to be compressed
					for range min(96, size-len(data)) {
						data = append(data, byte(random.Uint32()))
					}
					continue
				}
				for range 12 {
					data = append(data, words[min(random.IntN(4096), random.IntN(4096), random.IntN(4096))]...)
				}
			}
			files = append(files, images.File{Name: fmt.Sprintf("usr/%d/%d/file%d", l, i/25, i), Data: data[:size], Mode: 0o644})
		}
		spec.Layers = append(spec.Layers, files)
	}
	return images.New(spec)
}
