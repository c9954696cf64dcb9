package main

import (
	"context"
	"slices"

	"cale/bench/peers"
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
	c := &contender{Contender: peers.Contender{Name: s.Name, Daemons: s.Daemons, Without: peers.Dir + "/registry/"}}
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

// containerd starts the one in PATH.
func containerd(ctx context.Context) (c *contender, stop func(), err error) {
	s, stop, err := peers.Containerd(ctx)
	if err != nil {
		return nil, nil, err
	}
	do := func(ctx context.Context, args ...string) error {
		_, err := s.Run(ctx, args...)
		return err
	}
	c = &contender{Contender: peers.Contender{Name: "containerd", Daemons: s.Daemons, Without: peers.Dir + "/docker"}}
	c.pull = func(ctx context.Context, ref string) error { return do(ctx, "images", "pull", "--plain-http", ref) }
	c.remove = func(ctx context.Context, ref string) error {
		_ = do(ctx, "images", "rm", "--sync", ref)
		return do(ctx, "content", "prune", "references")
	}
	return c, stop, nil
}
