// Package step runs a build's steps. A step is a container of package runtime,
// made by this process: no runtime is executed and no supervisor stands
// between.
package step

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	containerdoci "github.com/containerd/containerd/v2/pkg/oci"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/oci"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/solver/llbsolver/cdidevices"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"
	"github.com/moby/buildkit/util/stack"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cale/apparmor"
	"cale/build/instance"
	"cale/filetree"
	"cale/runtime"
	"cale/runtime/cgroup"
)

// Options say where steps run.
type Options struct {
	// Dir holds bundles, states and the files that steps see as /etc/hosts and
	// /etc/resolv.conf. This process alone uses it.
	Dir string
	// CgroupParent is the group that steps' groups are made below.
	CgroupParent string
	Networks     map[pb.NetMode]network.Provider
	Proxy        network.ProxyProvider
	DNS          *oci.DNSConfig
	// Log takes what failed after a step's end.
	Log     func(format string, args ...any)
	Devices *cdidevices.Manager
}

// Runner implements BuildKit's executor.Executor.
type Runner struct {
	opts Options

	mu      sync.Mutex
	running map[string]*running
	leaving sync.WaitGroup // what is being taken down
}

// running is a step that Exec may join. ready is closed when its process runs,
// ended when it does not any more.
type running struct {
	ready, ended chan struct{}
	container    *runtime.Container
	rootfs       string
	spec         *specs.Spec
}

var _ executor.Executor = (*Runner)(nil)

// New makes a runner. What an earlier process left running in Dir is ended.
func New(o Options) (*Runner, error) {
	r := &Runner{opts: o, running: map[string]*running{}}
	left, err := runtime.List(r.states())
	if err != nil {
		return nil, err
	}
	for _, s := range left {
		c, err := runtime.Load(r.states(), s.ID)
		if err == nil {
			err = c.Delete(true)
		}
		if err != nil {
			return nil, fmt.Errorf("end step %s of an earlier builder: %w", s.ID, err)
		}
	}
	if err := os.RemoveAll(o.Dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o711); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Runner) states() string { return filepath.Join(r.opts.Dir, "states") }

// Close waits until what ended steps left is taken down.
func (r *Runner) Close() error {
	r.leaving.Wait()
	// The groups that were made on the way to the steps' own, where no step is
	// left that could not be ended.
	g, err := cgroup.Open(r.opts.CgroupParent, cgroup.Options{Parent: true})
	if err != nil {
		return err
	}
	if pids, err := g.Pids(); err != nil && !errors.Is(err, os.ErrNotExist) || len(pids) > 0 {
		return err
	}
	return g.Destroy()
}

// Run implements executor.Executor.
func (r *Runner) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, process executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	if id == "" {
		id = identity.NewID()
	}
	if err := executor.ValidContainerID(id); err != nil {
		return nil, err
	}
	run := &running{ready: make(chan struct{}), ended: make(chan struct{})}
	r.mu.Lock()
	if r.running[id] != nil {
		r.mu.Unlock()
		return nil, fmt.Errorf("step %s is running already", id)
	}
	r.running[id] = run
	r.mu.Unlock()
	tell := sync.OnceFunc(func() {
		if started != nil {
			close(started)
		}
	})
	defer func() {
		r.mu.Lock()
		delete(r.running, id)
		r.mu.Unlock()
		close(run.ended)
		tell()
	}()
	return nil, r.run(ctx, id, root, mounts, process, run, tell)
}

