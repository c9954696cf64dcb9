package runtime

import (
	"fmt"
	"maps"
	"os"
	"slices"

	"cale/runtime/launch"
	"cale/runtime/rootfs"
	"cale/runtime/spec"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Points at which a child waits for its parent.
const (
	syncMaps    = 1 + iota // in a new user namespace without mappings
	syncHooks              // all is mounted, the root isn't entered
	syncConsole            // the terminal's master comes along
	syncNotify             // the number of the seccomp listener comes along
	syncReady              // nothing is left but to wait for the start
)

// initPlan is everything init's program is made of.
type initPlan struct {
	spec      *specs.Spec
	ns        *namespaces
	tree      *rootfs.Tree
	proc      *process
	cgroups   []*os.File
	setgroups bool
	hooks     bool
	// unprivileged says that the caller isn't root: it can look into the process only if others with its rights can.
	unprivileged bool
	keyring      string   // name of a new session keyring, or ""
	start        *os.File // what to wait on before the execve, and to tell a failure; nil: don't wait
	progress     progress
}

// emit writes down what init does.
func (i *initPlan) emit(p *launch.Program) error {
	s, pr := i.spec, i.proc
	i.progress.stage(p, "nsexec container setup")
	pr.emitEarly(p)
	emitJoinCgroups(p, i.cgroups)
	emitAllProcessors(p)
	i.progress.affinity(p)
	i.ns.emit(p, s, i.setgroups)
	i.progress.stage(p, "child process in init()")
	p.Step("start a session")
	p.Call(unix.SYS_SETSID)
	if i.keyring != "" {
		p.Step("join a new session keyring")
		const joinSessionKeyring = 1
		p.Call(unix.SYS_KEYCTL, launch.N(joinSessionKeyring), p.Str(i.keyring)).Accept(unix.ENOSYS, unix.EPERM, unix.EDQUOT)
	}
	if s.Hostname != "" {
		p.Step("set the hostname " + s.Hostname)
		p.Call(unix.SYS_SETHOSTNAME, p.Str(s.Hostname), launch.N(len(s.Hostname)))
	}
	if s.Domainname != "" {
		p.Step("set the domainname " + s.Domainname)
		p.Call(unix.SYS_SETDOMAINNAME, p.Str(s.Domainname), launch.N(len(s.Domainname)))
	}
	if spec.NewNamespace(s, specs.NetworkNamespace) {
		emitLoopback(p)
	}
	i.tree.Build(p)
	if len(s.Linux.Sysctl) > 0 {
		pr.emitProcfs(p)
		for _, k := range slices.Sorted(maps.Keys(s.Linux.Sysctl)) {
			p.Step("set the sysctl " + k)
			pr.emitWriteProc(p, "sys/"+spec.SysctlPath(k), s.Linux.Sysctl[k])
		}
	}
	i.tree.Mkdir(p, pr.spec.Cwd)
	slave := launch.Reg(-1)
	if pr.spec.Terminal {
		slave = pr.emitTerminal(p, i.tree.Root())
		i.tree.BindConsole(p, slave)
	} else {
		pr.emitStdio(p)
	}
	if i.hooks {
		p.Step("wait for hooks")
		// Not for others who are in a pid namespace that is joined: the host's files are still open.
		open := i.unprivileged && spec.NewNamespace(s, specs.PIDNamespace)
		if open {
			emitDumpable(p)
		}
		p.Sync(syncHooks)
		if open {
			emitPrivate(p)
		}
	}
	i.tree.Enter(p)
	if slave >= 0 {
		emitControl(p, slave)
	}
	if err := emitPersonality(p, s.Linux.Personality); err != nil {
		return err
	}
	if err := emitMemoryPolicy(p, s.Linux.MemoryPolicy); err != nil {
		return err
	}
	return i.finish(p, "init: closing the pipe to signal completion")
}

// finish adds the part of the program that comes when the root is entered; last is what is told when it is through.
func (i *initPlan) finish(p *launch.Program, last string) error {
	pr := i.proc
	pr.emitOwnNull(p)
	pr.emitLabels(p)
	pr.emitChdir(p)
	// Whoever isn't root has taken the groups away on becoming root of the user namespace, if that was allowed.
	if err := pr.emitIdentity(p, i.setgroups && (!i.unprivileged || len(pr.spec.User.AdditionalGids) > 0)); err != nil {
		return err
	}
	command := p.Reg()
	if pr.spec.Args[0] != "" || i.start == nil {
		command = emitLookup(p, pr.spec.Args[0], pr.env)
	}
	i.progress.stage(p, last)
	if pr.landlock != nil {
		pr.landlock.emit(p)
	}
	if i.unprivileged && (pr.filter.NeedsListener || i.start != nil) {
		// For who takes the listener, and for what joins the process before it is started.
		i.emitCloseCallers(p)
		emitDumpable(p)
	}
	if pr.filter.NeedsListener {
		fd := pr.emitSeccomp(p)
		p.SyncValue(syncNotify, fd)
	}
	if i.start != nil {
		mask := emitBlockSignals(p)
		p.Step("report to the caller")
		emitSurvive(p)
		p.Sync(syncReady)
		p.Set(launch.ReportReg, launch.N(i.start.Fd()))
		// It may wait for days, and must not hold the caller's files (and locks) meanwhile.
		p.Step("close the caller's descriptors")
		closeRange(p, uintptr(3+pr.preserve), i.start.Fd()-1)
		closeRange(p, i.start.Fd()+1, uintptr(^uint32(0)))
		emitWaitStart(p, i.start, mask)
	}
	pr.emitExec(p, command)
	return nil
}

// emitCloseCallers closes the caller's descriptors while the process still reports to it: from now on others may look
// into the process.
func (i *initPlan) emitCloseCallers(p *launch.Program) {
	p.Step("close the caller's descriptors")
	first := uintptr(3 + i.proc.preserve)
	report := first
	if i.start != nil {
		report = max(first, i.start.Fd()+1)
	}
	p.Call(unix.SYS_DUP3, launch.ReportReg.Arg(), launch.N(report), launch.N(unix.O_CLOEXEC)).Accept(unix.EINVAL) // it is there
	p.Set(launch.ReportReg, launch.N(report))
	if i.start != nil {
		closeRange(p, first, i.start.Fd()-1)
	}
	closeRange(p, report+1, uintptr(^uint32(0)))
}

// emitBlockSignals blocks the signals that end a process by default. The first process of a pid namespace gets none
// for which it has no handler, unless it is blocked and can be asked for. It returns the set.
func emitBlockSignals(p *launch.Program) launch.Arg {
	p.Step("block signals")
	var set uint64
	for _, s := range []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM} {
		set |= 1 << (s - 1)
	}
	mask := launch.Copy(p, set)
	p.Call(unix.SYS_RT_SIGPROCMASK, launch.N(unix.SIG_SETMASK), mask, launch.N(0), launch.N(8))
	return mask
}

