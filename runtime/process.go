package runtime

import (
	"fmt"
	"os"
	"strings"
	"unsafe"

	"cale/runtime/launch"
	"cale/runtime/linux/startlimit"
	"cale/runtime/seccomp"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// atCwd is AT_FDCWD as an argument.
var atCwd = launch.N(unix.AT_FDCWD)

// stepCwd names the steps that enter the working directory, as runc words it.
func (pr *process) stepCwd() string {
	return fmt.Sprintf("chdir to cwd (%q) set in config.json failed", pr.spec.Cwd)
}

// process is what init and a process of exec have in common: who they are and what they run.
type process struct {
	spec     *specs.Process
	env      []string
	stdio    [3]*os.File
	opened   []*os.File
	caps     capSets
	filter   seccomp.Filter
	landlock *landlocked
	preserve int
	procfs   launch.Reg // a proc file system nobody else sees, once made
	hasProc  bool
	cwdDone  launch.Reg
}

// newProcess works out everything that needs no child. close must be called.
func newProcess(ps *specs.Process, stdio [3]*os.File, preserve int, userNS bool, sec *specs.LinuxSeccomp, warn func(string)) (*process, error) {
	pr := &process{spec: ps, stdio: stdio, preserve: preserve}
	pr.env = uniqueEnv(ps.Env)
	pr.caps = newCapSets(ps.Capabilities, userNS, warn)
	if sec != nil {
		f, err := seccomp.Compile(sec)
		if err != nil {
			return nil, err
		}
		pr.filter = f
	}
	if ps.Terminal {
		return pr, nil
	}
	for i, f := range pr.stdio {
		if f == nil {
			null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
			if err != nil {
				return nil, err
			}
			pr.opened = append(pr.opened, null)
			pr.stdio[i] = null
		}
	}
	return pr, nil
}

func (pr *process) close() {
	for _, f := range pr.opened {
		f.Close()
	}
	pr.opened = nil
}

// uniqueEnv keeps the last value of each variable, in the order of first mention.
func uniqueEnv(env []string) []string {
	out := make([]string, 0, len(env)+1)
	at := make(map[string]int, len(env))
	for _, e := range env {
		k, _, _ := strings.Cut(e, "=")
		if i, ok := at[k]; ok {
			out[i] = e
			continue
		}
		at[k] = len(out)
		out = append(out, e)
	}
	return out
}

// setHome sets HOME unless the environment has one. home is asked only then.
func (pr *process) setHome(home func() string) {
	if v, ok := lookupEnv(pr.env, "HOME"); ok && v != "" {
		return
	}
	pr.env = uniqueEnv(append(pr.env, "HOME="+home()))
}

// emitEarly adds the steps that come first, when the child still is what its parent was: it takes over neither
// signal dispositions nor a umask, and can't be traced or looked into from a namespace it joins.
func (pr *process) emitEarly(p *launch.Program) {
	p.Step("prepare the process")
	emitPrivate(p)
	p.Call(unix.SYS_UMASK, launch.N(0))
	action := launch.Ptr(p.Mem(64)) // struct sigaction of zeros: SIG_DFL
	for sig := 1; sig <= 64; sig++ {
		if sig != int(unix.SIGKILL) && sig != int(unix.SIGSTOP) {
			p.Call(unix.SYS_RT_SIGACTION, launch.N(sig), action, launch.N(0), launch.N(8))
		}
	}
	p.Call(unix.SYS_RT_SIGPROCMASK, launch.N(unix.SIG_SETMASK), launch.Ptr(p.Mem(8)), launch.N(0), launch.N(8))
	if adj := pr.spec.OOMScoreAdj; adj != nil {
		p.Step(fmt.Sprintf("set oom_score_adj to %d", *adj))
		text := fmt.Sprint(*adj)
		fd := p.Call(unix.SYS_OPENAT, atCwd, p.Str("/proc/self/oom_score_adj"), launch.N(unix.O_WRONLY|unix.O_CLOEXEC)).New()
		p.Call(unix.SYS_WRITE, fd.Arg(), p.Str(text), launch.N(len(text)))
		p.Close(fd)
	}
}

// emitPrivate keeps others from looking into the process, and lets it end with its parent as long as that is at work
// on it.
func emitPrivate(p *launch.Program) {
	p.Call(unix.SYS_PRCTL, launch.N(unix.PR_SET_DUMPABLE), launch.N(0), launch.N(0), launch.N(0), launch.N(0))
	p.Call(unix.SYS_PRCTL, launch.N(unix.PR_SET_PDEATHSIG), launch.N(unix.SIGKILL), launch.N(0), launch.N(0), launch.N(0))
}

// emitDumpable lets those with the process's own rights look into it, as its caller must if that isn't root.
func emitDumpable(p *launch.Program) {
	p.Call(unix.SYS_PRCTL, launch.N(unix.PR_SET_DUMPABLE), launch.N(1), launch.N(0), launch.N(0), launch.N(0))
}

// emitSurvive lets the process outlive its parent.
func emitSurvive(p *launch.Program) {
	p.Call(unix.SYS_PRCTL, launch.N(unix.PR_SET_PDEATHSIG), launch.N(0), launch.N(0), launch.N(0), launch.N(0))
}

// emitAllProcessors lets the child run wherever its cpuset allows: what its parent is bound to says nothing of it.
func emitAllProcessors(p *launch.Program) {
	p.Step("allow all processors")
	mask := p.Mem(1024)
	for i := range mask {
		mask[i] = 0xff
	}
	p.Call(unix.SYS_SCHED_SETAFFINITY, launch.N(0), launch.N(len(mask)), launch.Ptr(mask)).AcceptAny()
}

// emitJoinCgroups writes the child into v1 groups, whose files the parent has opened.
func emitJoinCgroups(p *launch.Program, files []*os.File) {
	for _, f := range files {
		p.Step("join the cgroup " + f.Name())
		p.Call(unix.SYS_WRITE, launch.N(f.Fd()), p.Str("0"), launch.N(1))
	}
}

// emitStdio adds the steps that give the process its descriptors 0 to 2. They are chosen by the caller, so the
// owner changes only for what the process could otherwise not open again by /dev/stdout: pipes.
func (pr *process) emitStdio(p *launch.Program) {
	p.Step("set up stdin, stdout and stderr")
	var regs [3]launch.Reg
	for i, f := range pr.stdio {
		fd := launch.N(f.Fd())
		var st unix.Stat_t
		if unix.Fstat(int(f.Fd()), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO && st.Uid != pr.spec.User.UID {
			p.Call(unix.SYS_FCHOWN, fd, launch.N(pr.spec.User.UID), launch.N(-1)).AcceptAny()
		}
		regs[i] = p.Call(unix.SYS_FCNTL, fd, launch.N(unix.F_DUPFD_CLOEXEC), launch.N(10)).New()
	}
	for i, r := range regs {
		p.Call(unix.SYS_DUP3, r.Arg(), launch.N(i), launch.N(0))
		p.Close(r)
	}
}

// emitOwnNull puts the container's own null device in the place of the host's as stdin, stdout and stderr: a file from
// outside is nothing the process should hold, and CRIU can't save it. It is for a process in its root.
func (pr *process) emitOwnNull(p *launch.Program) {
	if pr.spec.Terminal {
		return
	}
	null := launch.Reg(-1)
	done := p.Label()
	for i, f := range pr.stdio {
		var st unix.Stat_t
		if unix.Fstat(int(f.Fd()), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
			continue
		}
		if null < 0 {
			p.Step("open the container's /dev/null")
			how := unix.OpenHow{Flags: unix.O_RDWR | unix.O_CLOEXEC | unix.O_NOCTTY, Resolve: unix.RESOLVE_NO_SYMLINKS}
			null = p.Call(unix.SYS_OPENAT2, atCwd, p.Str("/dev/null"), launch.Copy(p, how), launch.N(unix.SizeofOpenHow)).
				AcceptAny().Else(done).New()
			got := p.Mem(int(unsafe.Sizeof(st)))
			p.Call(unix.SYS_FSTAT, null.Arg(), launch.Ptr(got))
			rdev := p.Load32(launch.Ptr(got), int(unsafe.Offsetof(st.Rdev)), ^uint32(0))
			p.Equal(rdev.Arg(), launch.N(st.Rdev), unix.ENODEV).Accept(unix.ENODEV).Else(done)
		}
		p.Call(unix.SYS_DUP3, null.Arg(), launch.N(i), launch.N(0))
	}
	p.Bind(done)
}

// emitProcfs makes a proc file system of the child's namespaces that no image can have prepared anything in.
func (pr *process) emitProcfs(p *launch.Program) launch.Reg {
	if pr.hasProc {
		return pr.procfs
	}
	pr.hasProc = true
	p.Step("make a private /proc")
	fs := p.Call(unix.SYS_FSOPEN, p.Str("proc"), launch.N(unix.FSOPEN_CLOEXEC)).New()
	p.Call(unix.SYS_FSCONFIG, fs.Arg(), launch.N(unix.FSCONFIG_CMD_CREATE), launch.N(0), launch.N(0), launch.N(0))
	pr.procfs = p.Call(unix.SYS_FSMOUNT, fs.Arg(), launch.N(unix.FSMOUNT_CLOEXEC), launch.N(0)).New()
	p.Close(fs)
	return pr.procfs
}

// emitWriteProc writes a file of the private /proc.
func (pr *process) emitWriteProc(p *launch.Program, name, text string) {
	fd := p.Open(pr.procfs, name, unix.O_WRONLY).New()
	p.Call(unix.SYS_WRITE, fd.Arg(), p.Str(text), launch.N(len(text)))
	p.Close(fd)
}

// emitLabels sets what AppArmor and SELinux are to do at the execve.
func (pr *process) emitLabels(p *launch.Program) {
	if s := pr.spec.ApparmorProfile; s != "" {
		pr.emitProcfs(p)
		p.Step("set the AppArmor profile " + s)
		// Beside other modules AppArmor has a folder of its own, since Linux 5.8.
		fd, opened, text := p.Reg(), p.Label(), "exec "+s
		p.Open(pr.procfs, "thread-self/attr/apparmor/exec", unix.O_WRONLY).To(fd).Then(opened).Accept(unix.ENOENT)
		p.Open(pr.procfs, "thread-self/attr/exec", unix.O_WRONLY).To(fd)
		p.Bind(opened)
		p.Call(unix.SYS_WRITE, fd.Arg(), p.Str(text), launch.N(len(text)))
		p.Close(fd)
	}
	if s := pr.spec.SelinuxLabel; s != "" {
		pr.emitProcfs(p)
		p.Step("set the SELinux label " + s)
		pr.emitWriteProc(p, "thread-self/attr/exec", s)
	}
}

// emitChdir enters the working directory as root; where that isn't allowed (root of a user namespace, on a network
// file system), emitIdentity tries again as the user.
func (pr *process) emitChdir(p *launch.Program) {
	p.Step(pr.stepCwd())
	pr.cwdDone = p.Reg()
	p.Set(pr.cwdDone, launch.N(1))
	p.Call(unix.SYS_CHDIR, p.Str(pr.spec.Cwd)).To(pr.cwdDone).Accept(unix.EACCES)
}

// emitIdentity adds the steps that make the child the user it is to be. Nothing privileged comes after them, but
// installing a seccomp filter.
func (pr *process) emitIdentity(p *launch.Program, setgroups bool) error {
	if err := pr.emitLimits(p); err != nil {
		return err
	}
	u := pr.spec.User
	if pr.spec.NoNewPrivileges {
		p.Step("set no_new_privs")
		p.Call(unix.SYS_PRCTL, launch.N(unix.PR_SET_NO_NEW_PRIVS), launch.N(1), launch.N(0), launch.N(0), launch.N(0))
	}
	pr.caps.emitBounding(p)
	p.Step("set the user")
	p.Call(unix.SYS_PRCTL, launch.N(unix.PR_SET_KEEPCAPS), launch.N(1), launch.N(0), launch.N(0), launch.N(0))
	if setgroups {
		p.Step("set additional groups")
		gids := p.Mem(4 * max(len(u.AdditionalGids), 1))
		for i, g := range u.AdditionalGids {
			*(*uint32)(unsafe.Pointer(&gids[4*i])) = g
		}
		p.Call(unix.SYS_SETGROUPS, launch.N(len(u.AdditionalGids)), launch.Ptr(gids))
	}
	p.Step(fmt.Sprintf("set the group %d", u.GID))
	p.Call(unix.SYS_SETRESGID, launch.N(u.GID), launch.N(u.GID), launch.N(u.GID))
	p.Step(fmt.Sprintf("set the user %d", u.UID))
	p.Call(unix.SYS_SETRESUID, launch.N(u.UID), launch.N(u.UID), launch.N(u.UID))
	pr.caps.emit(p, pr.lateSeccomp())
	p.Step(pr.stepCwd())
	inside := p.Label()
	p.Equal(pr.cwdDone.Arg(), launch.N(0), unix.EACCES).Accept(unix.EACCES).Then(inside)
	p.Call(unix.SYS_CHDIR, p.Str(pr.spec.Cwd))
	p.Bind(inside)
	// The kernel says "(unreachable)" of a directory outside the root: a link to /proc/self/fd/N may lead there.
	p.Step("check that the working directory is inside the container")
	buf := launch.Ptr(p.Mem(unix.PathMax))
	p.Call(unix.SYS_GETCWD, buf, launch.N(unix.PathMax))
	p.Equal(p.Load32(buf, 0, 0xff).Arg(), launch.N('/'), unix.ENOENT)
	umask := uint32(0o022)
	if u.Umask != nil {
		umask = *u.Umask & 0o777
	}
	p.Call(unix.SYS_UMASK, launch.N(umask))
	return nil
}

// lateSeccomp reports whether installing the filter, or Landlock's rules, needs CAP_SYS_ADMIN after the identity is set.
func (pr *process) lateSeccomp() bool {
	return (len(pr.filter.Program) > 0 || pr.landlock != nil) && !pr.spec.NoNewPrivileges
}

// emitSeccomp installs the filter. It is the last step before the execve, so that the filter needs to allow nothing
// but that.
func (pr *process) emitSeccomp(p *launch.Program) launch.Reg {
	p.Step("install the seccomp filter")
	code := p.Mem(8 * len(pr.filter.Program))
	for i, ins := range pr.filter.Program {
		*(*unix.SockFilter)(unsafe.Pointer(&code[8*i])) = ins
	}
	prog := p.Mem(16) // struct sock_fprog
	*(*uint16)(unsafe.Pointer(&prog[0])) = uint16(len(pr.filter.Program))
	*(*uint64)(unsafe.Pointer(&prog[8])) = launch.Ptr(code).Addr()
	const setModeFilter = 1
	return p.Call(unix.SYS_SECCOMP, launch.N(setModeFilter), launch.N(pr.filter.Flags), launch.Ptr(prog)).New()
}

// emitExec adds the end of the program.
func (pr *process) emitExec(p *launch.Program, command launch.Reg) {
	p.Step("close descriptors")
	emitSurvive(p)
	p.Call(unix.SYS_CLOSE_RANGE, launch.N(3+pr.preserve), launch.N(^uint32(0)), launch.N(unix.CLOSE_RANGE_CLOEXEC))
	argv, envp := p.Strs(pr.spec.Args), p.Strs(pr.env)
	if len(pr.filter.Program) > 0 && !pr.filter.NeedsListener {
		pr.emitSeccomp(p)
	}
	p.Step(stepExec)
	p.Call(unix.SYS_EXECVE, command.Arg(), argv, envp)
}

// emitLimits adds resource limits and scheduling.
func (pr *process) emitLimits(p *launch.Program) error {
	nofile := false
	for _, r := range pr.spec.Rlimits {
		n, ok := rlimit(r.Type)
		if !ok {
			return fmt.Errorf("invalid rlimit type: %s", r.Type)
		}
		nofile = nofile || n == unix.RLIMIT_NOFILE
		p.Step(fmt.Sprintf("set the limit %s to %d:%d", r.Type, r.Soft, r.Hard))
		p.Call(unix.SYS_PRLIMIT64, launch.N(0), launch.N(n), launch.Copy(p, [2]uint64{r.Soft, r.Hard}), launch.N(0))
	}
	if !nofile && startlimit.Hard != 0 {
		// Go has raised the soft limit for this program; the process is to have what we were started with.
		p.Step("restore the limit of open files")
		p.Call(unix.SYS_PRLIMIT64, launch.N(0), launch.N(unix.RLIMIT_NOFILE), launch.Copy(p, [2]uint64{startlimit.Soft, startlimit.Hard}), launch.N(0)).AcceptAny()
	}
	return pr.emitScheduling(p)
}

// rlimit is a resource's number by its name (setrlimit(2)).
func rlimit(name string) (int, bool) {
	for i, n := range [...]string{
		unix.RLIMIT_CPU: "CPU", unix.RLIMIT_FSIZE: "FSIZE", unix.RLIMIT_DATA: "DATA", unix.RLIMIT_STACK: "STACK",
		unix.RLIMIT_CORE: "CORE", unix.RLIMIT_RSS: "RSS", unix.RLIMIT_NPROC: "NPROC", unix.RLIMIT_NOFILE: "NOFILE",
		unix.RLIMIT_MEMLOCK: "MEMLOCK", unix.RLIMIT_AS: "AS", unix.RLIMIT_LOCKS: "LOCKS",
		unix.RLIMIT_SIGPENDING: "SIGPENDING", unix.RLIMIT_MSGQUEUE: "MSGQUEUE", unix.RLIMIT_NICE: "NICE",
		unix.RLIMIT_RTPRIO: "RTPRIO", unix.RLIMIT_RTTIME: "RTTIME",
	} {
		if name == "RLIMIT_"+n {
			return i, true
		}
	}
	return 0, false
}
