package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"cale/bench/peers"
	"cale/runtime"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// breakdown prints where the time of a run goes: the kernel's steps as the floor takes them, one after another, what a
// run takes when no program has to be started for it, and what the start of a runtime's program takes that does nothing.
func breakdown(ctx context.Context, list []contender, floor []string, parent string) error {
	s := config(parent + "/c")
	err := race(ctx, len(list), func(i, round int, t times) (string, error) {
		err := t.command(ctx, "start of the program", []string{list[i].path, "--version"})
		if err == nil && i == 0 {
			began := time.Now()
			err = runByCall(ctx, s, round)
			t["run by a call, no seccomp"] = append(t["run by a call, no seccomp"], time.Since(began))
		}
		return list[i].name, err
	}, "start of the program", "run by a call, no seccomp")
	if err != nil {
		return err
	}
	return floorSteps(ctx, floor)
}

// runByCall is a run as a shim makes one: the container's whole life without a runtime's program.
func runByCall(ctx context.Context, s *specs.Spec, round int) error {
	ct, err := runtime.Run(ctx, runtime.Options{
		ID: fmt.Sprintf("call-%d", round), Bundle: bareBundle, StateDir: peers.Dir + "/state-call", Spec: s,
	})
	if err != nil {
		return err
	}
	_, err = unix.Wait4(ct.InitPid(), nil, 0, nil)
	return errors.Join(err, ct.Delete(true))
}

// floorSteps prints the medians of what the floor says of its steps.
func floorSteps(ctx context.Context, floor []string) error {
	if _, err := os.Stat(floor[0]); err != nil {
		return nil
	}
	var order []string
	t := times{}
	for range *rounds {
		cmd := exec.CommandContext(ctx, floor[0], floor[1:]...)
		cmd.Env = append(os.Environ(), "STEPS=1")
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("floor: %w", err)
		}
		for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
			what, us, _ := strings.Cut(lines.Text(), ": ")
			n, err := strconv.Atoi(us)
			if err != nil {
				return fmt.Errorf("floor: %q", lines.Text())
			}
			if t[what] == nil {
				order = append(order, what)
			}
			t[what] = append(t[what], time.Duration(n)*time.Microsecond)
		}
	}
	fmt.Printf("the floor's steps (%d rounds)\n", *rounds)
	for _, what := range order {
		fmt.Printf("  %-36s median %8.2f ms\n", what, ms(median(t[what])))
	}
	return nil
}
