package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"cale/runtime"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

type execFlags struct {
	console, cwd, user, process, pidFile, pidFDSocket, label, apparmor string
	env, caps, gids, cgroup                                            []string
	cgroups                                                            map[string]string
	tty, detach, noNewPrivs, ignorePaused                              bool
	preserve                                                           uint
}

func (e *execFlags) add(f *flags) {
	f.str(&e.console, "console-socket")
	f.str(&e.pidFDSocket, "pidfd-socket")
	f.str(&e.cwd, "cwd")
	f.list(&e.env, "env", "e")
	f.bool(&e.tty, "tty", "t")
	f.str(&e.user, "user", "u")
	f.list(&e.gids, "additional-gids", "g")
	f.str(&e.process, "process", "p")
	f.bool(&e.detach, "detach", "d")
	f.str(&e.pidFile, "pid-file")
	f.str(&e.label, "process-label")
	f.str(&e.apparmor, "apparmor")
	f.bool(&e.noNewPrivs, "no-new-privs")
	f.list(&e.caps, "cap", "c")
	f.count(&e.preserve, "preserve-fds")
	f.list(&e.cgroup, "cgroup")
	f.bool(&e.ignorePaused, "ignore-paused")
}

// processSpec is the process to run: from a file, or the container's own with what the options change.
func (e *execFlags) processSpec(c *runtime.Container, args []string) (*specs.Process, error) {
	e.cgroups = map[string]string{}
	for _, g := range e.cgroup {
		controllers, path, ok := strings.Cut(g, ":")
		if !ok {
			controllers, path = "", g
		}
		for _, name := range strings.Split(controllers, ",") {
			if _, dup := e.cgroups[name]; dup {
				return nil, fmt.Errorf("controller %s specified multiple times", name)
			}
			e.cgroups[name] = path
		}
	}
	if e.process != "" {
		raw, err := os.ReadFile(e.process)
		if err != nil {
			return nil, err
		}
		var p specs.Process
		if err := json.Unmarshal(raw, &p); err != nil {
			return nil, fmt.Errorf("%s: %w", e.process, err)
		}
		return &p, nil
	}
	s, err := c.Spec()
	if err != nil {
		return nil, err
	}
	if s.Process == nil {
		return nil, fmt.Errorf("the container has no process to take options from")
	}
	p := *s.Process
	p.Args = args
	p.Terminal = e.tty
	if !e.tty {
		p.ConsoleSize = nil
	}
	p.OOMScoreAdj = s.Process.OOMScoreAdj
	if e.cwd != "" {
		p.Cwd = e.cwd
	}
	if e.label != "" {
		p.SelinuxLabel = e.label
	}
	if e.apparmor != "" {
		p.ApparmorProfile = e.apparmor
	}
	p.NoNewPrivileges = p.NoNewPrivileges || e.noNewPrivs
	p.Env = append(append([]string{}, p.Env...), e.env...)
	if len(e.caps) > 0 {
		p.Capabilities = addCaps(p.Capabilities, e.caps)
	}
	if e.user != "" {
		uid, gid, hasGID := strings.Cut(e.user, ":")
		if p.User.UID, err = parseID("uid", uid); err != nil {
			return nil, err
		}
		if hasGID {
			if p.User.GID, err = parseID("gid", gid); err != nil {
				return nil, err
			}
		}
	}
	for _, g := range e.gids {
		id, err := parseID("gid", g)
		if err != nil {
			return nil, err
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, id)
	}
	return &p, nil
}

// parseID reads a whole number that is an ID: nothing after it, and nothing that wraps around.
func parseID(what, s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 1<<32-1 {
		return 0, fmt.Errorf("parsing %s %q: not an ID", what, s)
	}
	return uint32(n), nil
}

// addCaps adds capabilities to the sets a process has them by.
func addCaps(c *specs.LinuxCapabilities, names []string) *specs.LinuxCapabilities {
	var n specs.LinuxCapabilities
	if c != nil {
		n = *c
	}
	add := func(set []string) []string { return append(append([]string{}, set...), names...) }
	n.Bounding, n.Effective, n.Permitted = add(n.Bounding), add(n.Effective), add(n.Permitted)
	if len(n.Inheritable) > 0 {
		// As runc does: only what is inheritable can be ambient, and nothing is made so here.
		n.Ambient = add(n.Ambient)
	}
	return &n
}
