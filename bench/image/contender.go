package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	"cale/bench/peers"

	"golang.org/x/sys/unix"
)

// contender is a stack with the verbs that are raced.
type contender struct {
	peers.Contender
	pull, remove, push, untag func(ctx context.Context, ref string) error
	tag                       func(ctx context.Context, ref, to string) error
}

// verbs are those of a command line like Docker's.
func verbs(s *peers.Stack) *contender {
	do := func(ctx context.Context, args ...string) error {
		return peers.Command(ctx, s.Env, append(slices.Clone(s.Command), args...)...)
	}
	c := &contender{Contender: peers.Contender{Name: s.Name, Daemons: s.Daemons, Without: peers.Dir + "/source"}}
	if s.Name == "docker" {
		c.Without = peers.Dir + "/containerd"
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
		return peers.Command(ctx, nil, append([]string{"ctr", "-a", dir + "/sock"}, args...)...)
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
	c = &contender{Contender: peers.Contender{Name: "containerd", Daemons: []string{"containerd"}, Without: peers.Dir + "/docker"}}
	c.pull = func(ctx context.Context, ref string) error { return do(ctx, "images", "pull", "--plain-http", ref) }
	c.remove = func(ctx context.Context, ref string) error {
		_ = do(ctx, "images", "rm", "--sync", ref)
		return do(ctx, "content", "prune", "references")
	}
	return c, stop, nil
}
