package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"cale/image/store"
	"cale/network"
	"cale/registry/client"
	"cale/runtime/cgroup"
)

// Engine runs pods and keeps images, volumes and networks. Its methods may be called from any goroutine.
//
// Locks: mu guards the maps only and is never held over I/O. Each container has two of its own: op serialises what
// changes its life and may be held for long, mu guards its fields and is held briefly. The order is op, then a
// container's mu, then the engine's mu.
type Engine struct {
	cfg       Config
	store     *store.Store
	nets      *network.Store
	registry  *client.Client
	events    *eventLog
	podEvents *eventLog // of what belongs to pods of many
	lock      *os.File
	volumes   volumes

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	ending context.Context // ends with Ending
	end    context.CancelFunc
	work   sync.WaitGroup // goroutines that end with ctx
	trash  sync.WaitGroup // removals of big trees under way

	hooks    PodHooks
	active   atomic.Int64 // operations under way
	releases atomic.Int64 // of the builder's, since the last collection for them
	idle     chan struct{}

	mu         sync.Mutex
	containers map[string]*container
	pods       map[string]*pod   // those of many containers
	names      map[string]string // of containers, and of those being made, to ids
	execs      map[string]*session
	ids        map[string]IDRange // of containers in user namespaces of their own, and of those being made

	collecting collecting // of what CNI plug-ins hold for nobody

	keeper   keeper
	accounts accountCache
	images   imageCache
	initDir  string
	parents  parents
	bootOnce sync.Once
	fresh    bool // the machine was restarted since the last engine
}

// Open takes the instance (one engine per Run directory), and brings what is on disk in line with what runs.
func Open(ctx context.Context, c Config) (*Engine, error) {
	if !filepath.IsAbs(c.Root) || !filepath.IsAbs(c.Run) {
		return nil, fmt.Errorf("engine: root %q and run %q must be absolute paths", c.Root, c.Run)
	}
	c.Root, c.Run = filepath.Clean(c.Root), filepath.Clean(c.Run)
	if c.CgroupParent == "" {
		c.CgroupParent = "/cale"
		if c.Run != "/run/cale" {
			sum := sha256.Sum256([]byte(c.Run))
			c.CgroupParent += "-" + hex.EncodeToString(sum[:3])
		}
	}
	if c.Log == nil {
		c.Log = func(string, ...any) {}
	}
	if c.Shim == "" {
		shim, err := program("cale-shim")
		if err != nil {
			return nil, err
		}
		c.Shim = shim
	}
	for _, d := range []string{c.Root, c.Run, filepath.Join(c.Root, "containers"), filepath.Join(c.Root, "trash"),
		filepath.Join(c.Root, "volumes"), filepath.Join(c.Root, "pods"), filepath.Join(c.Run, "pods")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("engine: %w", err)
		}
	}
	e := &Engine{
		cfg: c, idle: make(chan struct{}, 1), events: newEventLog(), podEvents: newEventLog(),
		containers: map[string]*container{}, pods: map[string]*pod{}, names: map[string]string{}, execs: map[string]*session{}, ids: map[string]IDRange{},
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.ending, e.end = context.WithCancel(e.ctx)
	if err := e.takeLock(); err != nil {
		return nil, err
	}
	if err := e.open(ctx); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// open opens what the engine stands on, then reconciles.
func (e *Engine) open(ctx context.Context) (err error) {
	if e.store, err = store.Open(e.cfg.Root); err != nil {
		return fmt.Errorf("image store: %w", err)
	}
	e.nets, err = network.Open(network.Config{
		StateDir: filepath.Join(e.cfg.Root, "networks"), RunDir: filepath.Join(e.cfg.Run, "networks"),
		Name: network.InstanceName(e.cfg.Run), Firewall: e.cfg.Firewall, Warn: func(text string) { e.cfg.Log("network: %s", text) },
	})
	if err != nil {
		return fmt.Errorf("networks: %w", err)
	}
	e.registry = client.New(client.Options{Credentials: e.cfg.Credentials, PlainHTTP: e.cfg.PlainHTTP, HostDirs: e.cfg.hostDirs(), UserAgent: "cale"})
	if err := e.openInit(); err != nil {
		return err
	}
	e.volumes.open(filepath.Join(e.cfg.Root, "volumes"))
	e.parents = parents{dir: filepath.Join(e.cfg.Run, "cgroups"), runs: map[string]string{}}
	if err := e.reconcile(ctx); err != nil {
		return err
	}
	e.collectCNI()
	return nil
}

// takeLock makes this process the instance's only engine, and writes its pid down.
func (e *Engine) takeLock() error {
	path := filepath.Join(e.cfg.Run, "caled.pid")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	// A child that a killed engine had just forked holds its lock until it has become the shim.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || ownerLives(f) || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fail(ErrConflict, "another caled already serves %s", e.cfg.Run)
		}
		return fmt.Errorf("lock %s: %w", path, err)
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return fmt.Errorf("write %s: %w", path, err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		f.Close()
		return fmt.Errorf("write %s: %w", path, err)
	}
	e.lock = f
	return nil
}

