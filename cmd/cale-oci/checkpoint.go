package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"cale/runtime"

	"golang.org/x/sys/unix"
)

// criuFlags are the options that checkpoint and restore share, with their own.
type criuFlags struct {
	o          runtime.CheckpointOptions
	emptyNS    []string
	pageServer string
	statusFD   int
}

func (c *criuFlags) add(f *flags) {
	f.str(&c.o.ImagePath, "image-path")
	f.str(&c.o.WorkPath, "work-path")
	f.bool(&c.o.TCPEstablished, "tcp-established")
	f.bool(&c.o.ExtUnixSk, "ext-unix-sk")
	f.bool(&c.o.ShellJob, "shell-job")
	f.bool(&c.o.FileLocks, "file-locks")
	f.bool(&c.o.LazyPages, "lazy-pages")
	f.bool(&c.o.AutoDedup, "auto-dedup")
	f.str(&c.o.CgroupsMode, "manage-cgroups-mode")
	f.list(&c.emptyNS, "empty-ns")
}

// options checks what was given and makes the directory of the images.
func (c *criuFlags) options(a *app) (runtime.CheckpointOptions, error) {
	o := c.o
	o.Warn, o.Debug = a.warn, a.debugging()
	if o.ImagePath == "" {
		o.ImagePath = "checkpoint" // in the working directory, as runc has it
	}
	var err error
	if o.ImagePath, err = filepath.Abs(o.ImagePath); err != nil {
		return o, err
	}
	if err := os.MkdirAll(o.ImagePath, 0o700); err != nil {
		return o, err
	}
	if o.ParentPath != "" {
		if filepath.IsAbs(o.ParentPath) {
			return o, errors.New("--parent-path must be relative")
		}
		st, err := os.Stat(filepath.Join(o.ImagePath, o.ParentPath))
		if err == nil && !st.IsDir() {
			err = unix.ENOTDIR
		}
		if err != nil {
			return o, fmt.Errorf("invalid --parent-path: %w", err)
		}
	}
	for _, ns := range c.emptyNS {
		for name := range strings.SplitSeq(ns, ",") {
			if name != "network" { // which always is left empty: its devices are not the runtime's
				return o, fmt.Errorf("namespace %q is not supported", name)
			}
		}
	}
	if c.pageServer != "" {
		host, port, ok := cutLast(c.pageServer, ":")
		if !ok || host == "" || port == "" {
			return o, errors.New("Use --page-server ADDRESS:PORT to specify page server")
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return o, errors.New("Invalid port number")
		}
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
		o.PageServer, o.PageServerPort = host, int(n)
	}
	if c.statusFD >= 0 {
		mode, err := unix.FcntlInt(uintptr(c.statusFD), unix.F_GETFL, 0)
		if err != nil {
			return o, fmt.Errorf("invalid --status-fd argument %d: %w", c.statusFD, err)
		}
		if mode&unix.O_ACCMODE == unix.O_RDONLY {
			return o, fmt.Errorf("invalid --status-fd argument %d: not writable", c.statusFD)
		}
		unix.CloseOnExec(c.statusFD)
		o.StatusFD = os.NewFile(uintptr(c.statusFD), "status-fd")
	}
	return o, nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func cmdCheckpoint(a *app, args []string) error {
	c := criuFlags{statusFD: -1}
	var f flags
	c.add(&f)
	f.str(&c.o.ParentPath, "parent-path")
	f.bool(&c.o.LeaveRunning, "leave-running")
	f.bool(&c.o.TCPSkipInFlight, "tcp-skip-in-flight")
	f.bool(&c.o.LinkRemap, "link-remap")
	f.int(&c.statusFD, "status-fd")
	f.str(&c.pageServer, "page-server")
	f.bool(&c.o.PreDump, "pre-dump")
	args, err := f.parse(args, true)
	if err != nil {
		return err
	}
	if err := exactly("checkpoint", args, 1, 1); err != nil {
		return err
	}
	ct, err := runtime.Load(a.root, args[0])
	if err != nil {
		return err
	}
	o, err := c.options(a)
	if err != nil {
		return err
	}
	if err := ct.Checkpoint(context.Background(), o); err != nil {
		return err
	}
	if o.LeaveRunning || o.PreDump {
		return nil
	}
	if err := ct.Delete(true); err != nil {
		a.warn(err.Error())
	}
	return nil
}

func cmdRestore(a *app, args []string) error {
	c := criuFlags{statusFD: -1}
	var cf createFlags
	var f flags
	c.add(&f)
	f.str(&cf.bundle, "bundle", "b")
	f.str(&cf.console, "console-socket")
	f.str(&cf.pidFile, "pid-file")
	f.bool(&cf.noPivot, "no-pivot")
	f.bool(&cf.detach, "detach", "d")
	f.bool(&cf.noSubreaper, "no-subreaper")
	f.str(&c.o.LSMProfile, "lsm-profile")
	f.str(&c.o.LSMMountContext, "lsm-mount-context")
	args, err := f.parse(args, true)
	if err != nil {
		return err
	}
	if err := exactly("restore", args, 1, 1); err != nil {
		return err
	}
	co, err := c.options(a)
	if err != nil {
		return err
	}
	o, err := a.options(&cf, args[0])
	if err != nil {
		return err
	}
	return a.start(&cf, o, func(ctx context.Context, o runtime.Options) (*runtime.Container, error) {
		return runtime.Restore(ctx, o, co)
	})
}
