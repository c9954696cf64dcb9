package inflate

import (
	"bytes"
	"compress/flate"
	stdgzip "compress/gzip"
	"errors"
	"io"
	"math/rand"
	"os"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
)

func pack(t testing.TB, raw []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := stdgzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(raw)
	w.Close()
	return b.Bytes()
}

// samples are of all kinds: incompressible, all one byte, text, short periods,
// skewed to give the longest codes.
func samples() map[string][]byte {
	r := rand.New(rand.NewSource(1))
	noise := make([]byte, 300000)
	r.Read(noise)
	words := bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog; "), 20000)
	for i := range words {
		if r.Intn(50) == 0 {
			words[i] = byte(r.Intn(256))
		}
	}
	skew := make([]byte, 400000)
	for i := range skew {
		for skew[i] < 200 && r.Intn(3) > 0 {
			skew[i]++
		}
	}
	var periods []byte
	for n := 1; n < 40; n++ {
		periods = append(periods, bytes.Repeat(noise[:n], 700/n)...)
	}
	self, _ := os.ReadFile(os.Args[0])
	if len(self) > 3<<20 {
		self = self[:3<<20]
	}
	return map[string][]byte{"empty": nil, "byte": {7}, "noise": noise, "zeros": make([]byte, 1<<20), "words": words,
		"skew": skew, "periods": periods, "program": self}
}

func TestAgainstEncoders(t *testing.T) {
	for name, raw := range samples() {
		for _, level := range []int{stdgzip.HuffmanOnly, 0, 1, 6, 9} {
			z := pack(t, raw, level)
			got, err := io.ReadAll(NewReader(bytes.NewReader(z)))
			if err != nil || !bytes.Equal(got, raw) {
				t.Errorf("%s level %d: %d of %d bytes, %v", name, level, len(got), len(raw), err)
			}
		}
	}
}

func TestReading(t *testing.T) {
	raw := samples()["words"]
	one := pack(t, raw, 6)
	two := append(append([]byte{}, one...), pack(t, raw[:1000], 1)...)
	want := append(append([]byte{}, raw...), raw[:1000]...)
	for name, r := range map[string]io.Reader{
		"Whole": bytes.NewReader(two), "ByteWise": iotest.OneByteReader(bytes.NewReader(two)),
		"DataWithError": iotest.DataErrReader(bytes.NewReader(two)),
	} {
		got, err := io.ReadAll(iotest.OneByteReader(NewReader(r)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d of %d bytes, %v", name, len(got), len(want), err)
		}
	}
	// A member cannot refer to what an earlier one held.
	z := NewReader(nil)
	for range 3 {
		z.Reset(bytes.NewReader(one))
		if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("after Reset: %d bytes, %v", len(got), err)
		}
	}
	broken := errors.New("broken")
	if _, err := io.ReadAll(NewReader(io.MultiReader(bytes.NewReader(one[:len(one)/2]), iotest.ErrReader(broken)))); err != broken {
		t.Errorf("got %v", err)
	}
	// Header fields of all kinds.
	var b bytes.Buffer
	w := stdgzip.NewWriter(&b)
	w.Name, w.Comment, w.Extra = "a name", "a comment", []byte("extra")
	w.Write(raw)
	w.Close()
	if got, err := io.ReadAll(NewReader(&b)); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("header fields: %d bytes, %v", len(got), err)
	}
}

// TestCut: each proper beginning of a stream is an unexpected end, never data
// as if it were whole.
func TestCut(t *testing.T) {
	for name, raw := range samples() {
		z := pack(t, raw, 6)
		for i := 1; i < len(z); i += 1 + len(z)/40 {
			got, err := io.ReadAll(NewReader(bytes.NewReader(z[:i])))
			if !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.HasPrefix(raw, got) {
				t.Fatalf("%s cut at %d of %d: %d bytes, %v", name, i, len(z), len(got), err)
			}
		}
		for i := len(z) - 20; i < len(z); i++ {
			if _, err := io.ReadAll(NewReader(bytes.NewReader(z[:max(i, 1)]))); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%s cut at %d of %d: %v", name, i, len(z), err)
			}
		}
	}
}

// TestDamage: with one byte changed the result is an error or, in parts of the
// header that mean nothing, the same data.
func TestDamage(t *testing.T) {
	raw := samples()["words"][:20000]
	z := pack(t, raw, 6)
	r := rand.New(rand.NewSource(2))
	for i := range z {
		bad := bytes.Clone(z)
		bad[i] ^= byte(1 + r.Intn(255))
		got, err := io.ReadAll(NewReader(bytes.NewReader(bad)))
		if err == nil && !bytes.Equal(got, raw) {
			t.Fatalf("byte %d changed: %d bytes were accepted", i, len(got))
		}
		if _, serr := io.ReadAll(must(stdgzip.NewReader(bytes.NewReader(bad)))); (serr == nil) != (err == nil) && i >= 10 {
			t.Errorf("byte %d changed: %v here, %v in the standard library", i, err, serr)
		}
	}
	for _, tail := range []string{"garbage", "\x00", "\x1f", "\x1f\x8b\x08"} {
		if _, err := io.ReadAll(NewReader(bytes.NewReader(append(bytes.Clone(z), tail...)))); err == nil {
			t.Errorf("%q after the stream was accepted", tail)
		}
	}
}

func must(r io.Reader, err error) io.Reader {
	if err != nil {
		return iotest.ErrReader(err)
	}
	return r
}

// FuzzInflate: the standard library is the judge of the compressed data, which
// gets a header here and, from most inputs, no trailer that fits.
func FuzzInflate(f *testing.F) {
	for _, raw := range samples() {
		z := pack(f, raw[:min(len(raw), 3000)], 6)
		f.Add(z[10:])
	}
	f.Add(pack(f, []byte("stored"), 0)[10:])
	f.Fuzz(func(t *testing.T, in []byte) {
		z := append([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x00"), in...)
		got, err := io.ReadAll(io.LimitReader(NewReader(bytes.NewReader(z)), 10<<20))
		want, serr := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(in)), 10<<20))
		if serr == nil && !bytes.HasPrefix(got, want) {
			t.Errorf("%d bytes here (%v), %d in the standard library", len(got), err, len(want))
		}
		if (err == nil || err == ErrChecksum) && serr != nil {
			t.Errorf("accepted what the standard library refuses: %v", serr)
		}
	})
}

func BenchmarkInflate(b *testing.B) {
	raw := samples()["program"]
	z := pack(b, raw, 6)
	b.Run("ours", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		r := NewReader(nil)
		for range b.N {
			r.Reset(bytes.NewReader(z))
			io.Copy(io.Discard, r)
		}
	})
	b.Run("klauspost", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		r := new(gzip.Reader)
		for range b.N {
			r.Reset(bytes.NewReader(z))
			io.Copy(io.Discard, r)
		}
	})
}
