// Command memory measures the memory of idle containers, ours and the peers': the proportional set size (PSS, where
// shared pages count by their sharers) of what each stack keeps running once, and for each container. The contained
// program itself takes next to nothing.
//
//	go run ./bench/memory [-n containers] [-with peers] [-newest folder] [-bin folder]
package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"time"

	"cale/bench/peers"
)

var (
	count = flag.Int("n", 10, "containers to start on each stack")
)

func main() { peers.Main(run) }

func run(ctx context.Context, bin string) error {
	stacks, done, err := peers.Stacks(ctx, bin, peers.Pause())
	defer done()
	if err != nil {
		return err
	}
	ours := 0.0
	for i, s := range stacks {
		each, err := one(ctx, s)
		if err != nil && i > 0 && ctx.Err() == nil {
			fmt.Printf("  %v\n", err)
			continue
		}
		if err != nil {
			return err
		}
		if i == 0 {
			ours = each
		} else if ours > 0 {
			fmt.Printf("  %-10s %25.1f times ours\n", "", each/ours)
		}
	}
	return nil
}

// one starts the containers on one stack, prints its memory in KiB and returns that of one container.
func one(ctx context.Context, s *peers.Stack) (float64, error) {
	var ids []string
	defer func() {
		if len(ids) > 0 {
			_, _ = s.Run(context.WithoutCancel(ctx), append([]string{"rm", "-f"}, ids...)...)
		}
	}()
	began := time.Now()
	for range *count {
		id, err := s.Run(ctx, slices.Concat([]string{"run", "-d"}, s.Flags, []string{s.Image})...)
		if err != nil {
			return 0, err
		}
		ids = append(ids, id)
	}
	took := time.Since(began) / time.Duration(*count)
	time.Sleep(2 * time.Second) // garbage collectors and page frees settle
	once, _, err := peers.PSS(s.Daemons)
	if err != nil {
		return 0, err
	}
	all, n, err := peers.PSS(s.Shims)
	if err != nil {
		return 0, err
	}
	each := float64(all) / float64(*count)
	fmt.Printf("  %-10s %8.0f KiB a container (%d supervisors of %d containers), %8d KiB once; %.1f ms a start\n",
		s.Name, each, n, *count, once, float64(took.Microseconds())/1000)
	return each, nil
}
