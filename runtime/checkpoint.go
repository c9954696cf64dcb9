package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"cale/runtime/criu"
	"cale/runtime/landlock"
	"cale/runtime/linux"
	"cale/runtime/rootfs"
	"cale/runtime/spec"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// CheckpointOptions say how CRIU is to save a container, or to bring one back.
type CheckpointOptions struct {
	// ImagePath is the directory of CRIU's files; saving makes it, if need be.
	ImagePath string
	// WorkPath is the directory of CRIU's log, made if need be; "" is ImagePath for saving, and for restoring, where
	// anyone may have made that, one that goes with the container.
	WorkPath string
	// ParentPath is a pre-dump's ImagePath, relative to this one.
	ParentPath string
	// PageServer takes the memory's pages instead of files: an address and a port.
	PageServer     string
	PageServerPort int
	// StatusFD gets a zero byte when a lazy dump is ready to hand out pages, and is closed then; nil is nobody.
	StatusFD *os.File
	// CgroupsMode is soft, full, strict, ignore, or "" for soft.
	CgroupsMode string
	// LSMProfile (TYPE:NAME) and LSMMountContext replace what the images name; so does the configuration's profile or
	// label without the former.
	LSMProfile, LSMMountContext string

	LeaveRunning, PreDump, LazyPages, AutoDedup                      bool
	TCPEstablished, TCPSkipInFlight, ExtUnixSk, FileLocks, LinkRemap bool
	// ShellJob allows a terminal that isn't the container's own.
	ShellJob bool
	// Warn and Debug are as in Options.
	Warn, Debug func(msg string)

	passing bool // WorkPath goes with the container
}

// descriptorsFile lists, beside CRIU's files, what a container had as stdin, stdout and stderr. As runc names it.
const descriptorsFile = "descriptors.json"

// runcConfig is CRIU's configuration for containers, by the name that administrators know. It need not be there.
const runcConfig = "/etc/criu/runc.conf"

