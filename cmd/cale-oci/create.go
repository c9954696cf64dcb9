package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"cale/runtime"
	"cale/runtime/linux"
	"cale/runtime/spec"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var specVersion = specs.Version

// createFlags are the options that create and run share.
type createFlags struct {
	bundle, config, console, pidFile, pidFDSocket string
	preserve                                      uint
	noPivot, noKeyring                            bool
	detach, keep, noSubreaper                     bool
}

func (c *createFlags) add(f *flags) {
	f.str(&c.bundle, "bundle", "b")
	f.str(&c.config, "config", "f")
	f.str(&c.console, "console-socket")
	f.str(&c.pidFile, "pid-file")
	f.str(&c.pidFDSocket, "pidfd-socket")
	f.count(&c.preserve, "preserve-fds")
	f.bool(&c.noPivot, "no-pivot")
	f.bool(&c.noKeyring, "no-new-keyring")
}

// options turns the flags into what the runtime takes.
func (a *app) options(c *createFlags, id string) (runtime.Options, error) {
	o := runtime.Options{
		ID: id, Bundle: c.bundle, StateDir: a.root, PidFile: c.pidFile, ConsoleSocket: c.console,
		NoPivot: c.noPivot, NoNewKeyring: c.noKeyring, SystemdCgroup: a.systemd, NoCgroup: a.manager == "disabled", PreserveFDs: int(c.preserve), Warn: a.warn, Debug: a.debugging(),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	}
	if o.Bundle == "" {
		o.Bundle = "."
	}
	var err error
	if o.Bundle, err = filepath.Abs(o.Bundle); err != nil {
		return o, err
	}
	file := spec.File
	if c.config != "" {
		file = c.config
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(o.Bundle, file)
	}
	if o.Spec, o.Config, err = spec.Load(file); err != nil {
		return o, err
	}
	o.KeepGroups = keepsGroups(o.Spec)
	o.NotifySocket = os.Getenv("NOTIFY_SOCKET")
	n, err := listenFDs()
	if err != nil {
		return o, err
	}
	if n > 0 && o.Spec.Process != nil {
		o.PreserveFDs += n
		o.Spec.Process.Env = append(o.Spec.Process.Env, "LISTEN_FDS="+strconv.Itoa(n), "LISTEN_PID=1")
	}
	return o, nil
}

const keepGroups = "run.oci.keep_original_groups"

// keepsGroups says whether the container's processes keep the additional groups of who starts them: crun's annotation,
// with which Podman does what its users ask for by --group-add keep-groups. Nothing else that runs containers by our
// packages honours it: there, annotations may come from who has no say over the caller's groups.
func keepsGroups(s *specs.Spec) bool {
	v, ok := s.Annotations[keepGroups]
	return ok && v != "0" && v != "false"
}

// listenFDs is the number of sockets systemd's socket activation has passed, which the container gets.
func listenFDs() (int, error) {
	s := os.Getenv("LISTEN_FDS")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 4096 {
		return 0, fmt.Errorf("LISTEN_FDS=%q is no number of descriptors", s)
	}
	return n, nil
}

func cmdCreate(a *app, args []string) error {
	var c createFlags
	var f flags
	c.add(&f)
	args, err := f.parse(args, true)
	if err != nil {
		return err
	}
	if err := exactly("create", args, 1, 1); err != nil {
		return err
	}
	return failed("create", a.create(&c, args[0]))
}

func (a *app) create(c *createFlags, id string) error {
	o, err := a.options(c, id)
	if err != nil {
		return err
	}
	ct, err := runtime.Create(context.Background(), o)
	if err != nil {
		return err
	}
	if err := sendPidFD(c.pidFDSocket, ct.PidFD()); err != nil {
		_ = ct.Delete(true)
		return err
	}
	return nil
}

// failed words a command's failure as runc does. A program that can't be executed speaks for itself.
func failed(command string, err error) error {
	var exit *exitError
	if err == nil || errors.As(err, &exit) || isExec(err) {
		return err
	}
	if errors.Is(err, runtime.ErrInit) {
		err = fmt.Errorf("unable to start container process: error during container init: %w", err)
	}
	return fmt.Errorf("%s %s failed: %w", filepath.Base(os.Args[0]), command, err)
}

// sendPidFD hands a process's pidfd to who listens on a Unix socket, if one was named.
func sendPidFD(socket string, pidfd *os.File) error {
	if socket == "" {
		return nil
	}
	if err := linux.SendFD(socket, []byte("pidfd"), int(pidfd.Fd())); err != nil {
		return fmt.Errorf("pidfd socket: %w", err)
	}
	return nil
}

func cmdRun(a *app, args []string) error {
	var c createFlags
	var f flags
	c.add(&f)
	f.bool(&c.detach, "detach", "d")
	f.bool(&c.keep, "keep")
	f.bool(&c.noSubreaper, "no-subreaper")
	args, err := f.parse(args, true)
	if err != nil {
		return err
	}
	if err := exactly("run", args, 1, 1); err != nil {
		return err
	}
	return failed("run", a.run(&c, args[0]))
}

func (a *app) run(c *createFlags, id string) error {
	o, err := a.options(c, id)
	if err != nil {
		return err
	}
	return a.start(c, o, runtime.Run)
}

