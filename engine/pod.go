package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"cale/atomicfile"
	"cale/network"
	"cale/shim"
)

// podRecord is what is kept of a pod on disk, as pods/<id>/pod.json.
type podRecord struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Spec    PodSpec   `json:"spec"`
	Ready   bool      `json:"ready"`
	Holder  int       `json:"holder,omitempty"` // pid of what holds the pid namespace
	// Addrs are the pod's addresses, where plug-ins gave them.
	Addrs []netip.Addr `json:"addrs,omitempty"`
}

// pod is a pod of many containers: pinned namespaces, a cgroup, an address, one shim. It is there without any
// container, and without any process unless the pid namespace is shared.
type pod struct {
	id  string
	dir string // below Root
	run string // below Run: the pinned namespaces, the shim's socket, a bundle for each container
	op  opLock

	mu   sync.Mutex
	rec  podRecord
	shim *shim.Client
}

func (e *Engine) newPod(rec podRecord) *pod {
	return &pod{id: rec.ID, rec: rec, op: newOpLock(), dir: filepath.Join(e.cfg.Root, "pods", rec.ID), run: filepath.Join(e.cfg.Run, "pods", rec.ID)}
}

func (p *pod) save() error {
	raw, err := json.Marshal(&p.rec)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(p.dir, "pod.json"), raw, 0o600, false)
}

func (p *pod) spec() *PodSpec { return &p.rec.Spec } // never changed after RunPod

func (p *pod) ready() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rec.Ready
}

func (p *pod) ns(name string) string { return filepath.Join(p.run, name) }

// RunPod makes a pod: when it returns, containers can be put into it.
func (e *Engine) RunPod(ctx context.Context, s PodSpec) (id string, err error) {
	defer e.begin()()
	if err := e.checkPod(&s); err != nil {
		return "", err
	}
	raw := make([]byte, 32)
	rand.Read(raw) // never fails
	id = hex.EncodeToString(raw)
	if s.Hostname == "" {
		if s.Hostname = id[:12]; s.HostNetwork {
			if s.Hostname, err = os.Hostname(); err != nil {
				return "", err
			}
		}
	}
	p := e.newPod(podRecord{Version: recordVersion, ID: id, Created: time.Now(), Spec: s})
	p.op.held <- struct{}{}
	defer p.op.unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	// The record says whose all the rest is, so it is first.
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		return "", fmt.Errorf("pod %s: %w", id, err)
	}
	if err = p.save(); err == nil {
		err = e.startPod(ctx, p)
	}
	if err == nil {
		p.rec.Ready = true
		if e.hooks.Run != nil {
			err = e.hooks.Run(ctx, e.podInfo(p))
		}
	}
	if err == nil {
		err = p.save()
	}
	if err != nil {
		p.rec.Ready = false
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
		defer cancel()
		if e.stopPod(ctx, p, false) == nil || !p.onCNI() {
			os.RemoveAll(p.dir)
		} else { // it stays, as a pod that is not ready: whoever removes it tries again
			e.addPod(p)
		}
		return "", fmt.Errorf("pod %s: %w", id, err)
	}
	e.addPod(p)
	e.emitPod(p, "create")
	e.emitPod(p, "start")
	return id, nil
}

func (e *Engine) addPod(p *pod) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pods[p.id] = p
}

func (e *Engine) checkPod(s *PodSpec) error {
	if len(s.Hostname) > 64 {
		return invalid("invalid hostname %q: longer than 64 bytes", s.Hostname)
	}
	like := &Spec{Network: Network{Mode: modeOf(s)}}
	if s.HostIPC {
		like.IpcMode = "host"
	}
	for k := range s.Sysctls {
		if err := checkSysctl(k, like); err != nil {
			return err
		}
	}
	for _, d := range s.DNS {
		if _, err := netip.ParseAddr(d); err != nil {
			return invalid("invalid IP address for DNS server: %q", d)
		}
	}
	t, err := e.runtimeFor(s.Runtime)
	if err != nil || s.User == nil {
		return err
	}
	switch {
	case t.oci != "":
		return fail(ErrUnsupported, "runtime %s: pods with user namespaces run with Cale's own runtime only", s.Runtime)
	case s.HostPID || s.HostIPC:
		return invalid("a pod with a user namespace can't have the host's processes or IPC")
	}
	return s.User.check()
}

func modeOf(s *PodSpec) string {
	if s.HostNetwork {
		return "host"
	}
	return ""
}

func (e *Engine) startPod(ctx context.Context, p *pod) error {
	if err := os.Mkdir(p.run, 0o700); err != nil {
		return err
	}
	if err := e.makeNamespaces(p); err != nil {
		return err
	}
	s := p.spec()
	target, err := e.runtimeFor(s.Runtime)
	if err != nil {
		return err
	}
	// The shim is up by the time the pod is connected, which takes longer.
	var ready errgroup.Group
	ready.Go(func() error {
		_, err := e.shimOf(ctx, p, target.shim)
		return err
	})
	err = e.connectPod(ctx, p)
	return errors.Join(err, ready.Wait())
}