func (r *Runner) run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, process executor.ProcessInfo, run *running, started func()) (err error) {
	meta := process.Meta
	ns, err := r.network(ctx, &meta)
	if err != nil {
		return err
	}
	defer r.later(ns.Close)
	proxy, proxied := ns.(network.ProxyNamespace)
	if proxied {
		meta.Env = executor.ReplaceEnv(meta.Env, proxy.ProxyEnv())
	}

	resolv, hosts, clean, err := r.files(ctx, &meta)
	if err != nil {
		return err
	}
	defer clean()

	bundle := filepath.Join(r.opts.Dir, id)
	if err := os.Mkdir(bundle, 0o711); err != nil {
		return err
	}
	defer os.Remove(bundle)
	run.rootfs = filepath.Join(bundle, "rootfs")
	unmount, err := r.mountRoot(ctx, root, run.rootfs)
	if err != nil {
		return fmt.Errorf("mount the step's root: %w", err)
	}
	defer unmount()
	defer executor.MountStubsCleaner(context.WithoutCancel(ctx), run.rootfs, mounts, meta.RemoveMountStubsRecursive)()
	if proxied {
		restore, fault := executor.InjectProxyCA(run.rootfs, proxy.ProxyCACert())
		if fault != nil {
			return fmt.Errorf("the proxy's certificate: %w", fault)
		}
		defer func() {
			if fault := restore(); fault != nil {
				err = errors.Join(err, fmt.Errorf("failed to clean up proxy CA: %w", fault))
			}
		}()
	}

	uid, gid, groups, err := oci.GetUser(run.rootfs, meta.User)
	if err != nil {
		return err
	}
	if meta.CgroupParent != "" {
		if meta.CgroupParent, err = instance.Below(r.opts.CgroupParent, meta.CgroupParent); err != nil {
			return err
		}
	}
	opts := []containerdoci.SpecOpts{oci.WithUIDGID(uid, gid, groups)}
	if meta.ReadonlyRootFS {
		opts = append(opts, containerdoci.WithRootFSReadonly())
	}
	spec, release, err := oci.GenerateSpec(ctx, meta, mounts, id, resolv, hosts, ns, r.opts.CgroupParent,
		oci.ProcessSandbox, nil, "", false, "", r.opts.Devices, opts...)
	if err != nil {
		return err
	}
	defer release()
	spec.Root.Path = run.rootfs
	spec.Root.Readonly = spec.Root.Readonly || root.Readonly
	spec.Process.Terminal = meta.Tty
	if spec.Process.ApparmorProfile, err = confinement(meta.SecurityMode); err != nil {
		return err
	}
	if err := makeCwd(run.rootfs, meta.Cwd, uid, gid); err != nil {
		return fmt.Errorf("working directory %s: %w", meta.Cwd, err)
	}
	run.spec = spec

	std, err := newStreams(process)
	if err != nil {
		return err
	}
	c, err := runtime.Run(ctx, runtime.Options{
		ID: id, Bundle: bundle, StateDir: r.states(), Spec: spec, NoNewKeyring: false,
		Stdin: std.files[0], Stdout: std.files[1], Stderr: std.files[2], Console: std.console(meta.Tty),
	})
	std.started()
	if err != nil {
		std.wait()
		return notStarted(ctx, err, process)
	}
	run.container = c
	close(run.ready)
	started()
	oom := watchOOM(c)
	status := wait(ctx, c.InitPid(), process, func(sig syscall.Signal) error { return c.Kill(unix.Signal(sig), sig == unix.SIGKILL) }, std)
	std.wait()
	oomed := oom()
	// The rest of the step's processes end here, before its root is looked at.
	if err := c.Delete(true); err != nil {
		return fmt.Errorf("take the step's container down: %w", err)
	}
	return exitError(ctx, status, oomed, meta.ValidExitCodes)
}

// network is a step's own, in which what it fetches is kept account of if that
// was asked for.
func (r *Runner) network(ctx context.Context, meta *executor.Meta) (network.Namespace, error) {
	if meta.Proxy != nil {
		return r.opts.Proxy.NewProxy(ctx, &network.ProxyConfig{Policy: meta.Proxy.Policy, Capture: meta.Proxy.Capture, EgressMode: meta.NetMode})
	}
	provider, ok := r.opts.Networks[meta.NetMode]
	if !ok {
		return nil, fmt.Errorf("network mode %s is not to be had here", meta.NetMode)
	}
	return provider.New(ctx, meta.Hostname, network.NamespaceOptions{})
}