// ownerLives says whether the process that wrote its number into the lock file is there.
func ownerLives(f *os.File) bool {
	buf := make([]byte, 16)
	n, _ := f.ReadAt(buf, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		return true
	}
	// Who is dead may stay listed until its parent asks for it.
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(state, "Z")
}

// Close lets go of everything. Containers go on; the next Open finds them.
func (e *Engine) Close() error {
	e.cancel()
	e.work.Wait()
	e.trash.Wait()
	for _, c := range e.all() {
		c.mu.Lock()
		if c.run != nil && c.run.shim != nil {
			c.run.shim.Close()
		}
		c.mu.Unlock()
	}
	var errs []error
	if e.nets != nil {
		errs = append(errs, e.nets.Close())
	}
	if e.store != nil {
		errs = append(errs, e.store.Close())
	}
	errs = append(errs, e.lock.Close())
	return errors.Join(errs...)
}

// program finds one of our programs: beside our own executable first, then in $PATH.
func program(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), name)
		if st, err := os.Stat(beside); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return beside, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is neither beside this program nor in $PATH", name)
	}
	return filepath.Abs(path)
}

// begin marks an operation; the result ends it.
func (e *Engine) begin() func() {
	e.active.Add(1)
	return sync.OnceFunc(func() {
		if e.active.Add(-1) == 0 {
			e.maybeIdle()
		}
	})
}

func (e *Engine) maybeIdle() {
	if e.Busy() {
		return
	}
	select {
	case e.idle <- struct{}{}:
	default:
	}
}

// Busy says whether anything runs, waits for its restart, or is asked for right now.
func (e *Engine) Busy() bool {
	return e.active.Load() > 0 || e.Live()
}

// Live says whether any container runs, or waits for its restart, or any pod is ready.
func (e *Engine) Live() bool {
	for _, c := range e.all() {
		c.mu.Lock()
		live := c.run != nil || c.restart != nil
		c.mu.Unlock()
		if live {
			return true
		}
	}
	return e.anyPodReady()
}

// Idle gives a value each time the engine becomes idle (it may be spurious: ask Busy again).
func (e *Engine) Idle() <-chan struct{} { return e.idle }

// Retire removes the bridge, the packet filter's table and the cgroup parent when nothing runs. The engine stays
// usable: they are made again when needed.
func (e *Engine) Retire(ctx context.Context) error {
	if e.Busy() {
		return conflict("containers are running")
	}
	e.trash.Wait()
	var errs []error
	if err := e.nets.Teardown(); err != nil {
		errs = append(errs, fmt.Errorf("networks: %w", err))
	}
	g, err := cgroup.Open(e.cfg.CgroupParent, cgroup.Options{Parent: true})
	if err == nil {
		err = g.Destroy()
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("cgroup %s: %w", e.cfg.CgroupParent, err))
	}
	return errors.Join(errs...)
}

// Store gives the image store, for what serves it to others.
func (e *Engine) Store() *store.Store { return e.store }

// all gives the containers at this moment, in no order.
func (e *Engine) all() []*container {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]*container, 0, len(e.containers))
	for _, c := range e.containers {
		list = append(list, c)
	}
	return list
}
