package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cale/runtime/cgroup"
	"cale/shim"
	"cale/shim/task"
	"cale/shim/ttrpc"
)

// Behind makes containers by another shim of containerd's kind (Kata's, gVisor's, runc's), which this one stands in
// front of: whoever knows us has logs, attaching, probes and exit statuses as with our own runtime, and the other shim
// sees one client that reads what it writes.
type Behind struct {
	Binary string
}

// ForeignOf gives the runtime that a program is: another shim, or an OCI runtime.
func ForeignOf(o task.RuncOptions) Runtime {
	if shim.IsShim(o.BinaryName) {
		return Behind{Binary: o.BinaryName}
	}
	return &Foreign{Options: o}
}

// Remote is a Box whose processes are not this process's children: it tells of their ends, and signals them.
type Remote interface {
	Box
	// Wait blocks until a process, init being "", has ended.
	Wait(execID string) (status uint32)
	// CloseStdin ends a process's input, which is open for the other shim too.
	CloseStdin(execID string) error
	KillExec(execID string, sig int) error
	// Resize sets the size of a process's terminal in characters.
	Resize(execID string, width, height uint16) error
}

// Create starts the other shim and has it make the container.
func (b Behind) Create(ctx context.Context, o CreateOptions) (_ Box, err error) {
	c := &behindBox{b: b, id: o.ID, bundle: filepath.Join(o.Bundle, shim.BehindBundle(o.ID)), shared: sharesPids(o.Bundle)}
	if err := makeBundle(c.bundle, o); err != nil {
		return nil, err
	}
	c.client, err = shim.Start(ctx, shim.Launch{Binary: b.Binary, Namespace: "cale", ID: o.ID, Bundle: c.bundle})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.end()
		}
	}()
	r := shim.CreateRequest{ID: o.ID, Bundle: c.bundle}
	for _, m := range o.Rootfs {
		r.Rootfs = append(r.Rootfs, shim.Mount(m))
	}
	ends, err := c.ends(o.Streams)
	if err != nil {
		return nil, err
	}
	defer ends.close()
	r.Terminal, r.Stdin, r.Stdout, r.Stderr = o.Streams.Console != nil, ends.stdin, ends.stdout, ends.stderr
	pid, err := c.client.Create(ctx, r)
	if err != nil {
		return nil, c.failed(err)
	}
	c.pid = int(pid)
	c.size("", o.Streams)
	return c, nil
}

// size gives a new terminal the size that was asked for; without it works as well.
func (c *behindBox) size(execID string, s Streams) {
	if s.Console != nil && s.Width > 0 {
		_ = c.Resize(execID, s.Width, s.Height)
	}
}

// makeBundle makes the other shim's bundle of ours. The shim mounts the root there; one that is there already is named
// by its whole path.
func makeBundle(at string, o CreateOptions) error {
	if err := os.MkdirAll(filepath.Join(at, "rootfs"), 0o711); err != nil {
		return err
	}
	config, err := os.ReadFile(filepath.Join(o.Bundle, "config.json"))
	if err != nil {
		return err
	}
	if len(o.Rootfs) == 0 {
		var s specs.Spec
		if err := json.Unmarshal(config, &s); err != nil {
			return invalid(err)
		}
		if s.Root != nil && !filepath.IsAbs(s.Root.Path) {
			s.Root.Path = filepath.Join(o.Bundle, s.Root.Path)
		}
		if config, err = json.Marshal(&s); err != nil {
			return err
		}
	}
	// Where shims write their log; errors are answers, and a log that nobody reads would only grow.
	if err := os.Symlink(os.DevNull, filepath.Join(at, "log")); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return os.WriteFile(filepath.Join(at, "config.json"), config, 0o600)
}

// Restore is not for other shims: what a checkpoint holds is their own affair.
func (b Behind) Restore(context.Context, CreateOptions) (Box, error) {
	return nil, unimplemented("restore by " + filepath.Base(b.Binary))
}

