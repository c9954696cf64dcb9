package cri

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

var eventTypes = map[string]runtimeapi.ContainerEventType{
	"create": runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT, "start": runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT,
	"die": runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT, "destroy": runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT,
}

// GetContainerEvents tells what happens to containers, and to pods as if each were a container too, until the client leaves. One that is too slow is told
// so by the end of the stream, and lists everything anew.
func (s *Server) GetContainerEvents(_ *runtimeapi.GetEventsRequest, st runtimeapi.RuntimeService_GetContainerEventsServer) error {
	ctx := st.Context()
	events := s.engine.SubscribePods(ctx)
	for ev := range events {
		kind, ok := eventTypes[ev.Action]
		if !ok {
			continue
		}
		out := &runtimeapi.ContainerEventResponse{ContainerId: ev.ID, ContainerEventType: kind, CreatedAt: ev.Time.UnixNano(), PodSandboxStatus: s.podStatus(ev.Pod)}
		if members, err := s.engine.Members(ev.Pod.ID); err == nil { // else the pod is gone, and they with it
			for i := range members {
				out.ContainersStatuses = append(out.ContainersStatuses, s.containerStatus(&members[i]))
			}
		}
		if err := st.Send(out); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return status.Error(codes.ResourceExhausted, "events came faster than they were read: list everything and ask again")
}
