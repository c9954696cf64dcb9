package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"cale/runtime/cgroup"
	"cale/shim/task"
	"cale/shim/ttrpc"
)

// Foreign is another OCI runtime, driven by its command line (runc's).
type Foreign struct {
	Options task.RuncOptions
}

const (
	// maxOutput bounds what is kept of a runtime's answer.
	maxOutput = 1 << 20
	// commandTimeout bounds a runtime's command that should only take moments.
	commandTimeout = 2 * time.Minute
)

// command runs the runtime. Its error is the last one of its log, or what it
// wrote to stderr.
func (f *Foreign) command(ctx context.Context, bundle string, s *Streams, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	log := filepath.Join(bundle, "runtime.log")
	os.Remove(log)
	root := f.Options.Root
	if root == "" {
		root = filepath.Join(bundle, "runtime")
	}
	global := []string{"--root", root, "--log", log, "--log-format", "json"}
	if f.Options.SystemdCgroup {
		global = append(global, "--systemd-cgroup")
	}
	cmd := exec.CommandContext(ctx, f.Options.BinaryName, append(global, args...)...)
	cmd.Dir = bundle
	cmd.WaitDelay = time.Second
	var out, errOut cappedBuffer
	if s != nil {
		// The container inherits these: its own streams.
		cmd.Stdin, cmd.Stdout, cmd.Stderr = s.Stdin, s.Stdout, s.Stderr
	} else {
		cmd.Stdout, cmd.Stderr = &out, &errOut
	}
	err := cmd.Run()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return out.Bytes(), nil
	}
	text := lastError(log)
	if text == "" {
		text = strings.TrimSpace(errOut.String())
	}
	if text == "" {
		text = err.Error()
	}
	name := filepath.Base(f.Options.BinaryName) + " " + args[0]
	return nil, foreignError(name, text)
}

func foreignError(name, text string) error {
	st := &ttrpc.Status{Code: ttrpc.Unknown, Message: name + ": " + text}
	switch {
	case strings.Contains(text, "does not exist") && strings.Contains(text, "container"):
		st.Code = ttrpc.NotFound
	case strings.Contains(text, "container not running"), strings.Contains(text, "process already finished"), strings.HasSuffix(text, "no such process"):
		st.Code = ttrpc.NotFound
	case strings.Contains(text, "executable file not found"),
		strings.Contains(text, "exec") && strings.HasSuffix(strings.ToLower(text), "no such file or directory"):
		st.Detail = task.DetailCommandNotFound
	case strings.Contains(text, "exec") && strings.HasSuffix(strings.ToLower(text), "permission denied"):
		st.Detail = task.DetailCommandNotExecutable
	}
	return st
}

// lastError finds the last error of a runtime's JSON log.
func lastError(path string) (text string) {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(b[max(0, len(b)-maxOutput):]) {
		var e struct{ Level, Msg string }
		if json.Unmarshal(line, &e) == nil && (e.Level == "error" || e.Level == "fatal") {
			text = e.Msg
		}
	}
	return text
}

type cappedBuffer struct{ bytes.Buffer }