// Checkpoint saves a running container's processes to files. They end, unless they are to go on; what is left of the
// container is for Delete.
func (c *Container) Checkpoint(ctx context.Context, o CheckpointOptions) error {
	o.silence()
	if err := criu.Installed(); err != nil {
		return err
	}
	lock, err := c.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	status, err := c.Status()
	if err != nil {
		return err
	}
	if status != Running && status != Paused {
		return fmt.Errorf("container cannot be checkpointed in %s state", status)
	}
	s, err := c.Spec()
	if err != nil {
		return err
	}
	if err := unsaved(s); err != nil {
		return err
	}
	if err := os.Mkdir(o.ImagePath, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	opts, err := o.options("dump.log", s)
	if err != nil {
		return err
	}
	opts.Pid, opts.Root = c.rec.Pid, c.rec.Rootfs
	opts.LeaveRunning, opts.LinkRemap, opts.TCPSkipInFlight = o.LeaveRunning, o.LinkRemap, o.TCPSkipInFlight
	opts.PageServerAddress, opts.PageServerPort = o.PageServer, o.PageServerPort
	opts.ParentImage, opts.TrackMem = o.ParentPath, o.ParentPath != ""
	g, err := c.Cgroup()
	if err != nil {
		return err
	}
	if g != nil {
		groups := g.Dirs()
		if opts.FreezeCgroup = groups["freezer"]; opts.FreezeCgroup == "" {
			opts.FreezeCgroup = groups[""]
		}
	}
	if opts.External, err = externalNamespaces(s); err != nil {
		return err
	}
	if err := o.checkFeatures(ctx); err != nil {
		return err
	}
	kind := criu.PreDump
	if !o.PreDump {
		kind = criu.Dump
		if opts.ExternalMounts, err = c.externalMounts(s); err != nil {
			return err
		}
		if err := c.writeDescriptors(o.ImagePath); err != nil {
			return err
		}
	}
	conn, err := criu.Start(ctx, criu.Config{ImagesDir: o.ImagePath, WorkDir: o.WorkPath})
	if err != nil {
		return err
	}
	_, err = conn.Do(ctx, criu.Request{Type: kind, Options: opts}, func(n criu.Response, file *os.File) error {
		if file != nil {
			file.Close()
		}
		o.Debug("criu: " + n.Script)
		if n.Script == "status-ready" && o.StatusFD != nil {
			if _, err := o.StatusFD.Write([]byte{0}); err != nil {
				o.Warn("tell the status descriptor: " + err.Error())
			}
			o.StatusFD.Close()
		}
		return nil
	})
	ended := conn.Close()
	if err == nil && !o.PreDump {
		err = ended // after a pre-dump it waits for the next one, in vain
	}
	if err != nil {
		return o.explain(err, "dump.log")
	}
	return nil
}

// unsaved refuses what CRIU does not save, and a container would silently be without when it goes on.
func unsaved(s *specs.Spec) error {
	if _, ok := s.Annotations[landlock.Annotation]; ok {
		return fmt.Errorf("cannot checkpoint or restore a container with the annotation %s: criu does not know of Landlock", landlock.Annotation)
	}
	return nil
}

func (o *CheckpointOptions) silence() {
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	if o.Debug == nil {
		o.Debug = func(string) {}
	}
}

// options gives the options that saving and restoring have in common, and makes the directory of the log.
func (o *CheckpointOptions) options(log string, s *specs.Spec) (_ *criu.Options, err error) {
	if o.ImagePath == "" {
		return nil, errors.New("a checkpoint needs a directory for its images")
	}
	if o.ImagePath, err = filepath.Abs(o.ImagePath); err != nil {
		return nil, err
	}
	mode, err := criu.ParseCgroupsMode(o.CgroupsMode)
	if err != nil {
		return nil, err
	}
	opts := &criu.Options{
		LogLevel: 4, LogFile: log, NotifyScripts: true, OrphanPTSMaster: true, ConfigFile: runcConfig,
		CgroupsMode: mode, EmptyNS: unix.CLONE_NEWNET, ShellJob: o.ShellJob, ExtUnixSk: o.ExtUnixSk,
		TCPEstablished: o.TCPEstablished, FileLocks: o.FileLocks, AutoDedup: o.AutoDedup, LazyPages: o.LazyPages,
	}
	if _, err := exec.LookPath("iptables-restore"); err != nil {
		opts.NftablesLock = true
	}
	// As in runc: a container may have a configuration of its own, or want none.
	if file, ok := s.Annotations["org.criu.config"]; ok {
		opts.ConfigFile = file
	}
	if o.WorkPath == "" {
		return opts, nil
	}
	if o.WorkPath, err = filepath.Abs(o.WorkPath); err != nil {
		return nil, err
	}
	if err := os.Mkdir(o.WorkPath, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	opts.WorkDir = true
	return opts, nil
}

// lsmProfile is what a restored process is held to: what was asked for, or what the configuration says.
func (o *CheckpointOptions) lsmProfile(p *specs.Process) string {
	switch {
	case o.LSMProfile != "":
		return o.LSMProfile
	case p.ApparmorProfile != "":
		return "apparmor:" + p.ApparmorProfile
	case p.SelinuxLabel != "":
		return "selinux:" + p.SelinuxLabel
	}
	return ""
}

// checkFeatures asks whether this machine can do what not every one can.
func (o *CheckpointOptions) checkFeatures(ctx context.Context) error {
	if !o.PreDump && !o.LazyPages {
		return nil
	}
	r, err := criu.Ask(ctx, criu.Request{Type: criu.FeatureCheck, Features: criu.Features{MemTrack: o.PreDump, LazyPages: o.LazyPages}})
	switch {
	case err != nil:
		return fmt.Errorf("CRIU feature check failed: %w", err)
	case o.PreDump && !r.Features.MemTrack:
		return errors.New("criu is missing features: [MemTrack] (the kernel does not track changes of memory)")
	case o.LazyPages && !r.Features.LazyPages:
		return errors.New("criu is missing features: [LazyPages]")
	}
	return nil
}

// explain adds to an error of CRIU's what its log tells, and where that is.
func (o *CheckpointOptions) explain(err error, log string) error {
	dir := o.WorkPath
	if dir == "" {
		dir = o.ImagePath
	}
	file := filepath.Join(dir, log)
	if lines := logErrors(file); len(lines) > 0 {
		o.Warn("--- Quoting " + strconv.Quote(file))
		for _, l := range lines {
			o.Warn(l)
		}
		o.Warn("---")
		if e, ok := errors.AsType[*criu.Error](err); ok {
			_, e.Message, _ = strings.Cut(lines[0], ":")
			if strings.HasPrefix(e.Message, "(") { // the time
				_, e.Message, _ = strings.Cut(e.Message, ") ")
			}
			e.Message = strings.TrimSpace(e.Message)
		}
	}
	if o.passing {
		return err
	}
	return fmt.Errorf("%w (see %s)", err, file)
}

// harmless are errors that CRIU logs, and goes on, on machines that lack something it isn't asked for.
var harmless = []string{"tun: Unable to create tun", "rlimit: Can't setup RLIMIT_NOFILE"}

// maxLog bounds how much of a log is read.
const maxLog = 16 << 20

// logErrors finds the first lines of a log of CRIU's that tell of errors.
func logErrors(file string) (lines []string) {
	f, err := openRegular(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	log, _ := io.ReadAll(io.LimitReader(f, maxLog))
	n := 0
	for text := range strings.Lines(string(log)) {
		n++
		text = strings.TrimSuffix(text, "\n")
		if len(lines) < 10 && strings.Contains(text, "Error") && !slices.ContainsFunc(harmless, func(s string) bool { return strings.Contains(text, s) }) {
			lines = append(lines, fmt.Sprintf("%d:%s", n, text))
		}
	}
	return lines
}

// outerNamespaces are the kinds of namespaces that stay outside a checkpoint if a container has joined one by path.
var outerNamespaces = []struct {
	kind specs.LinuxNamespaceType
	name string // as CRIU and /proc name it
	key  string // as runc has it: what one of them saved the other restores
}{
	{specs.NetworkNamespace, "net", "extRootNetNS"},
	{specs.PIDNamespace, "pid", "extRootPidNS"},
}

// namespacePath is where a namespace to be joined is, or "".
func namespacePath(s *specs.Spec, kind specs.LinuxNamespaceType) string {
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == kind {
			return ns.Path
		}
	}
	return ""
}

func externalNamespaces(s *specs.Spec) (list []string, err error) {
	for _, ns := range outerNamespaces {
		file := namespacePath(s, ns.kind)
		if file == "" {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(file, &st); err != nil {
			return nil, fmt.Errorf("namespace %s: %w", ns.kind, &os.PathError{Op: "stat", Path: file, Err: err})
		}
		list = append(list, fmt.Sprintf("%s[%d]:%s", ns.name, st.Ino, ns.key))
	}
	return list, nil
}

// externalMounts names what is mounted in the container from outside: bound files and directories, and the null
// device over masked files. Each is called by its mount point, and so is the name under which it is saved.
func (c *Container) externalMounts(s *specs.Spec) ([]criu.Pair, error) {
	bound, err := rootfs.Externals(c.rootOptions(s))
	if err != nil {
		return nil, err
	}
	view, err := linux.MountsOf(c.rec.Pid)
	if err != nil {
		return nil, fmt.Errorf("mounts of container %s: %w", c.rec.ID, err)
	}
	defer view.Close()
	var list []criu.Pair
	for _, e := range bound {
		if at, _ := view.Point(e.Dest); at != "" && at != "/" {
			list = append(list, criu.Pair{Key: at, Value: at})
		}
	}
	for _, masked := range s.Linux.MaskedPaths {
		if at, dir := view.Point(masked); at != "" && at != "/" && !dir {
			list = append(list, criu.Pair{Key: at, Value: os.DevNull})
		}
	}
	return list, nil
}

// rootOptions are what the container's tree was made of, as far as its configuration says.
func (c *Container) rootOptions(s *specs.Spec) rootfs.Options {
	o := rootfs.Options{Spec: s, Bundle: c.rec.Bundle, NewUser: spec.HasNamespace(s, specs.UserNamespace)}
	if g, err := c.Cgroup(); err == nil && g != nil {
		o.CgroupDirs = g.Dirs()
	}
	return o
}

// writeDescriptors leaves a note, beside the images, of which pipes are the ones the container was given.
func (c *Container) writeDescriptors(dir string) error {
	names := c.rec.Stdio
	if names[0] == "" {
		for fd := range names {
			names[fd] = fdName(c.rec.Pid, fd)
		}
	}
	raw, err := json.Marshal(names)
	if err != nil {
		return err
	}
	// The directory may be another's, who has put a link there.
	file := filepath.Join(dir, descriptorsFile)
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	return errors.Join(err, f.Close())
}

// openRegular opens a file for reading in a directory that others may have written to: it follows no link there, and
// waits for nobody.
func openRegular(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// fdName is what /proc calls a process's descriptor.
func fdName(pid, fd int) string {
	name, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/fd/" + strconv.Itoa(fd))
	if err != nil {
		return os.DevNull // closed by the program itself
	}
	return name
}
