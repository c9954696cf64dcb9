//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command cale-shim supervises the containers of one pod. It is started by caled with
// its listening socket, or by containerd with the start command of the shim v2
// protocol.
package main

// The directives above keep the Go runtime from watching the shim's own cgroup:
// GOMAXPROCS is given, and each look is a wake-up of an idle process.

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"cale/shim"
	"cale/shim/keep"
	"cale/shim/stdio"
	"cale/shim/supervisor"
)

// version is what -v prints; the build sets it.
var version = "dev"

const usage = `usage: cale-shim [flags] start|delete
A shim v2 for containerd (--runtime /path/to/cale-shim) and caled.
  -namespace NAME       containerd's namespace
  -id ID                the container's or pod's id
  -address PATH         containerd's socket
  -publish-binary PATH  containerd's program (not used: events go by TTRPC_ADDRESS)
  -bundle DIR           the bundle, for delete
  -state DIR            where the runtime keeps its state (default: state in each bundle)
  -debug                accepted and without effect
  -info                 describe the runtime to containerd 2
  -v                    print the version
`

// options are the command line.
type options struct {
	namespace, id, address, bundle, state, socket string
	keeper                                        string
	action                                        string
	info, version, adopt                          bool
}

// parse reads Go-style flags by hand: package flag is a tenth of the time this
// program takes to start.
func parse(args []string) (options, error) {
	var o options
	var ignored string
	texts := map[string]*string{
		"namespace": &o.namespace, "id": &o.id, "address": &o.address, "bundle": &o.bundle,
		"state": &o.state, "socket": &o.socket, "publish-binary": &ignored,
		"keeper": &o.keeper,
	}
	for i := 0; i < len(args); i++ {
		if !strings.HasPrefix(args[i], "-") {
			if o.action != "" {
				return o, errors.New("more than one command")
			}
			o.action = args[i]
			continue
		}
		name, value, has := strings.Cut(strings.TrimPrefix(args[i][1:], "-"), "=")
		switch name {
		case "debug":
			continue
		case "v", "version":
			o.version = true
			continue
		case "info":
			o.info = true
			continue
		case "adopt":
			o.adopt = true
			continue
		}
		p := texts[name]
		if p == nil {
			return o, errors.New("unknown flag -" + name)
		}
		if !has {
			if i++; i == len(args) {
				return o, errors.New("flag -" + name + " needs a value")
			}
			value = args[i]
		}
		*p = value
	}
	return o, nil
}

func main() {
	o, err := parse(os.Args[1:])
	if err == nil {
		err = run(o)
	}
	if err != nil {
		os.Stderr.WriteString("cale-shim: " + err.Error() + "\n")
		os.Exit(1)
	}
}

func run(o options) error {
	switch {
	case o.version:
		os.Stdout.WriteString("cale-shim:\n  Version:  " + version + "\n")
		return nil
	case o.info:
		return printInfo()
	case o.action == shim.HoldAction:
		return hold()
	case o.action == shim.KeepAction:
		closeInherited()
		return keep.Serve(3)
	case o.action == "":
		os.Stderr.WriteString(usage)
		return errors.New("a command is needed")
	case o.id == "":
		return errors.New("flag -id is needed")
	}
	switch o.action {
	case shim.ServeAction:
		return serve(o)
	case "start":
		return start(o)
	case "delete":
		return remove(o)
	}
	return errors.New("unknown command " + o.action)
}

// serve serves the task API on descriptor 3 until the shim is no longer needed.
func serve(o options) error {
	closeInherited()
	// Whoever has this shim's word that it ends may start the next one at the same path.
	leave := sync.OnceFunc(stdio.PlaceOf(o.socket).Remove)
	f := os.NewFile(3, "listener")
	if f == nil {
		return errors.New("serve: descriptor 3 must be the listening socket")
	}
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		return err
	}
	if o.keeper != "" {
		if err := supervisor.Lock(); err != nil {
			return err
		}
	}
	s, err := supervisor.New(supervisor.Config{
		Namespace: o.namespace, StateDir: o.state, ID: o.id, Keeper: keep.Client{Socket: o.keeper},
		Own:           supervisor.Own{},
		Foreign:       supervisor.ForeignOf,
		Ending:        leave,
		EventsAddress: os.Getenv("TTRPC_ADDRESS"),
		Log:           logLine,
	})
	if err != nil {
		return err
	}
	if o.adopt {
		if err := s.Adopt(context.Background()); err != nil {
			logLine("take over: " + err.Error())
			return err
		}
	}
	// Signals keep their default action: catching them costs a thread, and what
	// is ignored is inherited. Who kills a shim means it; its container's remains
	// are for the delete command.
	failed := make(chan error, 1)
	go func() { failed <- s.Server().Serve(l) }()
	select {
	case err = <-failed:
		logLine("accept: " + err.Error())
	case <-s.Quit():
		err = nil
	}
	if o.socket != "" {
		leave()
		// containerd's shims have a directory each; another's is not empty.
		if filepath.Dir(filepath.Dir(o.socket)) == socketDir {
			os.Remove(filepath.Dir(o.socket))
		}
	}
	l.Close()
	s.Finish()
	return err
}

// closeInherited closes what the starting program let slip through: an open pipe
// of somebody's terminal would be held for as long as the container runs. What
// the Go runtime has opened by now is close-on-exec, so it did not come that way.
func closeInherited() {
	dir, err := unix.Open("/proc/self/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(dir)
	var names []string
	for {
		var buf [2048]byte
		n, err := unix.Getdents(dir, buf[:])
		if err != nil || n <= 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd <= 3 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
}

// maxLog bounds the file logLine writes.
const maxLog = 64 << 10

// logLine notes trouble in the bundle (the working directory): there is nobody
// to tell it to.
func logLine(line string) {
	f, err := os.OpenFile("shim.log", os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	if fi, err := f.Stat(); err == nil && fi.Size() < maxLog {
		f.WriteString(line + "\n")
	}
}
