package simplesign

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

const max = 1 << 20

func key(t testing.TB, c *packet.Config) (*openpgp.Entity, []byte) {
	t.Helper()
	e, err := openpgp.NewEntity("tester", "", "tester@example.com", c)
	if err != nil {
		t.Fatal(err)
	}
	return e, public(t, e)
}

func public(t testing.TB, e *openpgp.Entity) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := e.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func signed(t testing.TB, e *openpgp.Entity, text string, c *packet.Config) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := openpgp.Sign(&b, e, nil, c)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte(text))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func armoured(t testing.TB, raw []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(raw)
	w.Close()
	return append(b.Bytes(), '\n')
}

func TestOpen(t *testing.T) {
	e, pub := key(t, nil)
	_, other := key(t, nil)
	msg := signed(t, e, "what it says", nil)
	for name, keys := range map[string][][]byte{
		"Binary": {pub}, "Armoured": {armoured(t, pub)}, "OneOfTwo": {other, pub}, "TwoInOne": {append(armoured(t, other), armoured(t, pub)...)},
	} {
		text, by, err := open(keys, msg, max)
		if err != nil || string(text) != "what it says" || len(by) != 40 {
			t.Errorf("%s: %q by %q, %v", name, text, by, err)
		}
	}
	changed := bytes.Replace(msg, []byte("what it says"), []byte("what it lies"), 1)
	var detached bytes.Buffer
	if err := openpgp.DetachSign(&detached, e, strings.NewReader("what it says"), nil); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		keys [][]byte
		msg  []byte
		max  int64
	}{
		"AnotherKey": {[][]byte{other}, msg, max}, "NoKey": {nil, msg, max}, "Changed": {[][]byte{pub}, changed, max}, "Cut": {[][]byte{pub}, msg[:len(msg)-10], max},
		"Garbage": {[][]byte{pub}, []byte("garbage"), max}, "Empty": {[][]byte{pub}, nil, max}, "TooLarge": {[][]byte{pub}, msg, 5},
		"Detached": {[][]byte{pub}, detached.Bytes(), max}, "KeyIsNone": {[][]byte{[]byte("-----BEGIN NOTHING")}, msg, max}, "KeyForMessage": {[][]byte{pub}, pub, max},
	} {
		if text, _, err := open(c.keys, c.msg, c.max); err == nil {
			t.Errorf("%s: accepted as %q", name, text)
		}
	}
}

// Keys and signatures end, and keys are revoked.
func TestEnds(t *testing.T) {
	past := func() time.Time { return time.Now().Add(-48 * time.Hour) }
	e, pub := key(t, &packet.Config{Time: past, KeyLifetimeSecs: 3600})
	if _, _, err := open([][]byte{pub}, signed(t, e, "x", &packet.Config{Time: past}), max); err == nil {
		t.Error("a signature of a key that has ended")
	}
	e, pub = key(t, &packet.Config{Time: past})
	if _, _, err := open([][]byte{pub}, signed(t, e, "x", &packet.Config{Time: past}), max); err != nil {
		t.Error(err)
	}
	if _, _, err := open([][]byte{pub}, signed(t, e, "x", &packet.Config{Time: past, SigLifetimeSecs: 3600}), max); err == nil {
		t.Error("a signature that has ended")
	}
	msg := signed(t, e, "x", nil)
	if err := e.RevokeKey(packet.KeyCompromised, "lost", nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := open([][]byte{public(t, e)}, msg, max); err == nil {
		t.Error("a signature of a revoked key")
	}
}

// What gpg signs, with RSA and with elliptic curves.
func TestGPG(t *testing.T) {
	gpg, err := exec.LookPath("gpg")
	if err != nil {
		t.Skip("gpg is not installed")
	}
	for _, algorithm := range []string{"rsa2048", "ed25519"} {
		home, err := os.MkdirTemp("", "gpg") // sockets want short paths
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(home)
		run := func(in string, args ...string) []byte {
			t.Helper()
			cmd := exec.Command(gpg, append([]string{"--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)...)
			cmd.Stdin = strings.NewReader(in)
			var errs bytes.Buffer
			cmd.Stderr = &errs
			out, err := cmd.Output()
			if err != nil {
				t.Skipf("gpg does not work here: %v: %s", err, errs.String())
			}
			return out
		}
		run("", "--quick-generate-key", "tester@example.com", algorithm, "sign", "1d")
		defer exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		for _, pub := range [][]byte{run("", "--export"), run("", "--armor", "--export")} {
			text, by, err := open([][]byte{pub}, run("what it says", "--sign"), max)
			if err != nil || string(text) != "what it says" || len(by) != 40 {
				t.Errorf("%s: %q by %q, %v", algorithm, text, by, err)
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	e, pub := key(f, nil)
	msg := signed(f, e, "what it says", nil)
	f.Add(msg, pub)
	f.Add(pub, armoured(f, pub))
	f.Fuzz(func(t *testing.T, msg, other []byte) {
		if text, _, err := open([][]byte{pub}, msg, max); err == nil && string(text) != "what it says" {
			t.Errorf("%q was never signed", text)
		}
		open([][]byte{other}, msg, max)
	})
}