// start makes a container that runs, and unless it is detached stays with it to its end.
func (a *app) start(c *createFlags, o runtime.Options, run func(context.Context, runtime.Options) (*runtime.Container, error)) error {
	if c.detach {
		ct, err := run(context.Background(), o)
		if err != nil {
			return err
		}
		if err := sendPidFD(c.pidFDSocket, ct.PidFD()); err != nil {
			_ = ct.Delete(true)
			return err
		}
		if r := ct.Ready(); r != nil {
			return r.Forward(o.NotifySocket, int(ct.PidFD().Fd()), ct.InitPid())
		}
		return nil
	}
	if !c.noSubreaper {
		unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	}
	fg, err := newForeground(o.Spec.Process, c.console)
	if err != nil {
		return err
	}
	defer fg.restore()
	o.ConsoleSocket, o.Console = c.console, fg.console
	ct, err := run(context.Background(), o)
	if err != nil {
		return err
	}
	if err := sendPidFD(c.pidFDSocket, ct.PidFD()); err != nil {
		_ = ct.Delete(true)
		return err
	}
	if r := ct.Ready(); r != nil {
		go func() {
			// The service's main process is this one, which ends with the container.
			if err := r.Forward(o.NotifySocket, int(ct.PidFD().Fd()), 0); err != nil {
				a.warn(err.Error())
			}
		}()
	}
	code := fg.wait(ct.InitPid(), ct.PidFD())
	if !c.keep {
		if err := ct.Delete(true); err != nil {
			return err
		}
	}
	fg.restore()
	return &exitError{code: code}
}

func cmdStart(a *app, args []string) error {
	c, err := a.one("start", args)
	if err != nil {
		return err
	}
	if s, err := c.Spec(); err == nil && s.Hooks != nil && len(s.Hooks.StartContainer) > 0 {
		// These run inside.
		if err := linux.ExecUnwritable(); err != nil {
			return err
		}
	}
	var ready *runtime.Ready
	if os.Getenv("NOTIFY_SOCKET") != "" {
		if ready, err = c.ListenReady(); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	err = c.Start(context.Background())
	if err == nil && ready != nil {
		return c.ForwardReady(ready, os.Getenv("NOTIFY_SOCKET"))
	}
	if errors.Is(err, runtime.ErrNoProcess) {
		// The specification wants an error, and leaves it to the runtime how it shows: the field's validation suite
		// takes it from the container, which has stopped, and from the log.
		a.message("error", err.Error())
		return nil
	}
	if hook := (*runtime.HookError)(nil); errors.As(err, &hook) {
		// The container is destroyed (runtime.md, lifecycle, steps 7 and 9).
		c.Warn = a.warn
		if err := c.Delete(true); err != nil {
			a.warn(err.Error())
		}
	}
	return err
}

// one loads the container that is a command's only argument.
func (a *app) one(command string, args []string) (*runtime.Container, error) {
	var f flags
	args, err := f.parse(args, true)
	if err != nil {
		return nil, err
	}
	if err := exactly(command, args, 1, 1); err != nil {
		return nil, err
	}
	return runtime.Load(a.root, args[0])
}

func cmdExec(a *app, args []string) error {
	var e execFlags
	var f flags
	e.add(&f)
	args, err := f.parse(args, false)
	if err != nil {
		return err
	}
	least := 2
	if e.process != "" {
		least = 1
	}
	if err := exactly("exec", args, least, -1); err != nil {
		return err
	}
	c, err := runtime.Load(a.root, args[0])
	if err != nil {
		return &exitError{255, err}
	}
	code, err := e.exec(a, c, args[1:])
	if err != nil {
		if errors.Is(err, runtime.ErrInit) {
			err = fmt.Errorf("unable to start container process: %w", err)
		}
		return &exitError{255, fmt.Errorf("exec failed: %w", err)}
	}
	return &exitError{code: code}
}

func (e *execFlags) exec(a *app, c *runtime.Container, args []string) (int, error) {
	ps, err := e.processSpec(c, args)
	if err != nil {
		return 0, err
	}
	o := runtime.ExecOptions{
		Process: ps, PidFile: e.pidFile, ConsoleSocket: e.console, PreserveFDs: int(e.preserve), CgroupSub: e.cgroups,
		IgnorePaused: e.ignorePaused, Warn: a.warn, Debug: a.debugging(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	}
	if s, err := c.Spec(); err == nil {
		o.KeepGroups = keepsGroups(s)
	}
	n, err := listenFDs()
	if err != nil {
		return 0, err
	}
	if n > 0 {
		o.PreserveFDs += n
		ps.Env = append(ps.Env, "LISTEN_FDS="+strconv.Itoa(n), "LISTEN_PID=1")
	}
	if e.detach {
		p, err := c.Exec(context.Background(), o)
		if err != nil {
			return 0, err
		}
		defer p.PidFD.Close()
		return 0, sendPidFD(e.pidFDSocket, p.PidFD)
	}
	fg, err := newForeground(ps, e.console)
	if err != nil {
		return 0, err
	}
	defer fg.restore()
	o.Console = fg.console
	p, err := c.Exec(context.Background(), o)
	if err != nil {
		return 0, err
	}
	if err := sendPidFD(e.pidFDSocket, p.PidFD); err != nil {
		_ = unix.PidfdSendSignal(int(p.PidFD.Fd()), unix.SIGKILL, nil, 0)
		return 0, err
	}
	return fg.wait(p.Pid, p.PidFD), nil
}

// forward starts sending the signals this program gets to a process.
func forward(signals chan os.Signal, pidfd *os.File, resize func()) {
	for s := range signals {
		switch s {
		case unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE:
		case unix.SIGWINCH:
			resize()
		default:
			unix.PidfdSendSignal(int(pidfd.Fd()), s.(unix.Signal), nil, 0)
		}
	}
}
