package cri

import (
	"errors"
	"io"
	"testing"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Lists are made of parts that are there already: they tell each state that a container and a pod come to, and the
// streams tell the same.
func TestListsFollowStates(t *testing.T) {
	l := newLocal(t, Options{})
	c := l.client(t, "api", l.grpc)
	ctx := t.Context()
	config := l.containerConfig()
	config.Metadata.Name, config.Metadata.Attempt = "other", 3
	config.Labels, config.Annotations = map[string]string{"a": "b"}, map[string]string{"note": "x"}
	made, err := c.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: l.pod, Config: config, SandboxConfig: l.podConfig()})
	if err != nil {
		t.Fatal(err)
	}
	only := &runtimeapi.ContainerFilter{LabelSelector: map[string]string{"a": "b"}}
	check := func(want runtimeapi.ContainerState) {
		t.Helper()
		list, err := c.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: only})
		if err != nil || len(list.Containers) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		got := list.Containers[0]
		if got.Id != made.ContainerId || got.PodSandboxId != l.pod || got.State != want || !proto.Equal(got.Metadata, config.Metadata) ||
			got.Image.GetImage() != config.Image.Image || got.Labels["a"] != "b" || got.Annotations["note"] != "x" || got.CreatedAt == 0 || got.ImageId == "" {
			t.Errorf("%v, want state %v", got, want)
		}
		none, err := c.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{State: &runtimeapi.ContainerStateValue{State: (want + 1) % 3}, Id: made.ContainerId}})
		if err != nil || len(none.Containers) != 0 {
			t.Errorf("in another state: %v, %v", none, err)
		}
		stream, err := c.StreamContainers(ctx, &runtimeapi.StreamContainersRequest{Filter: only})
		if err != nil {
			t.Fatal(err)
		}
		if part, err := stream.Recv(); err != nil || len(part.Containers) != 1 || !proto.Equal(part.Containers[0], got) {
			t.Errorf("stream: %v, %v", part, err)
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("the stream goes on: %v", err)
		}
	}
	check(runtimeapi.ContainerState_CONTAINER_CREATED)
	if _, err := c.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: made.ContainerId}); err != nil {
		t.Fatal(err)
	}
	check(runtimeapi.ContainerState_CONTAINER_RUNNING)
	if _, err := c.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: made.ContainerId}); err != nil {
		t.Fatal(err)
	}
	check(runtimeapi.ContainerState_CONTAINER_EXITED)
	if all, err := c.ListContainers(ctx, &runtimeapi.ListContainersRequest{}); err != nil || len(all.Containers) != 2 || all.Containers[0].Id != made.ContainerId {
		t.Errorf("all, the newest first: %v, %v", all, err)
	}

	for _, want := range []runtimeapi.PodSandboxState{runtimeapi.PodSandboxState_SANDBOX_READY, runtimeapi.PodSandboxState_SANDBOX_NOTREADY} {
		list, err := c.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
		if err != nil || len(list.Items) != 1 || list.Items[0].State != want || list.Items[0].Id != l.pod || !proto.Equal(list.Items[0].Metadata, l.podConfig().Metadata) {
			t.Fatalf("%v, %v, want state %v", list, err, want)
		}
		stream, err := c.StreamPodSandboxes(ctx, &runtimeapi.StreamPodSandboxesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if part, err := stream.Recv(); err != nil || len(part.PodSandboxes) != 1 || !proto.Equal(part.PodSandboxes[0], list.Items[0]) {
			t.Errorf("stream: %v, %v", part, err)
		}
		if _, err := c.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: l.pod}); err != nil {
			t.Fatal(err)
		}
	}
}
