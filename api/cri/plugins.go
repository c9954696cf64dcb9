package cri

import (
	"context"
	"log"
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/engine"
)

// Plugins are programs of the node that are told of what happens to pods and containers, and may change or refuse what
// is asked for: NRI's.
type Plugins interface {
	// Hold keeps new plug-ins from being told how things stand until release.
	Hold() (release func())
	RunPod(ctx context.Context, p *PluginPod) error
	StopPod(ctx context.Context, p *PluginPod) error
	RemovePod(ctx context.Context, p *PluginPod) error
	UpdatePod(ctx context.Context, p *PluginPod, overhead, resources *runtimeapi.LinuxContainerResources) error
	// Create may change c.Spec.
	Create(ctx context.Context, c *PluginContainer) error
	Created(ctx context.Context, c *PluginContainer) error
	Start(ctx context.Context, c *PluginContainer) error
	Started(ctx context.Context, c *PluginContainer) error
	// Update may change what a container's resources are to be.
	Update(ctx context.Context, c *PluginContainer, to *engine.Resources) error
	Updated(ctx context.Context, c *PluginContainer) error
	Stop(ctx context.Context, c *PluginContainer) error
	Remove(ctx context.Context, c *PluginContainer) error
	Close()
}

// PluginPod is a pod as it is shown to plug-ins.
type PluginPod struct {
	engine.PodInfo
	Request *runtimeapi.RunPodSandboxRequest
}

// PluginContainer is a container as it is shown to plug-ins.
type PluginContainer struct {
	ID     string
	Pod    *PluginPod
	Config *runtimeapi.ContainerConfig
	Spec   *engine.Spec
	State  engine.State
	Parent string // the cgroup that its own is in
}

// Node is what plug-ins may ask and change.
type Node struct{ s *Server }

// Now lists all pods and containers.
func (n Node) Now() (pods []*PluginPod, containers []*PluginContainer, err error) {
	byID := map[string]*PluginPod{}
	for _, at := range n.s.engine.Pods() {
		if p, err := n.s.engine.Pod(at.ID); err == nil { // it may be gone by now
			byID[p.ID] = pluginPod(p)
			pods = append(pods, byID[p.ID])
		}
	}
	members, err := n.s.engine.Members("")
	for k := range members {
		if p := byID[members[k].Spec.Member.Pod]; p != nil {
			containers = append(containers, pluginContainer(p, &members[k]))
		}
	}
	return pods, containers, err
}

// Change gives a running container other resources.
func (n Node) Change(ctx context.Context, id string, change func(*engine.Resources) error) error {
	i, err := n.s.engine.Member(id)
	if err != nil {
		return err
	}
	to := i.Spec.Resources
	if err := change(&to); err != nil {
		return err
	}
	_, err = n.s.engine.Update(ctx, id, to, nil)
	return err
}

// Edits are what CDI devices change in a container.
func (n Node) Edits(devices []string) (*engine.Edits, error) { return n.s.engine.EditsOf(devices) }

// Evict ends a container that a plug-in wants away.
func (n Node) Evict(ctx context.Context, id string) error {
	return n.s.engine.Stop(ctx, id, engine.StopOptions{})
}

func pluginPod(p engine.PodInfo) *PluginPod { return &PluginPod{p, podMeta(&p.PodState)} }

func pluginContainer(p *PluginPod, i *engine.Info) *PluginContainer {
	return &PluginContainer{ID: i.ID, Pod: p, Config: containerMeta(i.ID, i.Spec.Member), Spec: &i.Spec, State: i.State, Parent: p.CgroupParent}
}

// telling calls plug-ins at the right moments. Without any, all of it does nothing.
type telling struct {
	s       *Server
	plugins Plugins

	mu      sync.Mutex
	stopped map[string]*sync.Once // containers whose end was told, or is being told
}

func (t *telling) hold() func() {
	if t.plugins == nil {
		return func() {}
	}
	return t.plugins.Hold()
}

// about calls one of the plug-ins' functions for a container. Errors are of who asks.
func (t *telling) about(ctx context.Context, i *engine.Info, call func(Plugins, context.Context, *PluginContainer) error) error {
	if t.plugins == nil {
		return nil
	}
	p, err := t.s.engine.Pod(i.Spec.Member.Pod)
	if err != nil {
		return nil // it is going
	}
	return call(t.plugins, ctx, pluginContainer(pluginPod(p), i))
}

// ended tells the end of a container, once, however it ended, and returns when that is done.
func (t *telling) ended(ctx context.Context, i *engine.Info) {
	if t.plugins == nil || i.State.StartedAt.IsZero() {
		return
	}
	t.mu.Lock()
	once := t.stopped[i.ID]
	if once == nil {
		if t.stopped == nil {
			t.stopped = map[string]*sync.Once{}
		}
		once = new(sync.Once)
		t.stopped[i.ID] = once
	}
	t.mu.Unlock()
	once.Do(func() {
		if err := t.about(ctx, i, Plugins.Stop); err != nil {
			log.Printf("cri: plug-ins: stop of container %s: %v", i.ID, err)
		}
	})
}

// removed tells that a container is gone, its end before that.
func (t *telling) removed(ctx context.Context, i *engine.Info) {
	t.ended(ctx, i)
	if err := t.about(ctx, i, Plugins.Remove); err != nil {
		log.Printf("cri: plug-ins: removal of container %s: %v", i.ID, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.stopped, i.ID)
}

// watch tells of containers that end by themselves, until ctx ends.
func (t *telling) watch(ctx context.Context) {
	for ctx.Err() == nil {
		for ev := range t.s.engine.SubscribePods(ctx) {
			if ev.Type != "container" || ev.Action != "die" {
				continue
			}
			if i, err := t.s.engine.Member(ev.ID); err == nil {
				t.ended(ctx, &i)
			}
		}
		// It was too slow for the events: what has ended meanwhile is in the list.
		members, err := t.s.engine.Members("")
		for k := range members {
			if err == nil && members[k].State.Status == engine.Exited {
				t.ended(ctx, &members[k])
			}
		}
	}
}

// hooks are the engine's, as far as there are plug-ins.
func (t *telling) hooks() engine.PodHooks {
	return engine.PodHooks{
		Run: func(ctx context.Context, p engine.PodInfo) error {
			return t.plugins.RunPod(ctx, pluginPod(p))
		},
		Stopped: func(ctx context.Context, p engine.PodInfo) {
			if members, err := t.s.engine.Members(p.ID); err == nil {
				for k := range members {
					t.ended(ctx, &members[k])
				}
			}
			if err := t.plugins.StopPod(ctx, pluginPod(p)); err != nil {
				log.Printf("cri: plug-ins: stop of pod %s: %v", p.ID, err)
			}
		},
		Create: func(ctx context.Context, id string, s *engine.Spec) error {
			p, err := t.s.engine.Pod(s.Member.Pod)
			if err != nil {
				return err
			}
			like := &engine.Info{ID: id, Spec: *s}
			c := pluginContainer(pluginPod(p), like)
			c.Spec = s
			return t.plugins.Create(ctx, c)
		},
	}
}
