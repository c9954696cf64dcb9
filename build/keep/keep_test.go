package keep

import (
	"context"
	"errors"
	"testing"

	"cale/image"
	"cale/image/store"
)

// forgetful is an owner that does what it is asked and whose answer is lost.
type forgetful struct {
	Direct
	lost bool
}

var errLost = errors.New("no answer")

func (f *forgetful) Release(ctx context.Context, c Content) error {
	if err := errors.Join(ctx.Err(), f.Direct.Release(ctx, c)); err != nil || !f.lost {
		return err
	}
	return errLost
}

// TestHeldAgainAfterALostRelease: what may have been released is not believed
// to be held, and a cancelled build releases all the same.
func TestHeldAgainAfterALostRelease(t *testing.T) {
	st, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	k := &forgetful{Direct: Direct{Store: st}}
	h, err := OpenHolds(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	d := image.FromBytes([]byte("x"))
	held := func() int {
		c, _ := k.Held(t.Context())
		return len(c.Blobs) + len(c.Layers)
	}
	for _, lost := range []bool{true, false} {
		k.lost = lost
		for _, do := range []struct {
			hold, drop func(context.Context, image.Digest) error
		}{{h.Layer, h.DropLayer}, {h.Blob, h.DropBlob}} {
			cancelled, cancel := context.WithCancel(t.Context())
			cancel()
			if err := do.hold(t.Context(), d); err != nil || held() != 1 {
				t.Fatalf("hold: %v, %d held", err, held())
			}
			if err := do.drop(cancelled, d); lost != errors.Is(err, errLost) || !lost && err != nil || held() != 0 {
				t.Fatalf("drop: %v, %d held", err, held())
			}
		}
	}
}
