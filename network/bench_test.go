package network

import (
	"fmt"
	"path/filepath"
	"testing"
)

func BenchmarkNewNamespace(b *testing.B) {
	dir := tempDir(b)
	i := 0
	for b.Loop() {
		path := filepath.Join(dir, fmt.Sprint(i))
		i++
		if err := NewNamespace(path); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := RemoveNamespace(path); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// Namespaces are made before and taken away after: the kernel's clean-up in
// the background would be measured as well otherwise.
func BenchmarkAttach(b *testing.B) {
	for _, ports := range []int{0, 1} {
		b.Run(fmt.Sprintf("ports=%d", ports), func(b *testing.B) {
			s := openStore(b, Config{})
			dir := tempDir(b)
			attach(b, s, newBox(b), Attach{ID: "first"}) // makes the bridge
			paths := make([]string, b.N)
			for i := range paths {
				paths[i] = filepath.Join(dir, fmt.Sprint(i))
				if err := NewNamespace(paths[i]); err != nil {
					b.Fatal(err)
				}
				defer RemoveNamespace(paths[i])
			}
			b.ResetTimer()
			for i, path := range paths {
				a := Attach{ID: fmt.Sprint("c", i), NetNS: path}
				if ports > 0 {
					a.Ports = []PortMapping{{ContainerPort: 80}}
				}
				if _, err := s.Attach(b.Context(), a); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
		})
	}
}

func BenchmarkDetach(b *testing.B) {
	s := openStore(b, Config{})
	box := newBox(b)
	for b.Loop() {
		b.StopTimer()
		attach(b, s, box, Attach{ID: "x", Ports: []PortMapping{{ContainerPort: 80}}})
		b.StartTimer()
		if err := s.Detach(b.Context(), "x"); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		s.deleting.Wait()
		b.StartTimer()
	}
}