// connectPod connects a pod to its network, and writes the files that tell its containers who they are.
func (e *Engine) connectPod(ctx context.Context, p *pod) error {
	s := p.spec()
	rec := &record{ID: p.id, Name: p.id, Spec: Spec{Network: Network{Mode: modeOf(s), Publish: s.Publish, DNS: s.DNS, DNSSearch: s.DNSSearch, DNSOptions: s.DNSOptions}}}
	rec.Run.Hostname = s.Hostname
	var eps []*network.Endpoint
	list, err := e.cniOf()
	if err != nil && !s.HostNetwork {
		return err
	}
	switch {
	case s.HostNetwork:
	case list != nil:
		if eps, err = e.attachCNI(ctx, p, list); err != nil {
			return err
		}
	default:
		a := e.attachment(rec, p.ns("net"))
		a.Network, a.Ports = network.Bridge, e.publish(rec)
		ep, err := e.nets.Attach(ctx, a)
		if err != nil {
			return networkError(err)
		}
		eps = append(eps, ep)
	}
	return e.writeEtc(&container{id: p.id, dir: p.dir}, rec, eps)
}

// stopPod takes away what a pod has at run time. Its containers are gone already. Where plug-ins don't let go of its
// network, its namespaces stay for the next try, unless this is the last one.
func (e *Engine) stopPod(ctx context.Context, p *pod, last bool) error {
	p.mu.Lock()
	client := p.shim
	p.shim = nil
	p.mu.Unlock()
	if client == nil {
		client, _ = shim.Connect(ctx, p.run) // none there is the usual case
	}
	if client != nil {
		if err := client.Shutdown(ctx); err != nil && !shim.IsUnavailable(err) {
			e.cfg.Log("pod %s: shim: %v", p.id, err)
		}
		client.Close()
	}
	e.letGo(p.id)
	left := e.detachPod(ctx, p)
	if left != nil {
		e.cfg.Log("pod %s: disconnect: %v", p.id, left)
		if !last && p.onCNI() {
			return left
		}
	}
	e.dropNamespaces(p)
	if p.spec().CgroupParent == "" {
		if err := destroyCgroup(e.podCgroup(p)); err != nil {
			e.cfg.Log("pod %s: %v", p.id, err)
		}
	}
	if err := os.RemoveAll(p.run); err != nil {
		e.cfg.Log("pod %s: %v", p.id, err)
	}
	return left
}

// findPod looks a pod up by its id or a unique prefix of it.
func (e *Engine) findPod(ref string) (*pod, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.pods[ref]; p != nil {
		return p, nil
	}
	var found *pod
	for id, p := range e.pods {
		if len(ref) >= 4 && len(ref) < len(id) && id[:len(ref)] == ref {
			if found != nil {
				return nil, invalid("pod id prefix %s is not unique", ref)
			}
			found = p
		}
	}
	if found == nil {
		return nil, notFound("No such pod: %s", ref)
	}
	return found, nil
}

// StopPod ends a pod's containers and takes its namespaces and addresses away. One that is stopped stays so.
func (e *Engine) StopPod(ctx context.Context, ref string) error {
	return e.withPod(ctx, ref, func(ctx context.Context, p *pod) error { return e.stopPodNow(ctx, p, false) })
}

// withPod does something with a pod that nobody else does anything with meanwhile. Once it has begun, a client that
// goes away doesn't stop it half way.
func (e *Engine) withPod(ctx context.Context, ref string, do func(context.Context, *pod) error) error {
	defer e.begin()()
	p, err := e.findPod(ref)
	if err != nil {
		return err
	}
	if err := p.op.lock(ctx); err != nil {
		return err
	}
	defer p.op.unlock()
	return do(context.WithoutCancel(ctx), p)
}

func (e *Engine) stopPodNow(ctx context.Context, p *pod, last bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	info := e.podInfo(p)
	p.mu.Lock()
	was := p.rec.Ready
	p.rec.Ready = false
	err := p.save()
	p.mu.Unlock()
	if err != nil {
		return fmt.Errorf("pod %s: %w", p.id, err)
	}
	var errs []error
	for _, c := range e.members(p) {
		if err := c.settle(ctx); err != nil {
			return err
		}
		c.mu.Lock()
		r := c.run
		c.rec.Stopped = true
		c.mu.Unlock()
		if r != nil {
			errs = append(errs, e.killRun(ctx, c, r))
			c.op.lock(ctx) // its own end takes away what it has
			c.op.unlock()
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("pod %s: %w", p.id, err)
	}
	if was {
		if e.hooks.Stopped != nil {
			e.hooks.Stopped(ctx, info)
		}
		defer e.emitPod(p, "die")
	}
	if was || p.onCNI() {
		defer e.maybeIdle()
		if err := e.stopPod(ctx, p, last); err != nil && p.onCNI() && !last {
			return fmt.Errorf("pod %s: disconnect: %w", p.id, err)
		}
	}
	return nil
}

// RemovePod removes a pod with all its containers, running or not. Plug-ins that don't let go of its network can't
// prevent it.
func (e *Engine) RemovePod(ctx context.Context, ref string) error {
	return e.withPod(ctx, ref, func(ctx context.Context, p *pod) error {
		if err := e.stopPodNow(ctx, p, true); err != nil {
			return err
		}
		for _, c := range e.members(p) {
			if err := e.Remove(ctx, c.id, RemoveOptions{Force: true, Volumes: true}); err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
		}
		if err := os.RemoveAll(p.dir); err != nil {
			return fmt.Errorf("pod %s: %w", p.id, err)
		}
		e.mu.Lock()
		delete(e.pods, p.id)
		e.mu.Unlock()
		e.emitPod(p, "destroy")
		return nil
	})
}

// members are a pod's containers, in no order.
func (e *Engine) members(p *pod) []*container {
	return slices.DeleteFunc(e.all(), func(c *container) bool { return c.group != p })
}
