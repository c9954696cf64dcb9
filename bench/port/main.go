// Command port measures published ports, ours and the peers' side by side, as far as they are installed: bytes to and
// from a container, and the time until one byte comes back, as another machine has it (a network namespace behind a veth
// pair) and as this machine has it at 127.0.0.1.
//
//	go run ./bench/port [-n rounds] [-for duration] [-with peers] [-newest folder] [-bin folder]
//
// Package peers says where.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"cale/bench/peers"
)

var (
	rounds   = flag.Int("n", 5, "rounds")
	duration = flag.Duration("for", time.Second, "how long bytes flow in a round")
)

func main() { peers.Main(run) }

// figures are what one way to a port was found to do, a round each.
type figures struct {
	down, up []float64       // Gbit/s
	answer   []time.Duration // the median of many
}

func run(ctx context.Context, bin string) error {
	program, err := server(ctx)
	if err != nil {
		return err
	}
	stacks, done, err := peers.Stacks(ctx, bin, program)
	defer done()
	if err != nil {
		return err
	}
	away, end, err := another()
	if err != nil {
		return err
	}
	defer end()
	ways := []way{{"from another machine", away, hostAddress}, {"from this machine", nil, "127.0.0.1"}}
	all := make([][]figures, len(stacks)) // of each stack each way's
	for i, s := range stacks {
		all[i] = make([]figures, len(ways))
		port := 7001 + i
		id, err := s.Run(ctx, slices.Concat([]string{"run", "-d", "-p", fmt.Sprintf("%d:7000", port)}, s.Flags, []string{s.Image})...)
		if err != nil {
			if i == 0 {
				return err
			}
			fmt.Printf("  %s: %v\n", s.Name, err)
			continue
		}
		defer func() { _, _ = s.Run(context.WithoutCancel(ctx), "rm", "-f", id) }()
	}
	for range *rounds {
		for i, s := range stacks {
			for j, w := range ways {
				if err := w.measure(&all[i][j], 7001+i); err != nil {
					if i == 0 {
						return fmt.Errorf("%s, %s: %w", s.Name, w.name, err)
					}
					fmt.Printf("  %s, %s: %v\n", s.Name, w.name, err)
				}
			}
		}
	}
	for j, w := range ways {
		fmt.Printf("a published port, %s (%d rounds)\n", w.name, *rounds)
		report(stacks, all, j)
	}
	return nil
}

func report(stacks []*peers.Stack, all [][]figures, way int) {
	ours := all[0][way]
	for i, s := range stacks {
		f := all[i][way]
		if len(f.answer) < *rounds {
			continue
		}
		line := fmt.Sprintf("  %-10s %6.2f Gbit/s down, %6.2f up, answers after %6.1f µs", s.Name, median(f.down), median(f.up), us(median(f.answer)))
		if i > 0 {
			line += fmt.Sprintf("   ours has %.2f and %.2f of that, and answers after %.2f of it", median(ours.down)/median(f.down),
				median(ours.up)/median(f.up), us(median(ours.answer))/us(median(f.answer)))
		}
		fmt.Println(line)
	}
}

func median[T float64 | time.Duration](list []T) T {
	slices.Sort(list)
	return list[len(list)/2]
}

func us(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// server builds the program that containers run.
func server(ctx context.Context) ([]byte, error) {
	_, here, _, ok := runtime.Caller(0)
	if !ok {
		return nil, fmt.Errorf("the server's source folder is unknown")
	}
	file := filepath.Join(peers.Dir, "server")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", file, "./server")
	cmd.Dir, cmd.Env = filepath.Dir(here), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the server: %w\n%s", err, out)
	}
	return os.ReadFile(file)
}
