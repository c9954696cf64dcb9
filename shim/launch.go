package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cale/atomicfile"
	"cale/runtime/linux"
	"cale/shim/keep"
	"cale/shim/stdio"
	"cale/shim/task"
	"cale/shim/ttrpc"
)

const (
	addressFile = "address"
	socketFile  = "shim.sock"
	// ownName is the program name by which our own shim is known.
	ownName = "cale-shim"
	// ServeAction is cale-shim's internal action: serve on descriptor 3.
	ServeAction = "serve"
	// KeepAction makes cale-shim a keeper, which listens on descriptor 3.
	KeepAction = "keep"
	// HoldAction makes cale-shim the first process of a pod's pid namespace.
	HoldAction = "hold"
)

// IsShim tells whether a runtime's program is a shim of containerd's kind: its rule for their names.
func IsShim(program string) bool {
	return strings.HasPrefix(filepath.Base(program), "containerd-shim-")
}

// BehindBundle is the bundle, below our own, of another shim that our shim stands in front of: both have files of the
// same names. Its last part is the id: such shims look for their bundle by it.
func BehindBundle(id string) string { return filepath.Join("behind", id) }

// BehindRoot is where that shim mounts the root, below our own bundle.
func BehindRoot(id string) string { return filepath.Join(BehindBundle(id), "rootfs") }

// Start starts a shim in l.Bundle and connects to it. Our own shim is forked
// directly with its listening socket; any other is started as containerd does.
func Start(ctx context.Context, l Launch) (*Client, error) {
	if IsOwn(l.Binary) {
		return fork(ctx, l)
	}
	return startForeign(ctx, l)
}

// IsOwn tells whether a shim's program is our own.
func IsOwn(program string) bool { return filepath.Base(program) == ownName }

// fork makes the socket itself and hands it over: clients may connect at once,
// their requests wait in the backlog until the shim is up.
func fork(ctx context.Context, l Launch) (*Client, error) {
	path := filepath.Join(l.Bundle, socketFile)
	fd, err := stdio.ListenFD(path)
	if err != nil {
		return nil, fmt.Errorf("shim %s: %w", l.ID, err)
	}
	defer unix.Close(fd)
	if err := writeAddress(l.Bundle, "unix://"+path); err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("shim %s: %w", l.ID, err)
	}
	argv := []string{ownName, "-namespace", l.Namespace, "-id", l.ID, "-socket", path}
	if l.StateDir != "" {
		argv = append(argv, "-state", l.StateDir)
	}
	if l.Keeper != "" {
		argv = append(argv, "-keeper", l.Keeper)
	}
	if l.Adopt {
		argv = append(argv, "-adopt")
	}
	if err := forkServer(l.Binary, l.Bundle, append(argv, ServeAction), l.Env, fd); err != nil {
		os.Remove(path)
		os.Remove(filepath.Join(l.Bundle, addressFile))
		return nil, fmt.Errorf("start shim %s: %w", l.Binary, err)
	}
	// The listener of this process is about to close: from then on a shim that
	// died refuses the connection.
	conn, err := dial(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("shim %s: %w", l.ID, err)
	}
	return newClient(conn, task.ServiceV2), nil
}

// forkServer starts our own program in a directory, with the listening socket fd as its descriptor 3. It lives on when
// this process ends.
func forkServer(binary, dir string, argv, env []string, fd int) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	program, err := linux.OpenProgram(binary)
	if err != nil {
		return err
	}
	defer program.Close()
	pid, err := syscall.ForkExec(program.Path, argv, &syscall.ProcAttr{
		Dir:   dir,
		Env:   append(append([]string{"PATH=" + os.Getenv("PATH")}, SmallEnv()...), env...),
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), uintptr(fd)},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return err
	}
	reap(pid)
	return nil
}

// WatchKeeper connects to the keeper at a socket's path, after starting one of the shim program binary where none is:
// then it holds nothing yet. The file becomes readable when the keeper is gone.
func WatchKeeper(binary, socket string) (watch *os.File, started bool, err error) {
	c := keep.Client{Socket: socket}
	// One that is only slow must not get a twin: what it holds would be held for ever.
	if watch, err = c.Watch(); err == nil || !keep.IsGone(err) {
		return watch, false, err
	}
	fd, err := keep.Listen(socket)
	if err != nil {
		return nil, false, fmt.Errorf("keeper: %w", err)
	}
	defer unix.Close(fd)
	if err := forkServer(binary, filepath.Dir(socket), []string{ownName, KeepAction}, nil, fd); err != nil {
		os.Remove(socket)
		return nil, false, fmt.Errorf("start keeper %s: %w", binary, err)
	}
	watch, err = c.Watch()
	return watch, true, err
}

// SmallEnv is the environment that keeps a shim small: few threads with their
// caches, and no collection of the heap (whose own tables are larger than what a
// quiet shim allocates) before it is worth it.
func SmallEnv() []string { return []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=12MiB"} }

// reap waits for the shim, which usually ends long after this, so that no
// zombie stays. A pidfd in the poller costs no thread, unlike Wait.
func reap(pid int) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		go syscall.Wait4(pid, nil, 0, nil)
		return
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	go func() {
		defer f.Close()
		rc, err := f.SyscallConn()
		if err != nil {
			syscall.Wait4(pid, nil, 0, nil)
			return
		}
		err = rc.Read(func(uintptr) bool {
			got, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
			return got == pid || (err != nil && !errors.Is(err, syscall.EINTR))
		})
		if err != nil {
			syscall.Wait4(pid, nil, 0, nil)
		}
	}()
}

