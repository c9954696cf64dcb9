package pull

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"cale/image"
	"cale/image/store"
	"cale/registry/client"
)

const victims = 30

// TestPullKilled kills processes that pull and collect garbage at moments of
// chance. Whatever they were at, the store is found whole and the next pull
// succeeds.
func TestPullKilled(t *testing.T) {
	if root := os.Getenv("CALE_PULL_VICTIM"); root != "" {
		victim(root, os.Getenv("CALE_PULL_REGISTRY"))
		return
	}
	s := newSetup(t).small()
	s.reg.add("0", testImage(t, 3, 900_000, "gzip"))
	s.reg.add("1", testImage(t, 2, 1_100_000, "zstd"))
	s.reg.add("2", testImage(t, 1, 5<<20, "gzip")) // comes in parts
	layers := []int{3, 2, 1}
	root := s.Store.Root()
	s.Store.Close()
	random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	for round := range victims {
		cmd := exec.Command(os.Args[0], "-test.run=^TestPullKilled$")
		cmd.Env = append(os.Environ(), "CALE_PULL_VICTIM="+root, "CALE_PULL_REGISTRY="+s.ref.Domain)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// It says when it has begun; then it may die at any instruction.
		io.ReadFull(out, make([]byte, 1))
		time.Sleep(time.Duration(random.IntN(150_000)) * time.Microsecond)
		cmd.Process.Kill()
		cmd.Wait()

		if s.Store, err = store.Open(root); err != nil {
			t.Fatal(err)
		}
		if problems, _, err := s.Store.Check(context.Background()); err != nil || len(problems) > 0 {
			t.Errorf("round %d: %v, %v", round, problems, err)
		}
		tag := random.IntN(len(layers))
		s.Drop = random.IntN(2) == 0
		s.ref = s.ref.WithTag(fmt.Sprint(tag))
		s.Ref, s.Client = s.ref, client.New(client.Options{})
		if _, err := s.pull(); err != nil {
			t.Errorf("round %d: %v", round, err)
		} else {
			s.whole(layers[tag])
		}
		if err := s.Store.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			return
		}
	}
}

// victim pulls three images again and again, and throws them away.
func victim(root, registry string) {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "victim:", err)
			os.Exit(1)
		}
	}
	st, err := store.Open(root)
	fail(err)
	os.Stdout.Write([]byte{'.'})
	ctx := context.Background()
	for {
		done := make(chan error, 3)
		for tag := range 3 {
			o := Options{Store: st, Client: client.New(client.Options{}), Ref: image.Reference{Domain: registry, Path: "test/image", Tag: fmt.Sprint(tag)}, Drop: tag == 1}
			o.large, o.minPiece, o.starving = 2<<20, store.Block, 1
			go func() {
				_, err := Pull(ctx, o)
				done <- err
			}()
		}
		fail(<-done)
		_, err := st.GC(ctx) // while the others pull
		fail(err)
		fail(<-done)
		fail(<-done)
		names, err := st.Names()
		fail(err)
		for _, n := range names {
			fail(st.RemoveName(n.Name))
		}
		_, err = st.GC(ctx)
		fail(err)
	}
}