func (b *cappedBuffer) Write(p []byte) (int, error) {
	if room := maxOutput - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

// Create makes a container with "create".
func (f *Foreign) Create(ctx context.Context, o CreateOptions) (Box, error) {
	args := []string{"create"}
	if o.Options.NoNewKeyring {
		args = append(args, "--no-new-keyring")
	}
	return f.make(ctx, o, args)
}

// make makes a container with a command.
func (f *Foreign) make(ctx context.Context, o CreateOptions, args []string) (_ Box, err error) {
	rootfs := filepath.Join(o.Bundle, "rootfs")
	if len(o.Rootfs) > 0 {
		if err := mountAll(o.Rootfs, rootfs); err != nil {
			return nil, err
		}
		defer func() {
			if err != nil {
				unmountAll(rootfs)
			}
		}()
	}
	pidFile := filepath.Join(o.Bundle, "init.pid")
	args = append(args, "--bundle", o.Bundle, "--pid-file", pidFile)
	if o.Options.NoPivotRoot {
		args = append(args, "--no-pivot")
	}
	c := &foreignBox{f: f, id: o.ID, bundle: o.Bundle, mounted: len(o.Rootfs) > 0}
	if err := c.run(ctx, o.Streams, args, o.ID); err != nil {
		return nil, err
	}
	if c.pid, err = readPid(pidFile); err != nil {
		f.command(context.WithoutCancel(ctx), o.Bundle, nil, "delete", "--force", o.ID)
		return nil, err
	}
	c.shared = sharesPids(o.Bundle)
	return c, nil
}

// Restore makes a container with "restore".
func (f *Foreign) Restore(ctx context.Context, o CreateOptions) (Box, error) {
	// What a checkpoint may have been made with has to be allowed again; our own runtime does so too.
	args := []string{"restore", "--image-path", o.Checkpoint, "--work-path", o.workPath(), "--detach", "--no-subreaper",
		"--tcp-established", "--ext-unix-sk", "--file-locks"}
	return f.make(ctx, o, args)
}

// Load asks the runtime for a container.
func (f *Foreign) Load(ctx context.Context, o CreateOptions, pid int) (Box, task.Status, error) {
	out, err := f.command(ctx, o.Bundle, nil, "state", o.ID)
	if err != nil {
		return nil, 0, err
	}
	var st specs.State
	if err := json.Unmarshal(out, &st); err != nil {
		return nil, 0, fmt.Errorf("state of container %s: %w", o.ID, err)
	}
	_, err = os.Lstat(filepath.Join(o.Bundle, "rootfs"))
	return &foreignBox{f: f, id: o.ID, bundle: o.Bundle, pid: pid, shared: sharesPids(o.Bundle), mounted: err == nil},
		taskStatus(string(st.Status)), nil
}

// Cleanup deletes by force what is left.
func (f *Foreign) Cleanup(ctx context.Context, bundle, _, id string) error {
	_, err := f.command(ctx, bundle, nil, "delete", "--force", id)
	unmountAll(filepath.Join(bundle, "rootfs"))
	if ttrpc.CodeOf(err) == ttrpc.NotFound {
		return nil
	}
	return err
}

// sharesPids reads the namespaces from the configuration: a container that does
// not make its own pid namespace has processes that outlive its init.
func sharesPids(bundle string) bool {
	b, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return true
	}
	var s struct {
		Linux struct {
			Namespaces []specs.LinuxNamespace `json:"namespaces"`
		} `json:"linux"`
	}
	if json.Unmarshal(b, &s) != nil {
		return true
	}
	for _, n := range s.Linux.Namespaces {
		if n.Type == specs.PIDNamespace && n.Path == "" {
			return false
		}
	}
	return true
}

type foreignBox struct {
	f          *Foreign
	id, bundle string
	pid        int
	shared     bool
	mounted    bool
}

// run runs a command that starts a process, with a console socket if it has a
// terminal.
func (c *foreignBox) run(ctx context.Context, s Streams, args []string, rest ...string) error {
	if s.Console == nil {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer null.Close()
		for _, p := range []**os.File{&s.Stdin, &s.Stdout, &s.Stderr} {
			if *p == nil {
				*p = null
			}
		}
		_, err = c.f.command(ctx, c.bundle, &s, append(args, rest...)...)
		return err
	}
	sock, err := listenConsole()
	if err != nil {
		return err
	}
	defer sock.close()
	args = append(args, "--console-socket", sock.path)
	if _, err := c.f.command(ctx, c.bundle, nil, append(args, rest...)...); err != nil {
		return err
	}
	master, err := sock.receive()
	if err != nil {
		return err
	}
	s.Console(master)
	return nil
}

func readPid(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	os.Remove(path)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("pid file %s holds %q", path, b)
	}
	return pid, nil
}

func (c *foreignBox) simple(args ...string) error {
	_, err := c.f.command(context.Background(), c.bundle, nil, args...)
	return err
}

