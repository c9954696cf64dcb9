package cri

import (
	"cmp"
	"context"
	"errors"
	"log"
	"slices"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/engine"
)

// containerMeta is what this package keeps with a container: its configuration as it was asked for.
func containerMeta(id string, m *engine.Member) *runtimeapi.ContainerConfig {
	return decode(id, m.Meta, func() *runtimeapi.ContainerConfig {
		c := new(runtimeapi.ContainerConfig)
		_ = proto.Unmarshal(m.Meta, c) // we wrote it; what can't be read is empty
		if c.Metadata == nil {
			c.Metadata = &runtimeapi.ContainerMetadata{}
		}
		if c.Image == nil {
			c.Image = &runtimeapi.ImageSpec{}
		}
		return c
	})
}

// CreateContainer makes a container in a pod. The same request again gives the same container.
func (s *Server) CreateContainer(ctx context.Context, r *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	m := r.GetConfig().GetMetadata()
	if m == nil {
		return nil, invalid("the container has no metadata")
	}
	pod, err := s.engine.Pod(r.PodSandboxId)
	if err != nil {
		return nil, err
	}
	unlock, err := s.making.lock(ctx, "container", pod.ID, m.Name, strconv.FormatUint(uint64(m.Attempt), 10))
	if err != nil {
		return nil, err
	}
	defer unlock()
	others, err := s.engine.MemberStates(pod.ID)
	if err != nil {
		return nil, err
	}
	for _, o := range others {
		if have := containerMeta(o.ID, o.Member); proto.Equal(have.Metadata, m) && o.State.Status == engine.Created && proto.Equal(have, r.Config) {
			return &runtimeapi.CreateContainerResponse{ContainerId: o.ID}, nil
		}
	}
	spec, err := s.containerSpec(ctx, &pod, r)
	if err != nil {
		return nil, err
	}
	defer s.telling.hold()()
	id, _, err := s.engine.Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	if i, err := s.engine.Member(id); err == nil {
		if err := s.telling.about(ctx, &i, Plugins.Created); err != nil {
			log.Printf("cri: plug-ins: container %s was made: %v", id, err)
		}
	}
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, nil
}

// StartContainer starts a container that was made; one that runs is left alone.
func (s *Server) StartContainer(ctx context.Context, r *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	i, err := s.engine.Member(r.ContainerId)
	if err != nil {
		return nil, err
	}
	if i.State.Status == engine.Exited {
		return nil, &engine.Error{Class: engine.ErrConflict, Text: "container " + i.ID + " has exited: make a new one"}
	}
	defer s.telling.hold()()
	if i.State.Status == engine.Created {
		if err := s.telling.about(ctx, &i, Plugins.Start); err != nil {
			return nil, err
		}
	}
	if err := s.engine.Start(ctx, i.ID, engine.StartOptions{}); err != nil && !errors.Is(err, engine.ErrNotModified) {
		return nil, err
	} else if now, err2 := s.engine.Member(i.ID); err == nil && err2 == nil {
		if err := s.telling.about(ctx, &now, Plugins.Started); err != nil {
			log.Printf("cri: plug-ins: container %s was started: %v", i.ID, err)
		}
	}
	return &runtimeapi.StartContainerResponse{}, nil
}

// StopContainer ends a container, by force after the timeout; no such container, or one that has ended, is no error.
func (s *Server) StopContainer(ctx context.Context, r *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	i, err := s.engine.Member(r.ContainerId)
	if err == nil {
		o := engine.StopOptions{}
		seconds := int(max(0, min(r.Timeout, int64(24*time.Hour/time.Second))))
		o.Timeout = &seconds
		defer s.telling.hold()()
		err = s.engine.Stop(ctx, i.ID, o)
		if err == nil {
			s.telling.ended(ctx, &i)
		}
	}
	if err != nil && !errors.Is(err, engine.ErrNotFound) && !errors.Is(err, engine.ErrNotModified) {
		return nil, err
	}
	return &runtimeapi.StopContainerResponse{}, nil
}

// RemoveContainer removes a container, by force; no such container is no error.
func (s *Server) RemoveContainer(ctx context.Context, r *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	i, err := s.engine.Member(r.ContainerId)
	if err == nil {
		defer s.telling.hold()()
		s.telling.removed(ctx, &i)
		err = s.engine.Remove(ctx, i.ID, engine.RemoveOptions{Force: true, Volumes: true})
		s.usage.drop(i.ID)
		forget(i.ID)
	}
	if err != nil && !errors.Is(err, engine.ErrNotFound) {
		return nil, err
	}
	return &runtimeapi.RemoveContainerResponse{}, nil
}

func containerState(st *engine.State) runtimeapi.ContainerState {
	switch st.Status {
	case engine.Created:
		if st.Error != "" { // it could not be started
			return runtimeapi.ContainerState_CONTAINER_EXITED
		}
		return runtimeapi.ContainerState_CONTAINER_CREATED
	case engine.Running, engine.Paused:
		return runtimeapi.ContainerState_CONTAINER_RUNNING
	case engine.Exited, engine.Dead, engine.Removing:
		return runtimeapi.ContainerState_CONTAINER_EXITED
	}
	return runtimeapi.ContainerState_CONTAINER_UNKNOWN
}