// Load finds a container at the other shim, which has outlived the one in front of it.
func (b Behind) Load(ctx context.Context, o CreateOptions, pid int) (Box, task.Status, error) {
	c := &behindBox{b: b, id: o.ID, pid: pid, bundle: filepath.Join(o.Bundle, shim.BehindBundle(o.ID)), shared: sharesPids(o.Bundle)}
	if o.Streams.Console != nil {
		return nil, 0, errors.New("its terminal's other half was the dead supervisor's")
	}
	var err error
	if c.client, err = shim.Connect(ctx, c.bundle); err != nil {
		return nil, 0, err
	}
	st, err := c.client.State(ctx, o.ID, "")
	if err != nil {
		c.client.Close()
		return nil, 0, c.failed(err)
	}
	return c, taskStatus(st.Status), nil
}

// Cleanup has the shim's program remove what a dead one left, and the living one removed.
func (b Behind) Cleanup(ctx context.Context, bundle, _, id string) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	bundle = filepath.Join(bundle, shim.BehindBundle(id))
	c, err := shim.Connect(ctx, bundle)
	if err != nil {
		_, err = shim.Cleanup(ctx, shim.Launch{Binary: b.Binary, Namespace: "cale", ID: id, Bundle: bundle})
		return errors.Join(err, unmountAll(filepath.Join(bundle, "rootfs")))
	}
	// It outlived the one in front of it.
	box := &behindBox{b: b, client: c, id: id, bundle: bundle}
	if err := box.Kill(int(sigKill), true); err == nil {
		box.Wait("")
	}
	return box.Delete()
}

type behindBox struct {
	b          Behind
	client     *shim.Client
	id, bundle string
	pid        int
	shared     bool
}

// end ends the other shim, if it holds nothing any more.
func (c *behindBox) end() {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	c.client.Shutdown(ctx)
	c.client.Close()
}

// failed says of an error what kind it is, as foreign runtimes' texts tell it.
func (c *behindBox) failed(err error) error {
	st, ok := errors.AsType[*ttrpc.Status](err)
	if !ok {
		return err
	}
	told := foreignError(filepath.Base(c.b.Binary), st.Message)
	if t, ok := told.(*ttrpc.Status); ok && t.Code == ttrpc.Unknown {
		t.Code = st.Code
	}
	return told
}

// call bounds what the other shim takes for a call that only takes moments.
func (c *behindBox) call(do func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	return do(ctx)
}

func (c *behindBox) Pid() int { return c.pid }

func (c *behindBox) Start(ctx context.Context) error {
	_, err := c.client.Start(ctx, c.id, "")
	if err != nil {
		return c.failed(err)
	}
	return nil
}

func (c *behindBox) Kill(sig int, all bool) error {
	if err := c.call(func(ctx context.Context) error { return c.client.Kill(ctx, c.id, "", uint32(sig), all) }); err != nil {
		return c.failed(err)
	}
	return nil
}

func (c *behindBox) KillExec(execID string, sig int) error {
	return c.call(func(ctx context.Context) error { return c.client.Kill(ctx, c.id, execID, uint32(sig), false) })
}

func (c *behindBox) Resize(execID string, width, height uint16) error {
	return c.call(func(ctx context.Context) error {
		return c.client.Resize(ctx, c.id, execID, uint32(width), uint32(height))
	})
}

func (c *behindBox) CloseStdin(execID string) error {
	return c.call(func(ctx context.Context) error { return c.client.CloseIO(ctx, c.id, execID) })
}

func (c *behindBox) Wait(execID string) uint32 {
	e, err := c.client.Wait(context.Background(), c.id, execID)
	if err != nil {
		return unknownExit // the other shim is gone
	}
	if execID != "" {
		_ = c.call(func(ctx context.Context) error { _, err := c.client.Delete(ctx, c.id, execID); return err })
	}
	return e.Status
}

func (c *behindBox) Exec(ctx context.Context, execID string, process []byte, s Streams) (int, error) {
	process, err := s.applyTo(process)
	if err != nil {
		return 0, err
	}
	ends, err := c.ends(s)
	if err != nil {
		return 0, err
	}
	defer ends.close()
	r := shim.ExecRequest{ID: c.id, ExecID: execID, Terminal: s.Console != nil, Stdin: ends.stdin, Stdout: ends.stdout, Stderr: ends.stderr, Spec: process}
	if err := c.client.Exec(ctx, r); err != nil {
		return 0, c.failed(err)
	}
	pid, err := c.client.Start(ctx, c.id, execID)
	if err != nil {
		c.client.Delete(context.WithoutCancel(ctx), c.id, execID)
		return 0, c.failed(err)
	}
	c.size(execID, s)
	return int(pid), nil
}

