package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cale/atomicfile"
	"cale/runtime/criu"
	"cale/runtime/launch"
	"cale/runtime/rootfs"
	"cale/runtime/spec"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// restoreRoot is where, in the state directory, CRIU finds the container's root file system; only its process sees
// that mounted.
const restoreRoot = "criu-root"

// Restore makes a container of what Checkpoint has saved. It runs when Restore returns, as a child of the caller. If it
// fails, nothing is left.
//
// The configuration says what of the host is bound into it, which namespaces it joins and in which group it is. The
// rest is as the images have it, which CRIU follows with all of its rights: what is mounted in the container and how,
// which files are open, who the processes are, what their seccomp filters allow. Before any of it runs, restored holds
// it against the configuration, as far as the kernel tells. That is a net below, and no reason to restore images whose
// origin isn't trusted as much as root: CRIU itself reads them.
func Restore(ctx context.Context, o Options, co CheckpointOptions) (_ *Container, err error) {
	co.Warn, co.Debug = o.Warn, o.Debug
	co.silence()
	o.Warn = co.Warn
	if err := criu.Installed(); err != nil {
		return nil, err
	}
	s, raw, bundle, err := o.load()
	if err != nil {
		return nil, err
	}
	if s.Process == nil {
		return nil, ErrNoProcess
	}
	if o.NoCgroup {
		return nil, errNoRestoreGroup
	}
	if !spec.HasNamespace(s, specs.MountNamespace) {
		return nil, errors.New("cannot restore a container without a mount namespace of its own")
	}
	if err := unsaved(s); err != nil {
		return nil, err
	}
	term := terminalTarget{o.ConsoleSocket, o.Console}
	if err := term.check(s.Process); err != nil {
		return nil, err
	}
	c, lock, err := newContainer(o, s, raw, bundle)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	r := &restoring{c: c, o: o, co: co, term: term}
	defer func() {
		if err != nil {
			end := r.killRoot()
			c.remove()
			end()
		}
	}()
	if err := r.run(ctx); err != nil {
		return nil, err
	}
	if c.pidfd, err = c.openInit(); err != nil {
		return nil, err
	}
	if o.PidFile != "" {
		if err := atomicfile.Write(o.PidFile, fmt.Append(nil, c.rec.Pid), 0o644, false); err != nil {
			return nil, fmt.Errorf("pid file: %w", err)
		}
	}
	return c, nil
}

// errNoRestoreGroup is that of a restore without a group: what CRIU has made could not be found.
var errNoRestoreGroup = errors.New("cannot restore a container without a control group")

// restoring is one restore under way.
type restoring struct {
	c    *Container
	o    Options
	co   CheckpointOptions
	term terminalTarget
	conn *criu.Conn

	uts   *os.File // the UTS namespace to join; nil is one of its own
	names unix.Utsname

	root     int // the first process that CRIU has made: a child of ours, even if CRIU fails
	allowed  *restored
	verified bool
	refused  error // what verifying found
}

