package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"cale/runtime/launch"
	"cale/runtime/linux"
	"cale/runtime/spec"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Kinds of hooks that run in the container's namespaces: before its root is entered, and after.
const (
	createContainer = "createContainer"
	startContainer  = "startContainer"
)

// createHooks runs the hooks of a creation. createContainer hooks run in the container's namespaces.
func (c *Container) createHooks(p *launch.Proc) error {
	h := c.spec.Hooks
	if h == nil {
		return nil
	}
	//lint:ignore SA1019 prestart is deprecated and still in use everywhere
	if err := c.runHooks("prestart", h.Prestart, Created, nil); err != nil {
		return err
	}
	if err := c.runHooks("createRuntime", h.CreateRuntime, Creating, nil); err != nil {
		return err
	}
	return c.runHooks(createContainer, h.CreateContainer, Creating, p.PidFD)
}

// startHooks runs the startContainer hooks, in the container's namespaces and root.
func (c *Container) startHooks() error {
	h := c.spec.Hooks
	if h == nil || len(h.StartContainer) == 0 {
		return nil
	}
	f, err := c.openInit()
	if err != nil {
		return err
	}
	defer f.Close()
	hooks := slices.Clone(h.StartContainer)
	for i := range hooks {
		if hooks[i].Env == nil && c.spec.Process != nil {
			hooks[i].Env = c.spec.Process.Env // as runc does
		}
	}
	return c.runHooks(startContainer, hooks, Created, f)
}

// poststart runs the poststart hooks. One that fails ends the container (runtime.md, lifecycle, step 9).
func (c *Container) poststart(s *specs.Spec) error {
	if s.Hooks == nil || len(s.Hooks.Poststart) == 0 {
		return nil
	}
	c.awaitFirstRest()
	err := c.runHooks("poststart", s.Hooks.Poststart, Running, nil)
	if err != nil {
		_ = c.Kill(unix.SIGKILL, true)
	}
	return err
}

// awaitFirstRest waits until the program has nothing to do for the first time, or has ended, or has had 20 ms. It was
// executed, but who hooks in behind that expects a program that runs, not one that is still being loaded.
func (c *Container) awaitFirstRest() {
	for range 20 {
		st, err := linux.ReadProcessStat(c.rec.Pid)
		if err != nil || st.Start != c.rec.PidStart || st.State != 'R' {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// HookError is a hook that failed.
type HookError struct {
	Kind   string // as in the configuration
	Number int    // its place among those of its kind, from 0
	Err    error
}

func (e *HookError) Error() string {
	return fmt.Sprintf("error running %s hook #%d: %v", e.Kind, e.Number, e.Err)
}

func (e *HookError) Unwrap() error { return e.Err }

// poststop runs the poststop hooks; the container is gone whatever they say.
func (c *Container) poststop() {
	hooks, err := spec.Hooks(filepath.Join(c.dir, configFile))
	if err != nil || hooks == nil {
		return
	}
	for i, h := range hooks.Poststop {
		var hook *HookError
		if errors.As(c.runHooks("poststop", []specs.Hook{h}, Stopped, nil), &hook) && c.Warn != nil {
			hook.Number = i
			var exit *exec.ExitError
			if errors.As(hook.Err, &exit) && exit.Exited() {
				// crun's words, inside of runc's.
				hook.Err = fmt.Errorf("poststop hook failed with exit code %d: %w", exit.ExitCode(), hook.Err)
			}
			c.Warn(hook.Error())
		}
	}
}

// runHooks runs hooks one after the other, with the container's state on their stdin.
func (c *Container) runHooks(kind string, hooks []specs.Hook, status Status, inside *os.File) error {
	if len(hooks) == 0 {
		return nil
	}
	st, err := c.State()
	if err != nil {
		return err
	}
	st.Status = status
	if status != Stopped {
		st.Pid = c.rec.Pid
	}
	state, err := json.Marshal(specs.State{Version: st.Version, ID: st.ID, Status: specs.ContainerState(st.Status), Pid: st.Pid,
		Bundle: st.Bundle, Annotations: st.Annotations})
	if err != nil {
		return err
	}
	for i, h := range hooks {
		if inside != nil {
			err = c.runInside(h, state, inside, kind)
		} else {
			err = c.runOutside(h, state)
		}
		if err != nil {
			return &HookError{Kind: kind, Number: i, Err: err}
		}
	}
	return nil
}

// runOutside runs a hook in the runtime's namespaces.
func (c *Container) runOutside(h specs.Hook, state []byte) error {
	ctx, cancel := hookContext(h)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.Path)
	cmd.Args = hookArgs(h)
	cmd.Env = h.Env // without one, the runtime's own, as in runc and crun
	cmd.Dir = c.rec.Bundle
	cmd.Stdin = bytes.NewReader(state)
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &limited{b: &out}, &limited{b: &out}
	err := cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("hook ran past specified timeout of %ds", *h.Timeout)
	}
	if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("%w, output: %s", err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

func hookContext(h specs.Hook) (context.Context, context.CancelFunc) {
	if h.Timeout == nil {
		return context.WithCancel(context.Background())
	}
	return context.WithTimeout(context.Background(), time.Duration(*h.Timeout)*time.Second)
}

// hookArgs is a hook's argv, as execv takes it: the path is not part of it.
func hookArgs(h specs.Hook) []string {
	if len(h.Args) == 0 {
		return []string{h.Path}
	}
	return h.Args
}

// limited keeps the first part of what is written.
type limited struct{ b *bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := 4096 - l.b.Len(); room > 0 {
		l.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
