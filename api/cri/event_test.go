package cri

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A kubelet that listens is told each step of a pod and of its containers, in order, and how the pod stood then.
func testEvents(t *testing.T, n *node) {
	ctx, cancel := context.WithCancel(n.ctx())
	defer cancel()
	st, err := n.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan *runtimeapi.ContainerEventResponse, 1000)
	go func() {
		defer close(events)
		for {
			ev, err := st.Recv()
			if err != nil {
				return
			}
			events <- ev
		}
	}()
	// The stream may begin after its call has returned.
	for heard := false; !heard; {
		id := n.pod(n.podConfig("early"))
		if _, err := n.RemovePodSandbox(n.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-events:
			heard = true
		case <-time.After(10 * time.Millisecond):
		}
	}

	p := n.podConfig("events")
	id := n.pod(p)
	c := n.run(id, p, n.config("e", "true"))
	n.exited(c)
	if _, err := n.RemoveContainer(n.ctx(), &runtimeapi.RemoveContainerRequest{ContainerId: c}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to tell
		if _, err := n.StopPodSandbox(n.ctx(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.RemovePodSandbox(n.ctx(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
		t.Fatal(err)
	}
	const created, started, stopped, deleted = runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT,
		runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT
	want := []string{fmt.Sprint("pod ", created), fmt.Sprint("pod ", started), fmt.Sprint("container ", created), fmt.Sprint("container ", started),
		fmt.Sprint("container ", stopped), fmt.Sprint("container ", deleted), fmt.Sprint("pod ", stopped), fmt.Sprint("pod ", deleted)}
	var got []string
	for ev := range events {
		s := ev.PodSandboxStatus
		if s.GetMetadata().GetName() != "events" {
			continue
		}
		what := "pod "
		if ev.ContainerId != id {
			what = "container "
		}
		got = append(got, what+ev.ContainerEventType.String())
		ready := runtimeapi.PodSandboxState_SANDBOX_READY
		if len(got) > 6 {
			ready = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
		}
		if s.Id != id || s.State != ready || ready == 0 && s.Network.Ip == "" || ev.CreatedAt == 0 {
			t.Errorf("%s: %v", got[len(got)-1], s)
		}
		if len(got) == len(want) {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("told %q", got)
	}
}