func dial(ctx context.Context, path string) (net.Conn, error) {
	name, done, err := stdio.SocketName(path)
	if err != nil {
		return nil, err
	}
	defer done()
	var d net.Dialer
	return d.DialContext(ctx, "unix", name)
}

func writeAddress(bundle, address string) error {
	return atomicfile.Write(filepath.Join(bundle, addressFile), []byte(address), 0o600, false)
}

// startForeign runs "shim start", which prints the address it serves on.
func startForeign(ctx context.Context, l Launch) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, l.Binary, "-namespace", l.Namespace, "-id", l.ID,
		"-address", filepath.Join(l.Bundle, "events.sock"), "-publish-binary", self, "start")
	cmd.Dir = l.Bundle
	cmd.Env = append(append(os.Environ(), "MAX_SHIM_VERSION=2", "GOMAXPROCS=2"), l.Env...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &limited{&out, 64 << 10}, &limited{&errOut, 64 << 10}
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// The shim proper may keep our pipe for its log; that is no failure.
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return nil, fmt.Errorf("start shim %s: %w: %s", l.Binary, err, strings.TrimSpace(errOut.String()))
	}
	address, service, err := parseBootstrap(out.Bytes())
	if err != nil {
		return nil, fmt.Errorf("shim %s: %w", l.Binary, err)
	}
	if service == task.ServiceV3 {
		address = "v3+" + address
	}
	if err := writeAddress(l.Bundle, address); err != nil {
		return nil, err
	}
	return connect(ctx, address)
}

// limited drops what goes beyond left bytes, so that the writer is not held up.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	if _, err := l.w.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// parseBootstrap reads what "shim start" prints: the plain address, or since
// containerd 1.7 a JSON object with version, address and protocol.
func parseBootstrap(out []byte) (address, service string, err error) {
	out = bytes.TrimSpace(out)
	service = task.ServiceV2
	address = string(out)
	if len(out) > 0 && out[0] == '{' {
		var p struct {
			Version  int    `json:"version"`
			Address  string `json:"address"`
			Protocol string `json:"protocol"`
		}
		if err := json.Unmarshal(out, &p); err != nil {
			return "", "", fmt.Errorf("bootstrap parameters: %w", err)
		}
		if p.Protocol != "" && p.Protocol != "ttrpc" {
			return "", "", fmt.Errorf("shims that speak %q are not supported, only ttrpc", p.Protocol)
		}
		address = p.Address
		if p.Version >= 3 {
			service = task.ServiceV3
		}
	}
	if !strings.HasPrefix(address, "unix:///") {
		return "", "", fmt.Errorf("unusable shim address %q: want unix:///path", address)
	}
	return address, service, nil
}

// Connect connects to the shim whose address is written in bundle/address.
// The error matches IsNotFound when no shim listens there.
func Connect(ctx context.Context, bundle string) (*Client, error) {
	b, err := os.ReadFile(filepath.Join(bundle, addressFile))
	if err != nil {
		return nil, fmt.Errorf("shim: %w", err)
	}
	return connect(ctx, strings.TrimSpace(string(b)))
}

func connect(ctx context.Context, address string) (*Client, error) {
	service := task.ServiceV2
	if rest, ok := strings.CutPrefix(address, "v3+"); ok {
		address, service = rest, task.ServiceV3
	}
	path, ok := strings.CutPrefix(address, "unix://")
	if !ok {
		return nil, fmt.Errorf("unusable shim address %q: want unix:///path", address)
	}
	conn, err := dial(ctx, path)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) {
		return nil, &ttrpc.Status{Code: ttrpc.NotFound, Message: "no shim listens at " + path}
	}
	if err != nil {
		return nil, fmt.Errorf("shim: %w", err)
	}
	return newClient(conn, service), nil
}

// Cleanup removes what a container's dead shim left behind: the container's
// processes, cgroup and runtime state. It runs "shim delete" as containerd does.
func Cleanup(ctx context.Context, l Launch) (Exit, error) {
	args := []string{"-namespace", l.Namespace, "-id", l.ID, "-bundle", l.Bundle}
	if l.StateDir != "" && IsOwn(l.Binary) {
		args = append(args, "-state", l.StateDir)
	}
	cmd := exec.CommandContext(ctx, l.Binary, append(args, "delete")...)
	cmd.Dir = l.Bundle
	cmd.Env = append(os.Environ(), l.Env...)
	var errOut bytes.Buffer
	cmd.Stderr = &limited{&errOut, 64 << 10}
	out, err := cmd.Output()
	if err != nil {
		return Exit{}, fmt.Errorf("clean up after shim %s: %w: %s", l.ID, err, strings.TrimSpace(errOut.String()))
	}
	var r task.DeleteResponse
	if err := r.Unmarshal(out); err != nil {
		return Exit{}, fmt.Errorf("clean up after shim %s: %w", l.ID, err)
	}
	return Exit{Status: r.ExitStatus, At: r.ExitedAt, Pid: r.Pid}, nil
}