func (r *restoring) run(ctx context.Context) (err error) {
	c, s := r.c, r.c.spec
	defer c.endHolder() // which is there also if making the group fails
	group, err := c.makeCgroup(r.o, true)
	if err != nil {
		return err
	}
	if group == nil {
		return errNoRestoreGroup
	}
	into, joins, err := openCgroup(group)
	if err != nil {
		return err
	}
	defer into.Close()
	defer closeAll(joins)
	shares, err := c.makeResctrl()
	if err != nil {
		return err
	}
	defer closeAll(shares)
	joins = slices.Concat(joins, shares)
	at := filepath.Join(c.dir, restoreRoot)
	if err := os.Mkdir(at, 0o700); err != nil {
		return err
	}
	defer os.Remove(at)
	// CRIU compares names of mounts: none may lead over a link.
	if at, err = filepath.EvalSymlinks(at); err != nil {
		return err
	}
	ro := c.rootOptions(s)
	ro.Mounts, ro.NoPivot, ro.UserNS, ro.Warn, ro.AttachAt = r.o.Rootfs, r.o.NoPivot, openUserNS, r.o.Warn, at
	tree, err := rootfs.Prepare(ro)
	if err != nil {
		return err
	}
	defer tree.Close()
	// CRIU follows links when it makes its log. Beside lazy pages' daemon, which has a socket there, it can't be elsewhere.
	if r.co.WorkPath == "" && !r.co.LazyPages {
		r.co.WorkPath, r.co.passing = filepath.Join(c.dir, "criu-work"), true
	}
	opts, err := r.co.options("restore.log", s)
	if err != nil {
		return err
	}
	opts.Root, opts.RestoreSibling, opts.EvasiveDevices = at, true, true
	opts.LSMProfile, opts.LSMMountContext = r.co.lsmProfile(s.Process), r.co.LSMMountContext
	if opts.ExternalMounts, err = restoredMounts(ro, tree); err != nil {
		return err
	}
	files, err := r.namespaces(opts)
	defer closeAll(files)
	if err != nil {
		return err
	}
	if err := r.stdio(opts); err != nil {
		return err
	}
	if err := r.keepNames(); err != nil {
		return err
	}
	if r.uts != nil {
		defer r.uts.Close()
		defer func() {
			if err != nil { // at any point after CRIU has set the images' names
				err = errors.Join(err, r.putNamesBack())
			}
		}()
	}
	r.awaitLazyPages(ctx)
	r.conn, err = criu.Start(ctx, criu.Config{
		Stdin: r.o.Stdin, Stdout: r.o.Stdout, Stderr: r.o.Stderr, Files: files,
		ImagesDir: r.co.ImagePath, WorkDir: r.co.WorkPath,
		Flags: unix.CLONE_NEWNS, Cgroup: into,
		Prepare: func(p *launch.Program) {
			emitJoinCgroups(p, joins)
			// As at a creation, so that all that is mounted on is there, also within what is bound from outside.
			// CRIU takes just the root of it.
			tree.Build(p)
		},
	})
	if err != nil {
		return tree.Explain(err)
	}
	// It is in the groups that take the place of the checkpoint's.
	if opts.CgroupRoots, err = cgroupRoots(r.conn.Pid()); err == nil {
		r.allowed, err = newRestored(c, r.conn.Pid())
	}
	if err != nil {
		r.conn.Close()
		return err
	}
	_, err = r.conn.Do(ctx, criu.Request{Type: criu.Restore, Options: opts}, r.notified)
	if ended := r.conn.Close(); err == nil {
		err = ended
	}
	if err == nil && c.rec.Pid == 0 {
		err = errors.New("criu did not say what it has restored")
	}
	if err == nil && !r.verified {
		err = errors.New("criu did not wait until what it has restored was looked at: it is too old")
	}
	if r.refused != nil {
		return r.refused
	}
	if err != nil {
		return r.co.explain(err, "restore.log")
	}
	return nil
}

// killRoot ends what a failed restore leaves, and gives what waits for its end. Only a child that nobody has waited for
// is surely the one CRIU has named.
func (r *restoring) killRoot() (wait func()) {
	if r.root <= 0 || unix.Waitid(unix.P_PID, r.root, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil) == unix.ECHILD {
		return func() {}
	}
	unix.Kill(r.root, unix.SIGKILL)
	return func() {
		for unix.Waitid(unix.P_PID, r.root, nil, unix.WEXITED, nil) == unix.EINTR {
		}
	}
}