// emitWaitStart waits for the start, or for a blocked signal, which ends the process.
func emitWaitStart(p *launch.Program, start *os.File, mask launch.Arg) {
	p.Step("wait for the start")
	signals := p.Call(unix.SYS_SIGNALFD4, launch.N(-1), mask, launch.N(8), launch.N(unix.SFD_CLOEXEC)).New()
	fds := launch.Copy(p, [2]unix.PollFd{{Fd: int32(start.Fd()), Events: unix.POLLIN}, {Events: unix.POLLIN}})
	p.Store32(fds, 8, signals)
	p.Call(unix.SYS_PPOLL, fds, launch.N(2), launch.N(0), launch.N(0), launch.N(8))
	none := p.Label()
	p.Equal(p.Load32(fds, 12, 0xffff0000).Arg(), launch.N(0), unix.EINTR).Then(none).Accept(unix.EINTR)
	p.Call(unix.SYS_EXIT_GROUP, launch.N(128+int(unix.SIGTERM)))
	p.Bind(none)
	p.Close(signals)
	p.Call(unix.SYS_READ, launch.N(start.Fd()), launch.Ptr(p.Mem(8)), launch.N(1)).Want(1)
	p.Call(unix.SYS_RT_SIGPROCMASK, launch.N(unix.SIG_SETMASK), launch.Ptr(p.Mem(8)), launch.N(0), launch.N(8))
}

func closeRange(p *launch.Program, from, to uintptr) {
	if from <= to {
		p.Call(unix.SYS_CLOSE_RANGE, launch.N(from), launch.N(to), launch.N(0))
	}
}

// keyringName is how runc names a container's session keyring.
func keyringName(id string) string { return fmt.Sprintf("_ses.%s", id) }
