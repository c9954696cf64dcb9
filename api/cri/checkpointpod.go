package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/engine"
)

// A pod's checkpoint is a directory with an archive for each container, as CheckpointContainer writes them, with
// requestFile in it too, and podFile, which is written last.
const (
	podFile     = "pod.json"
	requestFile = "container.pb" // the container's configuration in the CRI's words, to compare another with
)

// podDump is podFile.
type podDump struct {
	Version    int             `json:"version"`
	Containers []containerDump `json:"containers"`
}

type containerDump struct {
	Name    string `json:"name"`
	Archive string `json:"archive"`
}

const podDumpVersion = 1

// CheckpointPod saves running containers of a pod, as they all are at one moment, to a directory. They run on.
func (s *Server) CheckpointPod(ctx context.Context, r *runtimeapi.CheckpointPodRequest) (_ *runtimeapi.CheckpointPodResponse, err error) {
	if err := noOptions(r.Options); err != nil {
		return nil, err
	}
	pod, err := s.engine.Pod(r.PodSandboxId)
	if err != nil {
		return nil, err
	}
	if !pod.Ready {
		return nil, &engine.Error{Class: engine.ErrConflict, Text: "pod " + pod.ID + " is not ready"}
	}
	states, err := s.toCheckpoint(ctx, &pod, r.ContainerIds)
	if err != nil {
		return nil, err
	}
	if !filepath.IsAbs(r.OutputPath) {
		return nil, invalid("the output path of a checkpoint must be absolute, not %q", r.OutputPath)
	}
	if there, err := os.ReadDir(r.OutputPath); err != nil {
		return nil, invalid("output path: %v", err)
	} else if len(there) > 0 {
		return nil, invalid("the output path %s is not empty", r.OutputPath)
	}
	ids := make([]string, len(states))
	dump := podDump{Version: podDumpVersion}
	for i, st := range states {
		ids[i] = st.Id
		dump.Containers = append(dump.Containers, containerDump{Name: st.Metadata.Name, Archive: strconv.Itoa(i) + ".tar"})
	}
	defer func() {
		if err == nil {
			return
		}
		for _, c := range dump.Containers {
			os.Remove(filepath.Join(r.OutputPath, c.Archive))
		}
		os.Remove(filepath.Join(r.OutputPath, podFile))
	}()
	err = s.engine.Snapshot(ctx, ids, func(dirs []string) error {
		for i, dir := range dirs {
			if err := s.describeAll(ctx, dir, states[i]); err != nil {
				return err
			}
			if err := archiveAt(ctx, filepath.Join(r.OutputPath, dump.Containers[i].Archive), dir); err != nil {
				return err
			}
		}
		raw, err := json.Marshal(dump)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(r.OutputPath, podFile), raw, 0o600)
	})
	if err != nil {
		return nil, fmt.Errorf("checkpointing pod %s failed: %w", pod.ID, err)
	}
	return &runtimeapi.CheckpointPodResponse{}, nil
}

// toCheckpoint checks which containers a pod's checkpoint is to have.
func (s *Server) toCheckpoint(ctx context.Context, pod *engine.PodInfo, ids []string) ([]*runtimeapi.ContainerStatus, error) {
	if len(ids) == 0 {
		return nil, invalid("a pod's checkpoint needs containers")
	}
	seen := map[string]bool{}
	var list []*runtimeapi.ContainerStatus
	for _, id := range ids {
		i, err := s.engine.Member(id)
		if err != nil {
			return nil, err
		}
		switch {
		case i.Spec.Member.Pod != pod.ID:
			return nil, invalid("container %s is not in pod %s", i.ID, pod.ID)
		case seen[i.ID]:
			return nil, invalid("container %s is named twice", i.ID)
		case containerState(&i.State) != runtimeapi.ContainerState_CONTAINER_RUNNING:
			return nil, &engine.Error{Class: engine.ErrConflict, Text: "container " + i.ID + " is not running"}
		}
		seen[i.ID] = true
		st, err := s.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: i.ID})
		if err != nil {
			return nil, err
		}
		list = append(list, st.Status)
	}
	return list, nil
}

// describeAll is describe, with what a restore compares.
func (s *Server) describeAll(ctx context.Context, dir string, st *runtimeapi.ContainerStatus) error {
	i, err := s.engine.Member(st.Id)
	if err != nil {
		return err
	}
	return errors.Join(describe(dir, st), os.WriteFile(filepath.Join(dir, requestFile), i.Spec.Member.Meta, 0o600))
}

func noOptions(o map[string]string) error {
	for k := range o {
		return invalid("unknown option %q: this runtime has none", k)
	}
	return nil
}

// same compares what two configurations say of a container's process: what is saved of it and what is asked for have
// to agree, since a restored process stays what it was.
func same(saved, asked *runtimeapi.ContainerConfig) error {
	about := func(c *runtimeapi.ContainerConfig) *runtimeapi.ContainerConfig {
		sec := c.GetLinux().GetSecurityContext()
		return &runtimeapi.ContainerConfig{
			Image: &runtimeapi.ImageSpec{Image: c.GetImage().GetImage()}, Command: c.Command, Args: c.Args, WorkingDir: c.WorkingDir,
			Envs: c.Envs, Tty: c.Tty, Stdin: c.Stdin,
			Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				RunAsUser: sec.GetRunAsUser(), RunAsGroup: sec.GetRunAsGroup(), RunAsUsername: sec.GetRunAsUsername(),
				SupplementalGroups: sec.GetSupplementalGroups(), Capabilities: sec.GetCapabilities(),
				Privileged: sec.GetPrivileged(), NoNewPrivs: sec.GetNoNewPrivs(), Seccomp: sec.GetSeccomp(),
			}},
		}
	}
	if !proto.Equal(about(saved), about(asked)) {
		return invalid("container %q: the checkpoint is of another image, command, environment, user or confinement than what is asked for", asked.Metadata.Name)
	}
	return nil
}
