// Command load measures many containers at once: how fast many clients start them, side by side with the peers; and
// for ours with all of them running, how long lists, inspections and statistics take, how long the engine takes to be
// there again after it was killed, and what it all takes of memory.
//
//	go run ./bench/load [-n running] [-at-once starts] [-rate containers] [-clients n] [-with peers] [-newest folder] [-bin folder]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"cale/bench/peers"
)

var (
	count   = flag.Int("n", 500, "containers of ours that run at once")
	atOnce  = flag.Int("at-once", 20, "starts at a time until they do")
	rated   = flag.Int("rate", 100, "containers to start on each stack for its rate")
	clients = flag.Int("clients", 10, "clients that start them")
)

func main() { peers.Main(run) }

func run(ctx context.Context, bin string) error {
	stacks, done, err := peers.Stacks(ctx, bin, peers.Pause())
	defer done()
	if err != nil {
		return err
	}
	fmt.Printf("%d containers by %d clients\n", *rated, *clients)
	ours := 0.0
	for i, s := range stacks {
		rate, err := rateOf(ctx, s)
		switch {
		case err != nil && (i == 0 || ctx.Err() != nil):
			return err
		case err != nil:
			fmt.Printf("  %v\n", err)
		case i == 0:
			ours = rate
			fmt.Printf("  %-10s %6.1f a second\n", s.Name, rate)
		default:
			fmt.Printf("  %-10s %6.1f a second: ours is %.1f times that\n", s.Name, rate, ours/rate)
		}
	}
	return many(ctx, stacks[0])
}

// startAll starts containers, so many at a time.
func startAll(ctx context.Context, s *peers.Stack, n, atOnce int) (ids []string, took time.Duration, err error) {
	var next atomic.Int64
	var mu sync.Mutex
	var all sync.WaitGroup
	var errs []error
	began := time.Now()
	for range atOnce {
		all.Go(func() {
			for next.Add(1) <= int64(n) {
				id, err := s.Run(ctx, slices.Concat([]string{"run", "-d"}, s.Flags, []string{s.Image})...)
				mu.Lock()
				if err != nil {
					errs = append(errs, err)
					next.Store(int64(n))
				} else {
					ids = append(ids, id)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return ids, time.Since(began), errors.Join(errs...)
}

func removeAll(ctx context.Context, s *peers.Stack, ids []string) {
	for chunk := range slices.Chunk(ids, 50) {
		_, _ = s.Run(context.WithoutCancel(ctx), append([]string{"rm", "-f"}, chunk...)...)
	}
}

func rateOf(ctx context.Context, s *peers.Stack) (float64, error) {
	ids, took, err := startAll(ctx, s, *rated, *clients)
	defer removeAll(ctx, s, ids)
	return float64(len(ids)) / took.Seconds(), err
}

// many has ours run as many as it should, and asks it things.
func many(ctx context.Context, s *peers.Stack) error {
	ids, took, err := startAll(ctx, s, *count, *atOnce)
	defer func() {
		began := time.Now()
		removeAll(ctx, s, ids)
		fmt.Printf("  rm -f of all: %.1f s\n", time.Since(began).Seconds())
	}()
	if err != nil {
		return err
	}
	fmt.Printf("%d running, %d starts at a time: %.1f a second\n", len(ids), *atOnce, float64(len(ids))/took.Seconds())
	time.Sleep(2 * time.Second)
	for _, q := range []struct {
		name string
		args []string
	}{
		{"ps", []string{"ps", "-q"}}, {"inspect of one", []string{"inspect", ids[0]}}, {"inspect of all", append([]string{"inspect"}, ids...)},
		{"stats of one", []string{"stats", "--no-stream", ids[0]}}, {"stats of all", []string{"stats", "--no-stream"}},
	} {
		began := time.Now()
		if _, err := s.Run(ctx, q.args...); err != nil {
			return err
		}
		fmt.Printf("  %-22s %8.1f ms\n", q.name, ms(time.Since(began)))
	}
	text, err := os.ReadFile(peers.Dir + "/cale/run/caled.pid")
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	for range 3 {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			return err
		}
		began := time.Now()
		if _, err := s.Run(ctx, "version"); err != nil {
			return err
		}
		fmt.Printf("  %-22s %8.1f ms\n", "engine killed, back", ms(time.Since(began)))
		if text, err = os.ReadFile(peers.Dir + "/cale/run/caled.pid"); err != nil {
			return err
		}
		if pid, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
			return err
		}
	}
	out, err := s.Run(ctx, "ps", "-q")
	if err != nil {
		return err
	}
	if n := len(strings.Fields(out)); n != len(ids) {
		return fmt.Errorf("after that %d of %d containers run", n, len(ids))
	}
	time.Sleep(2 * time.Second)
	shims, n, err := peers.PSS(s.Shims)
	if err != nil {
		return err
	}
	engine, _, err := peers.PSS(s.Daemons)
	if err != nil {
		return err
	}
	fmt.Printf("  memory: %.0f KiB a container (%d supervisors and keepers), the engine %d KiB\n", float64(shims)/float64(len(ids)), n, engine)
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