func (c *foreignBox) Pid() int { return c.pid }

func (c *foreignBox) Start(ctx context.Context) error {
	_, err := c.f.command(ctx, c.bundle, nil, "start", c.id)
	return err
}

func (c *foreignBox) Kill(sig int, all bool) error {
	args := []string{"kill"}
	if all {
		args = append(args, "--all")
	}
	return c.simple(append(args, c.id, strconv.Itoa(sig))...)
}

func (c *foreignBox) Exec(ctx context.Context, execID string, process []byte, s Streams) (int, error) {
	dir, err := os.MkdirTemp(c.bundle, "exec-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	b, err := s.applyTo(process)
	if err != nil {
		return 0, err
	}
	file, pidFile := filepath.Join(dir, "process.json"), filepath.Join(dir, "pid")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return 0, err
	}
	args := []string{"exec", "--process", file, "--pid-file", pidFile, "--detach"}
	if err := c.run(ctx, s, args, c.id); err != nil {
		return 0, err
	}
	return readPid(pidFile)
}

func (c *foreignBox) Checkpoint(ctx context.Context, o CheckpointOptions) error {
	args := []string{"checkpoint", "--image-path", o.Path, "--work-path", o.WorkPath}
	for _, f := range []struct {
		name string
		on   bool
	}{
		{"--leave-running", !o.Exit}, {"--tcp-established", o.Options.OpenTCP}, {"--shell-job", o.Options.Terminal},
		{"--ext-unix-sk", o.Options.ExternalUnixSockets}, {"--file-locks", o.Options.FileLocks},
	} {
		if f.on {
			args = append(args, f.name)
		}
	}
	if o.Options.CgroupsMode != "" {
		args = append(args, "--manage-cgroups-mode", o.Options.CgroupsMode)
	}
	_, err := c.f.command(ctx, c.bundle, nil, append(args, c.id)...)
	return err
}

func (c *foreignBox) Delete() error {
	err := c.simple("delete", "--force", c.id)
	if ttrpc.CodeOf(err) == ttrpc.NotFound {
		err = nil
	}
	if c.mounted {
		err = errors.Join(err, unmountAll(filepath.Join(c.bundle, "rootfs")))
	}
	return err
}

func (c *foreignBox) Pause() error  { return c.simple("pause", c.id) }
func (c *foreignBox) Resume() error { return c.simple("resume", c.id) }

func (c *foreignBox) Update(resources []byte) error {
	f, err := os.CreateTemp(c.bundle, "resources-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(resources)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return c.simple("update", "--resources", f.Name(), c.id)
}

func (c *foreignBox) Pids() ([]int, error) {
	out, err := c.f.command(context.Background(), c.bundle, nil, "ps", "--format", "json", c.id)
	if err != nil {
		return nil, err
	}
	var pids []int
	if err := json.Unmarshal(out, &pids); err != nil {
		return nil, fmt.Errorf("list of processes: %w", err)
	}
	return pids, nil
}

func (c *foreignBox) Stats() (*cgroup.Stats, error) {
	g, err := c.cgroup()
	if err != nil {
		return nil, err
	}
	return g.Stats()
}

func (c *foreignBox) cgroup() (*cgroup.Cgroup, error) {
	return bundleCgroup(c.bundle, c.id, c.f.Options.SystemdCgroup)
}

// bundleCgroup opens the group that a container's configuration names.
func bundleCgroup(bundle, id string, systemd bool) (*cgroup.Cgroup, error) {
	b, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, err
	}
	var s struct {
		Linux struct {
			CgroupsPath string `json:"cgroupsPath"`
		} `json:"linux"`
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, err
	}
	path := s.Linux.CgroupsPath
	if path == "" {
		path = "/" + id // runc's default
	}
	return cgroup.Open(path, cgroup.Options{Systemd: systemd})
}

func (c *foreignBox) SharesPids() bool { return c.shared }

func (c *foreignBox) OOMKilled() bool {
	g, err := c.cgroup()
	return err == nil && readOOMKills(g) > 0
}
