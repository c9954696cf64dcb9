package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"cale/bench/peers"
	"cale/runtime"

	"golang.org/x/sys/unix"
)

// warm rounds come before those that count.
const warm = 2

// times are what one contender took, by what it did.
type times map[string][]time.Duration

// whole times "run" of a container that ends at once.
func whole(ctx context.Context, list []contender, floor []string) error {
	return race(ctx, len(list)+1, func(i, round int, t times) (string, error) {
		if i == len(list) {
			if _, err := os.Stat(floor[0]); err != nil {
				return "floor", err
			}
			return "floor", t.command(ctx, "run, no seccomp", floor)
		}
		c := list[i]
		id := fmt.Sprintf("%s-%d", c.name, round)
		err := t.command(ctx, "run", c.command("run", "--bundle", trueBundle, id))
		if err == nil {
			err = t.command(ctx, "run, no seccomp", c.command("run", "--bundle", bareBundle, id))
		}
		return c.name, err
	}, "run", "run, no seccomp")
}

// life times each step of a container that stays, and execute beside the programs' exec.
func life(ctx context.Context, list []contender, execute func() error) error {
	return race(ctx, len(list)+1, func(i, round int, t times) (string, error) {
		if i == len(list) {
			began := time.Now()
			err := execute()
			t["exec"] = append(t["exec"], time.Since(began))
			return "in a shim", err
		}
		c := list[i]
		id, pidFile := fmt.Sprintf("%s-%d", c.name, round), peers.Dir+"/pid"
		err := t.command(ctx, "create", c.command("create", "--bundle", pauseBundle, "--pid-file", pidFile, id))
		if err != nil {
			return c.name, err
		}
		text, err := os.ReadFile(pidFile)
		if err != nil {
			return c.name, err
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return c.name, err
		}
		for _, step := range [][]string{{"state", id}, {"start", id}, {"exec", id, "/true"}} {
			err = errors.Join(err, t.command(ctx, step[0], c.command(step...)))
		}
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
		return c.name, errors.Join(err, t.command(ctx, "delete", c.command("delete", id)))
	}, "create", "state", "start", "exec", "delete")
}

// inside starts a container and returns an exec in it as a shim does one: by a call instead of a program.
func inside(ctx context.Context, parent string) (execute func() error, done func(), err error) {
	s := config(parent + "/inside")
	s.Process.Args = []string{"/pause"}
	state := peers.Dir + "/state-inside"
	ct, err := runtime.Run(ctx, runtime.Options{ID: "inside", Bundle: pauseBundle, StateDir: state, Spec: s})
	if err != nil {
		return nil, nil, err
	}
	process := *s.Process
	process.Args = []string{"/true"}
	execute = func() error {
		p, err := ct.Exec(ctx, runtime.ExecOptions{Process: &process})
		if err != nil {
			return err
		}
		defer p.PidFD.Close()
		_, err = unix.Wait4(p.Pid, nil, 0, nil)
		return err
	}
	return execute, func() { _ = ct.Delete(true) }, nil
}

// memory prints the most memory that a runtime's program had.
func memory(ctx context.Context, list []contender) error {
	if _, err := os.Stat(peers.Dir + "/peak"); err != nil {
		return nil
	}
	fmt.Println("peak memory of run")
	for _, c := range list {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		argv := append([]string{peers.Dir + "/peak"}, c.command("run", "--bundle", trueBundle, "peak-"+c.name)...)
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.ExtraFiles = []*os.File{w}
		err = cmd.Run()
		w.Close()
		var kib int
		if err == nil {
			_, err = fmt.Fscan(r, &kib)
		}
		r.Close()
		if err != nil {
			fmt.Printf("  %s: %v\n", c.name, err)
			continue
		}
		fmt.Printf("  %-10s %8.1f MiB\n", c.name, float64(kib)/1024)
	}
	return nil
}

// race runs all contenders in turn, so that what disturbs the machine disturbs all, and prints the outcome. A peer
// that fails is out; ours, the first, failing is an error.
func race(ctx context.Context, n int, one func(i, round int, t times) (name string, err error), steps ...string) error {
	names, all, out := make([]string, n), make([]times, n), make([]bool, n)
	for round := range warm + *rounds {
		for i := range n {
			if out[i] {
				continue
			}
			t := times{}
			name, err := one(i, round, t)
			switch names[i] = name; {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil && i == 0:
				return err
			case err != nil:
				fmt.Printf("  %s is out: %v\n", name, err)
				out[i] = true
			case round >= warm:
				if all[i] == nil {
					all[i] = times{}
				}
				for step, took := range t {
					all[i][step] = append(all[i][step], took...)
				}
			}
		}
	}
	for _, step := range steps {
		fmt.Printf("%s (%d rounds)\n", step, *rounds)
		ours := median(all[0][step])
		for i, t := range all {
			if out[i] || len(t[step]) == 0 {
				continue
			}
			line := fmt.Sprintf("  %-10s median %8.2f ms   least %8.2f ms", names[i], ms(median(t[step])), ms(slices.Min(t[step])))
			if i > 0 {
				line += fmt.Sprintf("   %5.2f times ours", float64(median(t[step]))/float64(ours))
			}
			fmt.Println(line)
		}
	}
	return nil
}

// command runs a program to its end and notes how long it took.
func (t times) command(ctx context.Context, step string, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	// A file, since what a container inherits would keep a pipe open.
	output, err := os.CreateTemp(peers.Dir, "output")
	if err != nil {
		return err
	}
	defer os.Remove(output.Name())
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	began := time.Now()
	err = cmd.Run()
	t[step] = append(t[step], time.Since(began))
	if err != nil {
		text, _ := os.ReadFile(output.Name())
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(text))
	}
	return nil
}

func median(t []time.Duration) time.Duration {
	t = slices.Sorted(slices.Values(t))
	return t[len(t)/2]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
