package dbus

import (
	"encoding/binary"
	"reflect"
	"testing"
)

// What is written is read back, with the alignment of all types in each other.
func TestRoundTrip(t *testing.T) {
	body := []any{"unit.scope", true, []any{
		[]any{"PIDs", Variant{"au", []any{uint32(1), uint32(2)}}},
		[]any{"Max", Variant{"t", uint64(1<<64 - 1)}},
		[]any{"Mask", Variant{"ay", []any{byte(3), byte(0x80)}}},
		[]any{"Words", Variant{"as", []any{"a", ""}}},
	}, []any{}, int32(-5)}
	sig := "sba(sv)a(sa(sv))i"
	m := &Message{kind: methodCall, serial: 7, Path: "/a/b", Interface: "a.b", Member: "C", Destination: "d", bodySignature: sig, Body: body}
	raw, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode(raw, binary.LittleEndian)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, m) {
		t.Errorf("got %+v, want %+v", got, m)
	}
	for _, bad := range [][]any{{1}, {"a\x00b"}, {}} {
		if _, err := appendValues(nil, "s", bad); err == nil {
			t.Errorf("%v was taken for a string", bad)
		}
	}
}

// A message from anyone is read or refused, without harm.
func FuzzDecode(f *testing.F) {
	m := &Message{kind: signal, serial: 1, Path: "/a", Interface: "b.c", Member: "d", bodySignature: "uos(v)a{sv}",
		Body: []any{uint32(1), "/j", "done", []any{Variant{"t", uint64(3)}}, []any{[]any{"k", Variant{"b", true}}}}}
	raw, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 16 {
			return
		}
		_, _ = decode(b, binary.LittleEndian)
		_, _ = decode(b, binary.BigEndian)
	})
}