// confinement is the AppArmor profile of a step's processes, as a container's;
// one that was granted security.insecure has none.
func confinement(mode pb.SecurityMode) (string, error) {
	if mode == pb.SecurityMode_INSECURE || !apparmor.Enabled() {
		return "", nil
	}
	return apparmor.Profile, apparmor.Load()
}

// later takes something down that nobody waits for.
func (r *Runner) later(do func() error) {
	r.leaving.Go(func() {
		if err := do(); err != nil {
			r.opts.Log("take down a step's network: %v", err)
		}
	})
}

// files are what the step sees as resolv.conf and hosts.
func (r *Runner) files(ctx context.Context, meta *executor.Meta) (resolv, hosts string, clean func(), err error) {
	dir, err := os.OpenRoot(r.opts.Dir)
	if err != nil {
		return "", "", nil, err
	}
	defer dir.Close()
	resolv, err = oci.GetResolvConf(ctx, dir, nil, r.opts.DNS, meta.NetMode)
	if err != nil {
		return "", "", nil, err
	}
	hosts, _, err = oci.GetHostsFile(ctx, dir, meta.ExtraHosts, nil, meta.Hostname)
	if err != nil {
		return "", "", nil, err
	}
	clean = func() {}
	// A file with extra hosts is the step's own.
	if len(meta.ExtraHosts) > 0 || meta.Hostname != "" {
		path := filepath.Join(r.opts.Dir, hosts)
		clean = func() { os.Remove(path) }
	}
	return filepath.Join(r.opts.Dir, resolv), filepath.Join(r.opts.Dir, hosts), clean, nil
}

func (r *Runner) mountRoot(ctx context.Context, root executor.Mount, at string) (func(), error) {
	m, err := root.Src.Mount(ctx, false)
	if err != nil {
		return nil, err
	}
	mounts, release, err := m.Mount()
	if err != nil {
		return nil, err
	}
	if release == nil {
		release = func() error { return nil }
	}
	if err := os.Mkdir(at, 0o700); err != nil {
		return nil, errors.Join(err, release())
	}
	if err := mount.All(mounts, at); err != nil {
		return nil, errors.Join(err, os.Remove(at), release())
	}
	return func() {
		if err := errors.Join(mount.Unmount(at, 0), os.Remove(at), release()); err != nil {
			r.opts.Log("take down a step's root: %v", err)
		}
	}, nil
}

// makeCwd makes the working directory, if it is not there, as the step's user's.
func makeCwd(rootfs, cwd string, uid, gid uint32) error {
	root, err := filetree.Open(rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	return makeOwned(root, cwd, int(uid), int(gid))
}

// exitError is what became of the process, as BuildKit tells it.
func exitError(ctx context.Context, status int, oomed bool, valid []int) error {
	if valid == nil && status == 0 || slices.Contains(valid, status) {
		return nil
	}
	e := &gatewayapi.ExitError{ExitCode: uint32(status)}
	if oomed {
		e.Err = syscall.ENOMEM
	}
	if ctx.Err() != nil {
		e.Err = fmt.Errorf("%s: %w", e.Error(), context.Cause(ctx))
		return e
	}
	return stack.Enable(e)
}

// notStarted words a start that failed as the shell would: the text goes where
// the process's errors go.
func notStarted(ctx context.Context, err error, process executor.ProcessInfo) error {
	status := 0
	switch {
	case ctx.Err() != nil:
		return &gatewayapi.ExitError{ExitCode: gatewayapi.UnknownExitStatus, Err: context.Cause(ctx)}
	case errors.Is(err, runtime.ErrCommandNotFound):
		status = 127
	case errors.Is(err, runtime.ErrCommandNotExecutable):
		status = 126
	default:
		return fmt.Errorf("start the step: %w", err)
	}
	if process.Stderr != nil {
		fmt.Fprintf(process.Stderr, "cale: unable to start the step: %v\n", err)
	}
	return exitError(ctx, status, false, process.Meta.ValidExitCodes)
}
