package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"cale/image"
)

// BenchmarkUnpack unpacks 5 gzip layers at once, 25,000 files and 250 MB
// together, as an image pull does.
func BenchmarkUnpack(b *testing.B) {
	needRoot(b)
	type blob struct {
		gz []byte
		id image.Digest
	}
	var blobs []blob
	var total int64
	for i := range 5 {
		raw := benchTar(rand.New(rand.NewSource(int64(i))), 5000, 10<<10)
		total += int64(len(raw))
		var gz bytes.Buffer
		w := gzip.NewWriter(&gz)
		w.Write(raw)
		w.Close()
		blobs = append(blobs, blob{gz.Bytes(), image.FromBytes(raw)})
	}
	runtime.GC()
	if path := os.Getenv("UNPACK_PROFILE"); path != "" {
		f, _ := os.Create(path)
		defer f.Close()
		pprof.StartCPUProfile(f)
		defer pprof.StopCPUProfile()
	}
	var cpu int64
	var before, after unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &before)
	b.SetBytes(total)
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		dir, err := os.MkdirTemp("/dev/shm", "cale-bench-")
		if err != nil {
			b.Fatal(err)
		}
		l, err := Open(dir)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		var wg sync.WaitGroup
		for _, x := range blobs {
			wg.Go(func() {
				if _, err := l.Unpack(context.Background(), bytes.NewReader(x.gz), image.MediaTypeLayerGzip, x.id); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		b.StopTimer()
		unix.Getrusage(unix.RUSAGE_SELF, &after)
		cpu += after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
		os.RemoveAll(dir)
		unix.Getrusage(unix.RUSAGE_SELF, &before)
		b.StartTimer()
	}
	b.ReportMetric(float64(cpu)/1e6/float64(b.N), "cpu-ms/op")
}

// benchTar is files of text and of machine code, about as compressible as what
// images hold.
func benchTar(r *rand.Rand, files, mean int) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = make([]byte, 2+r.Intn(9))
		r.Read(words[i])
	}
	when := time.Unix(1700000000, 0)
	for i := range files {
		if i%25 == 0 {
			w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("usr/lib/p%d/", i/25), Mode: 0o755, ModTime: when})
		}
		var data []byte
		size := int(r.ExpFloat64() * float64(mean))
		for len(data) < size {
			data = append(data, words[int(r.ExpFloat64()*300)%len(words)]...)
		}
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("usr/lib/p%d/f%d", i/25, i), Mode: 0o644, Size: int64(len(data)), ModTime: when})
		w.Write(data)
	}
	w.Close()
	return buf.Bytes()
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes devices and files of other owners")
	}
}
