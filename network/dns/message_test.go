package dns

import (
	"bytes"
	"net/netip"
	"testing"
)

func ask1(name string, qtype uint16) []byte {
	b := []byte{1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	b = append(b, encodeName(name)...)
	b = big.AppendUint16(b, qtype)
	return big.AppendUint16(b, classIN)
}

func TestParse(t *testing.T) {
	q, err := parse(append(ask1("Web.Test", typeA), "trailing EDNS"...))
	if err != nil || q.name != "web.test" || q.qtype != typeA || q.class != classIN {
		t.Errorf("%+v, %v", q, err)
	}
	for name, msg := range map[string][]byte{
		"empty":        nil,
		"short":        ask1("web", typeA)[:20],
		"a response":   append([]byte{1, 2, 0x80}, ask1("web", typeA)[3:]...),
		"two":          append([]byte{1, 2, 1, 0, 0, 2}, ask1("web", typeA)[6:]...),
		"a pointer":    append(ask1("web", typeA)[:12], 0xc0, 12, 0, 1, 0, 1),
		"past the end": append(ask1("web", typeA)[:12], 63, 'a'),
	} {
		if q, err := parse(msg); err == nil {
			t.Errorf("%s: %+v", name, q)
		}
	}
}

func TestAnswerIsCut(t *testing.T) {
	q, _ := parse(ask1("web", typeA))
	var records [][]byte
	for i := range 100 {
		records = append(records, []byte{10, 0, 0, byte(i)})
	}
	b := q.answer(records, maxUDP)
	if len(b) > maxUDP || b[2]&2 == 0 || int(big.Uint16(b[6:])) != (len(b)-len(q.raw))/16 {
		t.Errorf("%d bytes, flags %x, %d records", len(b), b[2], big.Uint16(b[6:]))
	}
	if b := q.answer(records, 0xffff); b[2]&2 != 0 || big.Uint16(b[6:]) != 100 {
		t.Error("cut without need")
	}
}

func TestReverse(t *testing.T) {
	for name, want := range map[string]string{
		"2.0.89.10.in-addr.arpa": "10.89.0.2",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa": "2001:db8::1",
		"in-addr.arpa":         "",
		"1.2.3.in-addr.arpa":   "",
		"x.2.3.4.in-addr.arpa": "",
	} {
		a, ok := reverse(name)
		if ok != (want != "") || ok && a != netip.MustParseAddr(want) {
			t.Errorf("%s: %v, %v", name, a, ok)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(ask1("web.test", typeAAAA))
	f.Fuzz(func(t *testing.T, msg []byte) {
		q, err := parse(msg)
		if err != nil {
			failure(msg, codeFormat)
			return
		}
		reverse(q.name)
		b := q.answer([][]byte{{1, 2, 3, 4}}, maxUDP)
		if !bytes.Equal(b[:2], msg[:2]) || b[2]&0x80 == 0 {
			t.Errorf("%x answers %x", b, msg)
		}
	})
}
