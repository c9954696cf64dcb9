// Package nri lets plug-ins of the Node Resource Interface (github.com/containerd/nri) take part in what the CRI
// does: they see pods and containers, adjust containers before they are made, and change their resources.
package nri

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	nrilog "github.com/containerd/nri/pkg/log"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/api/cri"
	"cale/engine"
)

// Options say where plug-ins are.
type Options struct {
	Version   string // of this program
	Socket    string // where those connect that are started by others
	Plugins   string // directory of those that are started here
	ConfigDir string // of their configurations
}

// patience is how long a plug-in may take for an answer before it is let go of. The library's two seconds are soon over
// on a busy node, and a plug-in that is let go of can't do what it was installed for.
const patience = 10 * time.Second

type plugins struct {
	node cri.Node
	a    *adaptation.Adaptation
}

// Open starts the plug-ins and listens for more.
func Open(node cri.Node, o Options) (cri.Plugins, error) {
	nrilog.Set(logger{})
	adaptation.SetPluginRequestTimeout(patience)
	adaptation.SetPluginRegistrationTimeout(patience)
	p := &plugins{node: node}
	a, err := adaptation.New("cale", o.Version, p.sync, p.update, adaptation.WithSocketPath(o.Socket),
		adaptation.WithPluginPath(o.Plugins), adaptation.WithPluginConfigPath(o.ConfigDir))
	if err == nil {
		p.a = a
		err = a.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("NRI: %w", err)
	}
	return p, nil
}

// logger passes on what the library warns of.
type logger struct{}

func (logger) Debugf(context.Context, string, ...any) {}
func (logger) Infof(context.Context, string, ...any)  {}
func (logger) Warnf(_ context.Context, format string, args ...any) {
	log.Printf("nri: "+format, args...)
}
func (logger) Errorf(_ context.Context, format string, args ...any) {
	for _, a := range args {
		if err, ok := a.(error); ok && errors.Is(err, adaptation.ErrWasmDisabled) {
			return // it is left out of the build: its interpreter is larger than the rest
		}
	}
	log.Printf("nri: "+format, args...)
}

// sync tells a new plug-in how things stand.
func (p *plugins) sync(ctx context.Context, tell adaptation.SyncCB) error {
	pods, containers, err := p.node.Now()
	if err != nil {
		return err
	}
	var ps []*api.PodSandbox
	for _, x := range pods {
		if x.Ready {
			ps = append(ps, pod(x))
		}
	}
	var cs []*api.Container
	for _, c := range containers {
		if c.State.Status == engine.Created || c.State.Status == engine.Running || c.State.Status == engine.Paused {
			cs = append(cs, container(c))
		}
	}
	updates, err := tell(ctx, ps, cs)
	if err != nil {
		return err
	}
	_, err = p.update(ctx, updates)
	return err
}

// update changes containers as plug-ins want it, and gives back what could not be done.
func (p *plugins) update(ctx context.Context, list []*api.ContainerUpdate) (failed []*api.ContainerUpdate, err error) {
	for _, u := range list {
		to := u.GetLinux().GetResources()
		if to == nil {
			continue
		}
		err := p.node.Change(ctx, u.ContainerId, func(r *engine.Resources) error { return setResources(r, to) })
		if err != nil && !u.IgnoreFailure {
			log.Printf("nri: update of container %s: %v", u.ContainerId, err)
			failed = append(failed, u)
		}
	}
	return failed, nil
}

// others carries out what an answer wants of containers beside the one it is about.
func (p *plugins) others(ctx context.Context, updates []*api.ContainerUpdate, evict []*api.ContainerEviction) error {
	failed, err := p.update(ctx, updates)
	if err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("NRI: container %s could not be updated as a plug-in wants it", failed[0].ContainerId)
	}
	for _, v := range evict {
		if err := p.node.Evict(ctx, v.ContainerId); err != nil && !errors.Is(err, engine.ErrNotModified) && !errors.Is(err, engine.ErrNotFound) {
			return fmt.Errorf("NRI: evict container %s (%s): %w", v.ContainerId, v.Reason, err)
		}
	}
	return nil
}

