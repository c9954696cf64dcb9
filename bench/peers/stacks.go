package peers

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"cale/runtime/cgroup"
	"cale/test/images"

	"golang.org/x/sys/unix"
)

// Stack is a command line that takes Docker's verbs.
type Stack struct {
	Name    string
	Command []string
	Env     []string
	// Image is what its registry has as "image:latest".
	Image string
	// Flags are what "run" needs beside its usual ones.
	Flags []string
	// Daemons and Shims are the programs that are there once, and for each container.
	Daemons, Shims []string
}

// Run runs a verb and returns its output.
func (s *Stack) Run(ctx context.Context, args ...string) (string, error) {
	return output(ctx, s.Env, append(s.Command[:len(s.Command):len(s.Command)], args...)...)
}

// Stacks are ours, first, and those installed, each with an image of busybox and the program /program, its command, pulled
// from one registry (ours). dockerd is started for the occasion; the machine's own one isn't touched. What is missing is said on
// standard output. Done ends what was started, also after an error.
func Stacks(ctx context.Context, bin string, program []byte) (list []*Stack, done func(), err error) {
	var undo []func()
	done = func() {
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}
	files, err := images.BusyboxFiles()
	if err != nil {
		return nil, done, err
	}
	img, err := images.New(images.Spec{
		Layers: [][]images.File{append(files, images.File{Name: "program", Mode: 0o755, Data: program})},
		Run:    images.Run{Env: []string{"PATH=/usr/bin:/usr/sbin:/bin:/sbin"}, Cmd: []string{"/program"}},
	})
	if err != nil {
		return nil, done, err
	}
	ours := &Stack{Name: "cale", Command: []string{bin + "/cale"},
		Env:     []string{"CALE_ROOT=" + Dir + "/cale/root", "CALE_RUN=" + Dir + "/cale/run"},
		Daemons: []string{"caled"}, Shims: []string{"cale-shim"}}
	undo = append(undo, func() { Stop(Dir + "/cale/run/caled.pid") })
	address, err := ours.Run(ctx, "registry", "--listen", "127.0.0.1:0", "-q")
	if err != nil {
		return nil, done, err
	}
	image := address + "/image:latest"
	if err := img.Push(ctx, address, "image:latest"); err != nil {
		return nil, done, err
	}
	docker := &Stack{Name: "docker", Command: []string{"docker"},
		Env:     []string{"DOCKER_HOST=unix://" + Dir + "/docker/sock", "DOCKER_CONFIG=" + Dir + "/docker/config"},
		Daemons: []string{"dockerd", "containerd"}, Shims: []string{"containerd-shim-runc-v2"}}
	podman := &Stack{Name: "podman", Command: []string{"podman"}, Shims: []string{"conmon"},
		Flags: []string{"--pull=never", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"}} // it would raise them, which not every root may
	for _, name := range []string{"/libpod_parent", "/docker"} {
		undo = append(undo, leaves(name))
	}
	for _, s := range []*Stack{ours, docker, podman} {
		if s.Image = image; s != ours && !TakesPart(s.Name) {
			continue
		}
		_, err := exec.LookPath(s.Command[0])
		pull := []string{"pull", "-q", image}
		switch s {
		case docker:
			if err == nil {
				err = dockerd(ctx, s, &undo)
			}
		case podman:
			pull = []string{"pull", "-q", "--tls-verify=false", image}
		}
		if err == nil {
			_, err = s.Run(ctx, pull...)
		}
		if err == nil {
			list = append(list, s)
		} else if s == ours {
			return nil, done, err
		} else {
			fmt.Printf("  %s cannot take part: %v\n", s.Name, err)
		}
	}
	return list, done, nil
}

// leaves is for a control group that a peer makes and leaves: removed takes it away, if it wasn't there before.
func leaves(name string) (removed func()) {
	g, err := cgroup.Open(name, cgroup.Options{})
	if err != nil || g.Exists() {
		return func() {}
	}
	return func() { _ = g.Destroy() }
}

// dockerd starts a Docker engine with all its state below Dir.
func dockerd(ctx context.Context, s *Stack, undo *[]func()) error {
	d := Dir + "/docker"
	if err := os.MkdirAll(d, 0o700); err != nil {
		return err
	}
	log, err := os.Create(d + "/log")
	if err != nil {
		return err
	}
	defer log.Close()
	if err := os.WriteFile(d+"/daemon.json", []byte("{}"), 0o600); err != nil {
		return err
	}
	cmd := exec.Command("dockerd", "--data-root", d+"/data", "--exec-root", d+"/exec", "--pidfile", d+"/pid",
		"--config-file", d+"/daemon.json", "-H", "unix://"+d+"/sock")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	*undo = append(*undo, func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait()
	})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		_, err := s.Run(ctx, "version")
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(end) {
			text, _ := os.ReadFile(d + "/log")
			return fmt.Errorf("dockerd does not answer: %s", text[max(0, len(text)-600):])
		}
	}
}

// Stop ends the process a pid file names and waits for it.
func Stop(pidFile string) {
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 2 {
		return
	}
	for end := time.Now().Add(10 * time.Second); unix.Kill(pid, unix.SIGTERM) == nil && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
}

func output(ctx context.Context, env []string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return strings.TrimSpace(out.String()), nil
}
