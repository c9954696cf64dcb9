// Command run measures how long a container of a program that does nothing takes, ours and the peers' (docker,
// podman) side by side, as far as they are installed. It prints medians and how many times longer the peers take.
//
//	go run ./bench/run [-n rounds] [-bin folder]
//
// Package peers says where.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	"cale/bench/peers"
)

var (
	rounds = flag.Int("n", 30, "rounds a contender runs")
)

func main() { peers.Main(run) }

func run(ctx context.Context, bin string) error {
	stacks, done, err := peers.Stacks(ctx, bin, peers.True())
	defer done()
	if err != nil {
		return err
	}
	var list []contender
	for _, s := range stacks {
		argv := slices.Concat(s.Command, []string{"run", "--rm"}, s.Flags, []string{s.Image})
		list = append(list, contender{s.Name, func(int) []string { return argv }, s.Env})
	}
	return race(ctx, "whole stack: run --rm", list)
}

// contender is one command line to be timed. Argv gets the round, for names.
type contender struct {
	name string
	argv func(round int) []string
	env  []string
}

// race runs all contenders in turn, so that what disturbs the machine disturbs all, and prints the outcome. The
// first two rounds warm up. A peer that fails is out; ours failing is an error.
func race(ctx context.Context, title string, list []contender) error {
	const warm = 2
	times := make([][]time.Duration, len(list))
	out := make([]bool, len(list))
	for round := range warm + *rounds {
		for i, c := range list {
			if out[i] {
				continue
			}
			took, err := timed(ctx, c, round)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil && i == 0:
				return err
			case err != nil:
				fmt.Printf("  %v\n", err)
				out[i] = true
			case round >= warm:
				times[i] = append(times[i], took)
			}
		}
	}
	fmt.Printf("%s (%d rounds)\n", title, *rounds)
	var ours time.Duration
	for i, c := range list {
		if out[i] {
			continue
		}
		t := times[i]
		slices.Sort(t)
		median := t[len(t)/2]
		line := fmt.Sprintf("  %-10s median %8.2f ms   least %8.2f ms", c.name, ms(median), ms(t[0]))
		if i == 0 {
			ours = median
		} else {
			line += fmt.Sprintf("   %5.1f times ours", float64(median)/float64(ours))
		}
		fmt.Println(line)
	}
	return nil
}

func timed(ctx context.Context, c contender, round int) (time.Duration, error) {
	argv := c.argv(round)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), c.env...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	began := time.Now()
	err := cmd.Run()
	took := time.Since(began)
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", c.name, err, bytes.TrimSpace(output.Bytes()))
	}
	return took, nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
