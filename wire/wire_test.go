package wire

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func FuzzEach(f *testing.F) {
	f.Add([]byte{0x0a, 3, 'a', 'b', 'c', 0x10, 0x96, 0x01})
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Add([]byte("\xe8\xff\xff\xdc00"))
	f.Add([]byte{0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x0d, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		err := Each(b, func(f Field) error {
			again = protowire.AppendTag(again, protowire.Number(f.ID), protowire.Type(f.Type))
			switch f.Type {
			case Varint:
				again = protowire.AppendVarint(again, f.Num)
			case Fixed64:
				again = protowire.AppendFixed64(again, f.Num)
			case Fixed32:
				again = protowire.AppendFixed32(again, uint32(f.Num))
			case Bytes:
				again = protowire.AppendBytes(again, f.Data)
			}
			return nil
		})
		// The same judgement and the same fields as the official package, which
		// also takes groups.
		ok, groups := official(b)
		if groups {
			return
		}
		if (err == nil) != ok {
			t.Fatalf("%x: error %v, official says valid %v", b, err, ok)
		}
		if err == nil {
			if ok2, _ := official(again); !ok2 || Each(again, func(Field) error { return nil }) != nil {
				t.Errorf("%x came out as %x", b, again)
			}
		}
	})
}

func official(b []byte) (ok, groups bool) {
	for len(b) > 0 {
		_, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false, false
		}
		if typ == protowire.StartGroupType || typ == protowire.EndGroupType {
			return false, true
		}
		_, _, m := protowire.ConsumeField(b)
		if m < 0 {
			return false, false
		}
		b = b[m:]
	}
	return true, false
}

func TestAppend(t *testing.T) {
	var got, want []byte
	got = AppendUint(got, 1, 1<<63+5)
	want = protowire.AppendVarint(protowire.AppendTag(want, 1, protowire.VarintType), 1<<63+5)
	got = AppendString(got, 300, "text")
	want = protowire.AppendString(protowire.AppendTag(want, 300, protowire.BytesType), "text")
	got = AppendBool(AppendUint(AppendString(got, 1, ""), 2, 0), 3, false)
	got = AppendBytes(got, 4, nil)
	want = protowire.AppendBytes(protowire.AppendTag(want, 4, protowire.BytesType), nil)
	if !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}