// awaitLazyPages waits for the socket of `criu lazy-pages`, which is started at the same time as a restore that needs
// it, and may be slower. CRIU says it if there is none.
func (r *restoring) awaitLazyPages(ctx context.Context) {
	if !r.co.LazyPages {
		return
	}
	dir := r.co.WorkPath
	if dir == "" {
		dir = r.co.ImagePath
	}
	for range 100 {
		if _, err := os.Lstat(filepath.Join(dir, "lazy-pages.socket")); err == nil || ctx.Err() != nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// notified is told what CRIU is at.
func (r *restoring) notified(n criu.Response, file *os.File) error {
	c := r.c
	r.co.Debug("criu: " + n.Script)
	switch n.Script {
	case "setup-namespaces":
		r.root = n.Pid
		h := c.spec.Hooks
		if h == nil {
			return nil
		}
		c.rec.Pid = n.Pid // hooks are told of it; it is written down when it is whole
		defer func() { c.rec.Pid = 0 }()
		//lint:ignore SA1019 prestart is deprecated and still in use everywhere
		if err := c.runHooks("prestart", h.Prestart, Created, nil); err != nil {
			return err
		}
		return c.runHooks("createRuntime", h.CreateRuntime, Creating, nil)
	case "post-restore":
		if err := r.putNamesBack(); err != nil {
			return err
		}
		c.rec.Restored = true
		return c.setInit(&launch.Proc{Pid: n.Pid})
	case "pre-resume":
		return r.verify()
	case "orphan-pts-master":
		if r.term.socket == "" && r.term.give == nil {
			file.Close()
			return errors.New("the checkpoint has a terminal, and the configuration none")
		}
		return r.term.deliver(file)
	}
	if file != nil {
		file.Close()
	}
	return nil
}

// verify is for when all is as it will run, and stands still. CRIU does not undo anything for an error at this point, so
// what is refused is killed here.
func (r *restoring) verify() error {
	if r.c.rec.Pid == 0 {
		return errors.New("criu did not say what it has restored")
	}
	if r.refused = r.allowed.verify(); r.refused == nil {
		r.verified = true
		return nil
	}
	pids, err := descendants(r.c.rec.Pid) // some may not be in the group
	for _, pid := range pids {
		if e := unix.Kill(pid, unix.SIGKILL); e != nil && e != unix.ESRCH {
			err = errors.Join(err, fmt.Errorf("kill process %d: %w", pid, e))
		}
	}
	r.refused = errors.Join(r.refused, err)
	return r.refused
}

// stdio passes the new container's streams as what the old one had. A checkpoint that says of none is one without.
func (r *restoring) stdio(opts *criu.Options) error {
	f, err := openRegular(filepath.Join(r.co.ImagePath, descriptorsFile))
	if err != nil {
		return err
	}
	defer f.Close()
	var names []string
	if err := json.NewDecoder(io.LimitReader(f, 1<<16)).Decode(&names); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	for fd, name := range names {
		if fd < 3 && strings.HasPrefix(name, "pipe:") {
			opts.InheritFDs = append(opts.InheritFDs, criu.InheritFD{Key: name, FD: fd})
		}
	}
	if !r.c.spec.Process.Terminal {
		r.c.noteStdio([3]*os.File{r.o.Stdin, r.o.Stdout, r.o.Stderr})
	}
	return nil
}

// restoredMounts says what is mounted from outside: by the mount point, which is how it was saved, whether links led
// there or not.
func restoredMounts(o rootfs.Options, tree *rootfs.Tree) ([]criu.Pair, error) {
	bound, err := rootfs.Externals(o)
	if err != nil {
		return nil, err
	}
	var list []criu.Pair
	for _, e := range bound {
		list = append(list, criu.Pair{Key: e.Dest, Value: e.Source})
		if at := tree.Resolved(e.Dest); at != e.Dest {
			list = append(list, criu.Pair{Key: at, Value: e.Source})
		}
	}
	if len(o.Spec.Linux.MaskedPaths) > 0 {
		list = append(list, criu.Pair{Key: os.DevNull, Value: os.DevNull})
	}
	return list, nil
}

// cgroupRoots are a process's groups by controller.
func cgroupRoots(pid int) ([]criu.Pair, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, fmt.Errorf("groups of criu: %w", err)
	}
	var list []criu.Pair
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		for controller := range strings.SplitSeq(f[1], ",") {
			list = append(list, criu.Pair{Key: controller, Value: f[2]})
		}
	}
	return list, nil
}
