package cri

import (
	"context"
	"slices"
	"sync"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/engine"
)

// recorder is a plug-in that notes what it is told, and refuses containers by the name "refused".
type recorder struct {
	mu   sync.Mutex
	told []string
}

func (r *recorder) tell(what string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, what)
	return nil
}

func (r *recorder) Hold() func()                                    { return func() {} }
func (r *recorder) RunPod(context.Context, *PluginPod) error        { return r.tell("run pod") }
func (r *recorder) StopPod(context.Context, *PluginPod) error       { return r.tell("stop pod") }
func (r *recorder) RemovePod(context.Context, *PluginPod) error     { return r.tell("remove pod") }
func (r *recorder) Created(context.Context, *PluginContainer) error { return r.tell("created") }
func (r *recorder) Start(context.Context, *PluginContainer) error   { return r.tell("start") }
func (r *recorder) Started(context.Context, *PluginContainer) error { return r.tell("started") }
func (r *recorder) Stop(context.Context, *PluginContainer) error    { return r.tell("stop") }
func (r *recorder) Remove(context.Context, *PluginContainer) error  { return r.tell("remove") }
func (r *recorder) Close()                                          {}
func (r *recorder) UpdatePod(context.Context, *PluginPod, *runtimeapi.LinuxContainerResources, *runtimeapi.LinuxContainerResources) error {
	return r.tell("update pod")
}

func (r *recorder) Create(_ context.Context, c *PluginContainer) error {
	if c.Config.Metadata.Name == "refused" {
		return &engine.Error{Class: engine.ErrUnsupported, Text: "not this one"}
	}
	return r.tell("create")
}

func (r *recorder) Update(_ context.Context, _ *PluginContainer, to *engine.Resources) error {
	to.CPUShares = 77
	return r.tell("update")
}

func (r *recorder) Updated(_ context.Context, c *PluginContainer) error {
	if c.Spec.Resources.CPUShares != 77 {
		return r.tell("updated before it was")
	}
	return r.tell("updated")
}

// Plug-ins are told of each moment once, in order; what one refuses is not made.
func TestPluginsAreTold(t *testing.T) {
	r := new(recorder)
	l := newLocal(t, Options{Plugins: func(Node) (Plugins, error) { return r, nil }})
	ctx := t.Context()
	if _, err := l.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: l.container, Linux: &runtimeapi.LinuxContainerResources{CpuShares: 5}}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.UpdatePodSandboxResources(ctx, &runtimeapi.UpdatePodSandboxResourcesRequest{PodSandboxId: l.pod}); err != nil {
		t.Fatal(err)
	}
	refused := l.containerConfig()
	refused.Metadata.Name = "refused"
	if _, err := l.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: l.pod, Config: refused, SandboxConfig: l.podConfig()}); err == nil {
		t.Error("what was refused was made")
	}
	if members, err := l.engine.Members(l.pod); err != nil || len(members) != 1 || members[0].Spec.Member.Owner != "n/p/c" {
		t.Errorf("%v, %v", members, err)
	}
	if list, err := l.client(t, "api", l.grpc).ListContainers(ctx, &runtimeapi.ListContainersRequest{}); err != nil || len(list.Containers) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	for range 2 {
		if _, err := l.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: l.container}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: l.pod}); err != nil {
		t.Fatal(err)
	}
	want := []string{"run pod", "create", "created", "start", "started", "update", "updated", "update pod", "stop", "stop pod", "remove", "remove pod"}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.told, want) {
		t.Errorf("told %q", r.told)
	}
}
