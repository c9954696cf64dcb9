package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	"cale/bench/peers"
)

// work is what the contenders are timed at, in one step or several.
type work struct {
	name  string
	steps []string
	long  bool
	takes func(s *peers.Stack) bool
	// before, where there is one, makes what the rounds need; after ends it, also after an error.
	before func(ctx context.Context, s *peers.Stack) (after func(), err error)
	round  func(ctx context.Context, s *peers.Stack, n int) ([]time.Duration, error)
}

var works = []*work{
	ran("none", "run --rm --network none", "--network", "none"),
	ran("bridge", "run --rm"),
	ran("port", "run --rm with a published port", "-p", "8080:80"),
	{name: "exec", steps: []string{"exec in a running container"}, takes: dockerLike, before: idle,
		round: func(ctx context.Context, s *peers.Stack, _ int) ([]time.Duration, error) {
			return once(timed(ctx, s.Env, slices.Concat(s.Command, []string{"exec", "bench-idle", "/program"})...))
		}},
	{name: "rm", steps: []string{"rm -f of ten"}, long: true, takes: dockerLike, round: removal},
	composed("compose", "service_started", "compose up -d of three services", "compose down"),
	composed("healthy", "service_healthy", "compose up -d that waits until one is healthy (half a second of it is Compose's own)", "compose down of these"),
}

// dockerLike says whether a stack takes Docker's verbs.
func dockerLike(s *peers.Stack) bool { return s.Name != "ctr" }

func once(t time.Duration, err error) ([]time.Duration, error) { return []time.Duration{t}, err }

// ran is a container that ends at once. ctr, which makes no networks, takes part where none is wanted.
func ran(name, title string, flags ...string) *work {
	return &work{name: name, steps: []string{title}, takes: func(s *peers.Stack) bool { return dockerLike(s) || name == "none" },
		round: func(ctx context.Context, s *peers.Stack, n int) ([]time.Duration, error) {
			argv := slices.Concat(s.Command, []string{"run", "--rm"}, s.Flags, flags, []string{s.Image})
			if !dockerLike(s) {
				argv = slices.Concat(s.Command, []string{"run", "--rm", s.Image, fmt.Sprintf("bench-%d", n)})
			}
			return once(timed(ctx, s.Env, argv...))
		}}
}

// idle has a container run for others to be executed in.
func idle(ctx context.Context, s *peers.Stack) (after func(), err error) {
	const name = "bench-idle"
	remove := func() { _, _ = s.Run(context.WithoutCancel(ctx), "rm", "-f", name) }
	remove() // the same engine may be there twice
	_, err = s.Run(ctx, slices.Concat([]string{"run", "-d", "--name", name}, s.Flags, []string{s.Image, "sleep", "1000000"})...)
	return remove, err
}

func removal(ctx context.Context, s *peers.Stack, _ int) ([]time.Duration, error) {
	argv := slices.Concat(s.Command, []string{"rm", "-f"})
	if s.Name == "podman" {
		argv = append(argv, "-t", "0") // it would ask first, and wait
	}
	for range 10 {
		id, err := s.Run(ctx, slices.Concat([]string{"run", "-d"}, s.Flags, []string{s.Image, "sleep", "1000000"})...)
		if err != nil {
			return nil, err
		}
		argv = append(argv, id)
	}
	return once(timed(ctx, s.Env, argv...))
}

//go:embed compose.yaml
var services []byte

// composed is a project of Compose's, whose second service waits for the first to meet a condition.
func composed(name, condition string, steps ...string) *work {
	compose := func(s *peers.Stack, args ...string) (env, argv []string) {
		socket := "/cale/run/docker.sock"
		if s.Name == "docker" {
			socket = "/docker/sock"
		}
		return []string{"DOCKER_HOST=unix://" + peers.Dir + socket, "DOCKER_CONFIG=" + peers.Dir + "/docker/config", "IMAGE=" + s.Image, "CONDITION=" + condition},
			append([]string{"docker-compose", "-p", "bench-" + s.Name, "-f", peers.Dir + "/compose.yaml"}, args...)
	}
	return &work{name: name, steps: steps, long: true,
		takes: func(s *peers.Stack) bool {
			_, err := exec.LookPath("docker-compose")
			return err == nil && (s.Name == "cale" || s.Name == "docker")
		},
		before: func(ctx context.Context, s *peers.Stack) (after func(), err error) {
			down := func() {
				env, argv := compose(s, "down", "-v", "-t", "1")
				_, _ = timed(context.WithoutCancel(ctx), env, argv...)
			}
			return down, os.WriteFile(peers.Dir+"/compose.yaml", services, 0o644)
		},
		round: func(ctx context.Context, s *peers.Stack, _ int) ([]time.Duration, error) {
			env, argv := compose(s, "up", "-d")
			up, err := timed(ctx, env, argv...)
			if err != nil {
				return nil, err
			}
			env, argv = compose(s, "down")
			down, err := timed(ctx, env, argv...)
			return []time.Duration{up, down}, err
		}}
}