func (c *behindBox) Delete() error {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	_, err := c.client.Delete(ctx, c.id, "")
	if shim.IsNotFound(err) {
		err = nil
	}
	if err == nil {
		c.end()
		err = unmountAll(filepath.Join(c.bundle, "rootfs"))
	}
	return err
}

func (c *behindBox) Pause() error {
	return c.call(func(ctx context.Context) error { return c.client.Pause(ctx, c.id) })
}

func (c *behindBox) Resume() error {
	return c.call(func(ctx context.Context) error { return c.client.Resume(ctx, c.id) })
}

func (c *behindBox) Update(resources []byte) error {
	return c.call(func(ctx context.Context) error { return c.client.Update(ctx, c.id, resources) })
}

func (c *behindBox) Pids() ([]int, error) {
	var list []uint32
	err := c.call(func(ctx context.Context) (err error) {
		list, err = c.client.Pids(ctx, c.id)
		return err
	})
	out := make([]int, len(list))
	for i, pid := range list {
		out[i] = int(pid)
	}
	return out, err
}

// Stats reads the container's group on this machine: what other shims answer has many types.
func (c *behindBox) Stats() (*cgroup.Stats, error) {
	g, err := bundleCgroup(c.bundle, c.id, false)
	if err != nil {
		return nil, err
	}
	return g.Stats()
}

func (c *behindBox) Checkpoint(context.Context, CheckpointOptions) error {
	return unimplemented("checkpoint by " + filepath.Base(c.b.Binary))
}

func (c *behindBox) SharesPids() bool { return c.shared }

func (c *behindBox) OOMKilled() bool {
	g, err := bundleCgroup(c.bundle, c.id, false)
	return err == nil && readOOMKills(g) > 0
}

// ends are the names by which the other shim opens a process's streams: pipes of this process's.
type ends struct {
	stdin, stdout, stderr string
	own                   []*os.File
}

func (e *ends) close() {
	for _, f := range e.own {
		f.Close()
	}
}

// ends gives names to a process's streams. One with a terminal gets the terminal's two directions as pipes, behind a
// terminal of ours that only passes bytes on.
func (c *behindBox) ends(s Streams) (*ends, error) {
	e := new(ends)
	if s.Console != nil {
		if err := e.terminal(s); err != nil {
			e.close()
			return nil, err
		}
		return e, nil
	}
	for f, name := range map[*os.File]*string{s.Stdin: &e.stdin, s.Stdout: &e.stdout, s.Stderr: &e.stderr} {
		if f != nil {
			*name = descriptorPath(f)
		}
	}
	return e, nil
}

func descriptorPath(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }

// terminal makes a terminal whose slave only passes bytes: what happens to them is the business of the one that the
// other shim has. The copying ends when either side closes.
func (e *ends) terminal(s Streams) error {
	master, slave, err := rawTerminal()
	if err != nil {
		return err
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		return errors.Join(err, master.Close(), slave.Close())
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return errors.Join(err, master.Close(), slave.Close(), inR.Close(), inW.Close())
	}
	e.own = append(e.own, inR, outW)
	e.stdin, e.stdout = descriptorPath(inR), descriptorPath(outW)
	go func() {
		io.Copy(inW, slave)
		inW.Close()
	}()
	go func() {
		io.Copy(slave, outR)
		outR.Close()
		slave.Close()
	}()
	s.Console(master)
	return nil
}

// rawTerminal makes a terminal that changes nothing of what passes through it (termios(3), "raw mode").
func rawTerminal() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	fail := func(err error) (*os.File, *os.File, error) {
		master.Close()
		return nil, nil, fmt.Errorf("make a terminal: %w", err)
	}
	var n int
	err = ioctl(master, func(fd int) (err error) {
		if n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN); err == nil {
			err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
		}
		return err
	})
	if err != nil {
		return fail(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	err = ioctl(slave, func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
		t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
		return unix.IoctlSetTermios(fd, unix.TCSETS, t)
	})
	if err != nil {
		slave.Close()
		return fail(err)
	}
	return master, slave, nil
}

// ioctl calls do with a file's descriptor. File.Fd would make it blocking, and closing it would not end a read.
func ioctl(f *os.File, do func(fd int) error) (err error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := rc.Control(func(fd uintptr) { err = do(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}