// ContainerStatus tells all of one container.
func (s *Server) ContainerStatus(ctx context.Context, r *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	i, err := s.engine.Member(r.ContainerId)
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ContainerStatusResponse{Status: s.containerStatus(&i)}
	if r.Verbose {
		resp.Info = map[string]string{"info": `{"sandboxID":` + strconv.Quote(i.Spec.Member.Pod) + `,"pid":` + strconv.Itoa(i.State.Pid) + "}"}
	}
	return resp, nil
}

func (s *Server) containerStatus(i *engine.Info) *runtimeapi.ContainerStatus {
	m := containerMeta(i.ID, i.Spec.Member)
	st := &runtimeapi.ContainerStatus{
		Id: i.ID, Metadata: m.Metadata, State: containerState(&i.State), CreatedAt: i.Created.UnixNano(), Image: m.Image, ImageRef: i.ImageID, ImageId: i.ImageID,
		Labels: m.Labels, Annotations: m.Annotations, Mounts: mountsOf(i, m), LogPath: i.Spec.Member.LogPath, StopSignal: signalOf(i.Run.StopSignal),
		Resources: &runtimeapi.ContainerResources{Linux: resourcesOf(&i.Spec, m)},
	}
	if name := cmp.Or(st.Image.UserSpecifiedImage, i.ImageRef); name != "" {
		st.Image = proto.CloneOf(st.Image)
		st.Image.Image = fullName(name)
	}
	if !i.State.StartedAt.IsZero() {
		st.StartedAt = i.State.StartedAt.UnixNano()
	}
	if u := i.State.User; u != nil {
		st.User = userOf(u)
	}
	if st.State != runtimeapi.ContainerState_CONTAINER_EXITED {
		return st
	}
	st.ExitCode, st.Message = int32(i.State.ExitCode), i.State.Error
	st.FinishedAt = i.State.FinishedAt.UnixNano()
	if i.State.FinishedAt.IsZero() {
		st.FinishedAt = time.Now().UnixNano()
	}
	switch {
	case i.State.OOMKilled:
		st.Reason = "OOMKilled"
	case i.State.Error != "":
		st.Reason, st.ExitCode = "StartError", startErrorCode
	case st.ExitCode == 0:
		st.Reason = "Completed"
	default:
		st.Reason = "Error"
	}
	return st
}

// startErrorCode is the exit code of a container that could not be started: clients of Kubernetes know no other.
const startErrorCode = 128

func userOf(u *specs.User) *runtimeapi.ContainerUser {
	out := &runtimeapi.LinuxContainerUser{Uid: int64(u.UID), Gid: int64(u.GID)}
	for _, g := range u.AdditionalGids {
		out.SupplementalGroups = append(out.SupplementalGroups, int64(g))
	}
	return &runtimeapi.ContainerUser{Linux: out}
}

// UpdateContainerResources changes limits, of a running container at once.
func (s *Server) UpdateContainerResources(ctx context.Context, r *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	i, err := s.engine.Member(r.ContainerId)
	if err != nil {
		return nil, err
	}
	if r.Linux == nil {
		return &runtimeapi.UpdateContainerResourcesResponse{}, nil
	}
	res := i.Spec.Resources
	setResources(&res, r.Linux)
	defer s.telling.hold()()
	if err := s.telling.about(ctx, &i, func(p Plugins, ctx context.Context, c *PluginContainer) error { return p.Update(ctx, c, &res) }); err != nil {
		return nil, err
	}
	if _, err := s.engine.Update(ctx, i.ID, res, nil); err != nil {
		return nil, err
	}
	if now, err := s.engine.Member(i.ID); err == nil {
		if err := s.telling.about(ctx, &now, Plugins.Updated); err != nil {
			log.Printf("cri: plug-ins: container %s was updated: %v", i.ID, err)
		}
	}
	return &runtimeapi.UpdateContainerResourcesResponse{}, nil
}

// ReopenContainerLog has the log file opened anew after a rotation.
func (s *Server) ReopenContainerLog(ctx context.Context, r *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	i, err := s.engine.Member(r.ContainerId)
	if err != nil {
		return nil, err
	}
	if err := s.engine.ReopenLog(ctx, i.ID); err != nil {
		return nil, err
	}
	return &runtimeapi.ReopenContainerLogResponse{}, nil
}

// mountsOf are a container's mounts as they were asked for; those of images say which they are.
func mountsOf(i *engine.Info, m *runtimeapi.ContainerConfig) []*runtimeapi.Mount {
	out := slices.Clone(m.Mounts)
	for k, mount := range out {
		if mount.GetImage().GetImage() != "" && k < len(i.Spec.Mounts) {
			out[k] = proto.CloneOf(mount)
			out[k].Image.ImageRef = i.Spec.Mounts[k].Source
		}
	}
	return out
}
