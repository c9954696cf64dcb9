package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"cale/runtime"

	"golang.org/x/sys/unix"
)

func cmdState(a *app, args []string) error {
	c, err := a.one("state", args)
	if err != nil {
		return err
	}
	s, err := c.State()
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(append(s.Indented(), '\n'))
	return err
}

func printJSON(v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(append(raw, '\n'))
	return err
}

func cmdKill(a *app, args []string) error {
	var all bool
	var f flags
	f.bool(&all, "all", "a")
	args, err := f.parse(args, true)
	if err != nil {
		return err
	}
	if err := exactly("kill", args, 1, 2); err != nil {
		return err
	}
	c, err := runtime.Load(a.root, args[0])
	if err != nil {
		return err
	}
	name := "SIGTERM"
	if len(args) == 2 {
		name = args[1]
	}
	sig, err := parseSignal(name)
	if err != nil {
		return err
	}
	err = c.Kill(sig, all)
	if all && errors.Is(err, runtime.ErrNotRunning) {
		return nil
	}
	return err
}

func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 0 || n > 64 {
			return 0, fmt.Errorf("unknown signal %q", s)
		}
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	if n, ok := strings.CutPrefix(name, "SIGRTMIN+"); ok {
		if i, err := strconv.Atoi(n); err == nil && i >= 0 && i <= 30 {
			return unix.Signal(34 + i), nil
		}
	}
	return 0, fmt.Errorf("unknown signal %q", s)
}

func cmdDelete(a *app, args []string) error {
	var force, pattern bool
	var f flags
	f.bool(&force, "force", "f")
	f.bool(&pattern, "regex", "r")
	args, err := f.parse(args, true)
	if err != nil {
		return err
	}
	if err := exactly("delete", args, 1, 1); err != nil {
		return err
	}
	if pattern {
		return a.deleteMatching(args[0], force)
	}
	return a.delete(args[0], force)
}

func (a *app) delete(id string, force bool) error {
	c, err := runtime.Load(a.root, id)
	if err != nil {
		if force && errors.Is(err, runtime.ErrNotFound) {
			return nil
		}
		return err
	}
	c.Warn = a.warn
	return c.Delete(force)
}

// deleteMatching deletes the containers whose IDs a regular expression of POSIX's extended kind matches anywhere, as
// crun has it. What can't be deleted keeps none of the others.
func (a *app) deleteMatching(pattern string, force bool) error {
	list, err := runtime.List(a.root)
	if err != nil {
		return err
	}
	var ids strings.Builder
	for _, s := range list {
		fmt.Fprintln(&ids, s.ID)
	}
	// By grep, because each start of this program would pay for package regexp.
	grep := exec.Command("grep", "-E", "-e", pattern)
	grep.Stdin = strings.NewReader(ids.String())
	out, err := grep.Output()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == 1: // none matches
	case exit != nil:
		return fmt.Errorf("regular expression %q: %s", pattern, strings.TrimSpace(string(exit.Stderr)))
	case err != nil:
		return err
	}
	var failed []error
	for _, id := range strings.Fields(string(out)) {
		if err := a.delete(id, force); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func cmdPause(a *app, args []string) error {
	c, err := a.one("pause", args)
	if err != nil {
		return err
	}
	return c.Pause()
}

func cmdResume(a *app, args []string) error {
	c, err := a.one("resume", args)
	if err != nil {
		return err
	}
	return c.Resume()
}

func cmdList(a *app, args []string) error {
	var quiet bool
	format := "table"
	var f flags
	f.bool(&quiet, "quiet", "q")
	f.str(&format, "format", "f")
	args, err := f.parse(args, true)
	if err != nil {
		return err
	}
	if err := exactly("list", args, 0, 0); err != nil {
		return err
	}
	if _, err := os.Stat(a.root); err != nil && a.rootSet {
		return err
	}
	list, err := runtime.List(a.root)
	if err != nil {
		return err
	}
	if quiet {
		for _, s := range list {
			fmt.Println(s.ID)
		}
		return nil
	}
	switch format {
	case "table":
		w := tabwriter.NewWriter(os.Stdout, 12, 1, 3, ' ', 0)
		fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
		for _, s := range list {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.Pid, s.Status, s.Bundle, s.Created.Format(time.RFC3339Nano), s.Owner)
		}
		return w.Flush()
	case "json":
		raw, err := json.Marshal(list)
		if err != nil {
			return err
		}
		fmt.Println(string(raw))
		return nil
	}
	return errors.New("invalid format option")
}

func cmdPs(a *app, args []string) error {
	format := "table"
	var f flags
	f.str(&format, "format", "f")
	args, err := f.parse(args, false)
	if err != nil {
		return err
	}
	if err := exactly("ps", args, 1, -1); err != nil {
		return err
	}
	c, err := runtime.Load(a.root, args[0])
	if err != nil {
		return err
	}
	pids, err := c.Pids()
	if err != nil {
		return err
	}
	switch format {
	case "json":
		if pids == nil {
			pids = []int{}
		}
		return json.NewEncoder(os.Stdout).Encode(pids)
	case "table":
	default:
		return errors.New("invalid format option")
	}
	psArgs := args[1:]
	if len(psArgs) == 0 {
		psArgs = []string{"-ef"}
	}
	out, err := exec.Command("ps", psArgs...).Output()
	if err != nil {
		return fmt.Errorf("ps: %w", err)
	}
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	column := -1
	for i, name := range strings.Fields(lines[0]) {
		if name == "PID" {
			column = i
		}
	}
	if column < 0 {
		return errors.New("couldn't find PID field in ps output")
	}
	fmt.Println(lines[0])
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		pid, err := strconv.Atoi(fields[column])
		if err != nil {
			return fmt.Errorf("unable to parse pid: %w", err)
		}
		for _, p := range pids {
			if p == pid {
				fmt.Println(line)
			}
		}
	}
	return nil
}
