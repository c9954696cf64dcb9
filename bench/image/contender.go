package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cale/bench/peers"

	"golang.org/x/sys/unix"
)

// contender is a stack with the verbs that are raced.
type contender struct {
	name    string
	daemons []string // programs that work for it all the time
	without string   // part of the command line of daemons of that name that are not its own

	pull, remove, push, untag func(ctx context.Context, ref string) error
	tag                       func(ctx context.Context, ref, to string) error
	out                       bool
}

// verbs are those of a command line like Docker's.
func verbs(s *peers.Stack) *contender {
	do := func(ctx context.Context, args ...string) error {
		return command(ctx, s.Env, append(slices.Clone(s.Command), args...)...)
	}
	c := &contender{name: s.Name, daemons: s.Daemons, without: peers.Dir + "/source"}
	if s.Name == "docker" {
		c.without = peers.Dir + "/containerd"
	}
	pull := []string{"pull", "-q"}
	if s.Name == "podman" {
		pull = append(pull, "--tls-verify=false")
	}
	c.pull = func(ctx context.Context, ref string) error { return do(ctx, append(pull, ref)...) }
	c.remove = func(ctx context.Context, ref string) error {
		_ = do(ctx, "rmi", "-f", ref) // it need not be there
		return do(ctx, "image", "prune", "-f")
	}
	c.push = func(ctx context.Context, ref string) error { return do(ctx, "push", "-q", ref) }
	c.tag = func(ctx context.Context, ref, to string) error { return do(ctx, "tag", ref, to) }
	c.untag = func(ctx context.Context, ref string) error { return do(ctx, "rmi", ref) }
	return c
}

// containerd starts the one in PATH, with all its state below peers.Dir.
func containerd(ctx context.Context) (c *contender, stop func(), err error) {
	dir := peers.Dir + "/containerd"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	log, err := os.Create(dir + "/log")
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	conf := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n", dir+"/root", dir+"/run", dir+"/sock")
	if err := os.WriteFile(dir+"/config.toml", []byte(conf), 0o600); err != nil {
		return nil, nil, err
	}
	cmd := exec.Command("containerd", "-c", dir+"/config.toml")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait()
	}
	do := func(ctx context.Context, args ...string) error {
		return command(ctx, nil, append([]string{"ctr", "-a", dir + "/sock"}, args...)...)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if err = do(ctx, "version"); err == nil {
			break
		}
		if ctx.Err() != nil || time.Now().After(end) {
			stop()
			return nil, nil, err
		}
	}
	c = &contender{name: "containerd", daemons: []string{"containerd"}, without: peers.Dir + "/docker"}
	c.pull = func(ctx context.Context, ref string) error { return do(ctx, "images", "pull", "--plain-http", ref) }
	c.remove = func(ctx context.Context, ref string) error {
		_ = do(ctx, "images", "rm", "--sync", ref)
		return do(ctx, "content", "prune", "references")
	}
	return c, stop, nil
}

// command runs one and waits for it.
func command(ctx context.Context, env []string, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return nil
}

// measured is what a contender took, one entry a round.
type measured struct {
	wall, cpu []time.Duration
	memory    int64 // bytes, the most of its largest process in any round
}

// measure runs a step of a contender's and adds what it took.
func (c *contender) measure(m *measured, step func() error) error {
	pids := c.pids()
	for _, pid := range pids {
		// 5 forgets the most that a process had in memory so far.
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
			return err
		}
	}
	before, began := c.cpu(pids), time.Now()
	if err := step(); err != nil {
		return err
	}
	m.wall = append(m.wall, time.Since(began))
	m.cpu = append(m.cpu, c.cpu(pids)-before)
	for _, pid := range pids {
		m.memory = max(m.memory, status(pid, "VmHWM:")<<10)
	}
	return nil
}

// cpu is what the daemons and all commands that have ended have used.
func (c *contender) cpu(pids []int) time.Duration {
	var sum time.Duration
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_CHILDREN, &r) == nil {
		sum = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	for _, pid := range pids {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, _ := strings.Cut(string(text), ") ")
		f := strings.Fields(rest)
		if len(f) < 15 {
			continue
		}
		for _, i := range []int{11, 12, 13, 14} { // its own and its children's, in hundredths of a second
			n, _ := strconv.ParseInt(f[i], 10, 64)
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}

// pids are the contender's daemons: those in this network namespace, which the benchmark has to itself.
func (c *contender) pids() []int {
	here, _ := os.Readlink("/proc/self/ns/net")
	all, _ := filepath.Glob("/proc/[0-9]*")
	var out []int
	for _, dir := range all {
		name, _ := os.ReadFile(dir + "/comm")
		if !slices.Contains(c.daemons, strings.TrimSpace(string(name))) {
			continue
		}
		if ns, _ := os.Readlink(dir + "/ns/net"); ns != here {
			continue
		}
		argv, _ := os.ReadFile(dir + "/cmdline")
		env, _ := os.ReadFile(dir + "/environ")
		if c.without != "" && (bytes.Contains(argv, []byte(c.without)) || bytes.Contains(env, []byte(c.without))) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// status is a number of a process's status, in its unit.
func status(pid int, field string) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(text), field)
	f := strings.Fields(rest)
	if len(f) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(f[0], 10, 64)
	return n
}
