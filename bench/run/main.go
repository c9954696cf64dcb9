// Command run measures what users wait for, ours and the peers' (docker, podman, ctr) side by side, as far as they are
// installed: a container of a program that does nothing, without a network, with one, with a published port; such a
// program in a container that runs; the removal of ten; three services of Compose's. Docker's own client takes part twice,
// with its engine and with ours. Medians are printed, and how many times longer the peers take.
//
//	go run ./bench/run [-n rounds] [-only regexp] [-with peers] [-newest folder] [-bin folder]
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
	"regexp"
	"slices"
	"time"

	"cale/bench/peers"
)

var (
	rounds = flag.Int("n", 30, "rounds a contender runs; a third of them of what takes a second and more")
	only   = flag.String("only", ".", "the works to be measured")
)

func main() { peers.Main(run) }

func run(ctx context.Context, bin string) error {
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	list, done, err := contenders(ctx, bin)
	defer done()
	if err != nil {
		return err
	}
	for _, w := range works {
		if !wanted.MatchString(w.name) || !w.takes(list[0]) {
			continue
		}
		if err := w.race(ctx, list); err != nil {
			return err
		}
	}
	return nil
}

// contenders are the stacks, ours first and again with Docker's client, and containerd's own command line last.
func contenders(ctx context.Context, bin string) (list []*peers.Stack, done func(), err error) {
	list, done, err = peers.Stacks(ctx, bin, peers.True())
	if err != nil {
		return nil, done, err
	}
	ours := list[0]
	if _, err := exec.LookPath("docker"); err == nil && peers.TakesPart(viaDocker) {
		list = slices.Insert(list, 1, &peers.Stack{Name: viaDocker, Command: []string{"docker"}, Image: ours.Image,
			Env: []string{"DOCKER_HOST=unix://" + peers.Dir + "/cale/run/docker.sock", "DOCKER_CONFIG=" + peers.Dir + "/docker/config"}})
	}
	if !peers.TakesPart("ctr") {
		return list, done, nil
	}
	ctr, stop, err := peers.Containerd(ctx)
	if err != nil {
		fmt.Printf("  containerd cannot take part: %v\n", err)
		return list, done, nil
	}
	before := done
	done = func() { stop(); before() }
	ctr.Image = ours.Image
	if _, err := ctr.Run(ctx, "images", "pull", "--plain-http", ctr.Image); err != nil {
		fmt.Printf("  containerd cannot take part: %v\n", err)
		return list, done, nil
	}
	return append(list, ctr), done, nil
}

// viaDocker is our engine with Docker's client.
const viaDocker = "cale-docker"

// race runs all contenders in turn, so that what disturbs the machine disturbs all, and prints the outcome. The
// first two rounds warm up. A peer that fails is out; ours failing is an error.
func (w *work) race(ctx context.Context, list []*peers.Stack) error {
	warm, rounds := 2, *rounds
	if w.long {
		warm, rounds = 1, max(rounds/3, 1)
	}
	steps := len(w.steps)
	times := make([][][]time.Duration, len(list)) // of each contender each step's
	out := make([]bool, len(list))
	for i, s := range list {
		out[i] = !w.takes(s)
		times[i] = make([][]time.Duration, steps)
		if out[i] || w.before == nil {
			continue
		}
		after, err := w.before(ctx, s)
		defer after()
		if err != nil {
			if i == 0 {
				return err
			}
			fmt.Printf("  %v\n", err)
			out[i] = true
		}
	}
	for round := range warm + rounds {
		for i, s := range list {
			if out[i] {
				continue
			}
			took, err := w.round(ctx, s, round)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil && i == 0:
				return err
			case err != nil:
				fmt.Printf("  %s: %v\n", s.Name, err)
				out[i] = true
			case round >= warm:
				for step, t := range took {
					times[i][step] = append(times[i][step], t)
				}
			}
		}
	}
	for step, title := range w.steps {
		fmt.Printf("%s (%d rounds)\n", title, rounds)
		var ours time.Duration
		for i, s := range list {
			if out[i] {
				continue
			}
			t := times[i][step]
			slices.Sort(t)
			median := t[len(t)/2]
			line := fmt.Sprintf("  %-11s median %8.2f ms   least %8.2f ms", s.Name, ms(median), ms(t[0]))
			if i == 0 {
				ours = median
			} else {
				line += fmt.Sprintf("   %5.2f times ours, ours is %.2f of it", float64(median)/float64(ours), float64(ours)/float64(median))
			}
			fmt.Println(line)
		}
	}
	return nil
}

// timed runs one command line and says how long that took.
func timed(ctx context.Context, env []string, argv ...string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	began := time.Now()
	err := cmd.Run()
	took := time.Since(began)
	if err != nil {
		return 0, fmt.Errorf("%v: %w: %s", argv, err, bytes.TrimSpace(output.Bytes()))
	}
	return took, nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