func (p *plugins) Hold() func() { return p.a.BlockPluginSync().Unblock }
func (p *plugins) Close()       { p.a.Stop() }

func (p *plugins) RunPod(ctx context.Context, x *cri.PluginPod) error {
	return p.a.RunPodSandbox(ctx, &adaptation.RunPodSandboxRequest{Pod: pod(x)})
}

func (p *plugins) StopPod(ctx context.Context, x *cri.PluginPod) error {
	return p.a.StopPodSandbox(ctx, &adaptation.StopPodSandboxRequest{Pod: pod(x)})
}

func (p *plugins) RemovePod(ctx context.Context, x *cri.PluginPod) error {
	return p.a.RemovePodSandbox(ctx, &adaptation.RemovePodSandboxRequest{Pod: pod(x)})
}

func (p *plugins) UpdatePod(ctx context.Context, x *cri.PluginPod, overhead, resources *runtimeapi.LinuxContainerResources) error {
	_, err := p.a.UpdatePodSandbox(ctx, &adaptation.UpdatePodSandboxRequest{Pod: pod(x), OverheadLinuxResources: linux(overhead), LinuxResources: linux(resources)})
	if err != nil {
		return err
	}
	return p.a.PostUpdatePodSandbox(ctx, &adaptation.PostUpdatePodSandboxRequest{Pod: pod(x)})
}

func (p *plugins) Create(ctx context.Context, c *cri.PluginContainer) error {
	r, err := p.a.CreateContainer(ctx, &adaptation.CreateContainerRequest{Pod: pod(c.Pod), Container: container(c)})
	if err != nil {
		return err
	}
	if err := p.others(ctx, r.GetUpdate(), r.GetEvict()); err != nil {
		return err
	}
	return p.adjust(c.Spec, r.GetAdjust())
}

func (p *plugins) Created(ctx context.Context, c *cri.PluginContainer) error {
	return p.a.PostCreateContainer(ctx, &adaptation.PostCreateContainerRequest{Pod: pod(c.Pod), Container: container(c)})
}

func (p *plugins) Start(ctx context.Context, c *cri.PluginContainer) error {
	return p.a.StartContainer(ctx, &adaptation.StartContainerRequest{Pod: pod(c.Pod), Container: container(c)})
}

func (p *plugins) Started(ctx context.Context, c *cri.PluginContainer) error {
	return p.a.PostStartContainer(ctx, &adaptation.PostStartContainerRequest{Pod: pod(c.Pod), Container: container(c)})
}

func (p *plugins) Update(ctx context.Context, c *cri.PluginContainer, to *engine.Resources) error {
	r, err := p.a.UpdateContainer(ctx, &adaptation.UpdateContainerRequest{Pod: pod(c.Pod), Container: container(c), LinuxResources: resources(to)})
	if err != nil {
		return err
	}
	var rest []*api.ContainerUpdate
	for _, u := range r.GetUpdate() {
		if u.ContainerId != c.ID {
			rest = append(rest, u)
		} else if err := setResources(to, u.GetLinux().GetResources()); err != nil {
			return err
		}
	}
	return p.others(ctx, rest, r.GetEvict())
}

func (p *plugins) Updated(ctx context.Context, c *cri.PluginContainer) error {
	return p.a.PostUpdateContainer(ctx, &adaptation.PostUpdateContainerRequest{Pod: pod(c.Pod), Container: container(c)})
}

func (p *plugins) Stop(ctx context.Context, c *cri.PluginContainer) error {
	r, err := p.a.StopContainer(ctx, &adaptation.StopContainerRequest{Pod: pod(c.Pod), Container: container(c)})
	if err != nil {
		return err
	}
	return p.others(ctx, r.GetUpdate(), nil)
}

func (p *plugins) Remove(ctx context.Context, c *cri.PluginContainer) error {
	return p.a.RemoveContainer(ctx, &adaptation.RemoveContainerRequest{Pod: pod(c.Pod), Container: container(c)})
}
