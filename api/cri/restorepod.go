package cri

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/engine"
)

// maxDescription bounds what is read of a checkpoint besides images and files.
const maxDescription = 4 << 20

// RestorePod makes a pod, and containers in it that go on from a checkpoint when they are started. What they are bound
// to of the host comes from the request: a checkpoint is refused where it isn't of what was asked for (CVE-2024-8676,
// CVE-2026-50195, CVE-2026-53492). But CRIU does as root what its images say, before the runtime can look at the
// outcome; so restoring is for administrators to allow, and each one is on record.
func (s *Server) RestorePod(ctx context.Context, r *runtimeapi.RestorePodRequest) (_ *runtimeapi.RestorePodResponse, err error) {
	if !s.opts.AllowRestore {
		return nil, &engine.Error{Class: engine.ErrForbidden, Text: "restoring from checkpoints is not allowed: whoever makes a checkpoint could be root " +
			"on this machine by it; an administrator who trusts all of them starts caled with --allow-restore"}
	}
	if err := noOptions(r.Options); err != nil {
		return nil, err
	}
	m := r.GetConfig().GetMetadata()
	if m == nil {
		return nil, invalid("the sandbox has no metadata")
	}
	if !filepath.IsAbs(r.CheckpointPath) {
		return nil, invalid("the path of a checkpoint must be absolute, not %q", r.CheckpointPath)
	}
	dir, err := os.OpenRoot(r.CheckpointPath)
	if err != nil {
		return nil, invalid("checkpoint: %v", err)
	}
	defer dir.Close()
	archives, err := readPodDump(dir, r.ContainerConfigs)
	if err != nil {
		return nil, err
	}
	for _, p := range s.engine.Pods() {
		if p.Ready && proto.Equal(podMeta(&p).Config.Metadata, m) {
			return nil, &engine.Error{Class: engine.ErrConflict, Text: "pod " + m.Name + " is there already"}
		}
	}
	made, err := s.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: r.Config, RuntimeHandler: r.RuntimeHandler})
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.RestorePodResponse{PodSandboxId: made.PodSandboxId}
	for i, c := range r.ContainerConfigs {
		var id string
		if id, err = s.restoreContainer(ctx, dir, archives[i], made.PodSandboxId, r.Config, c); err != nil {
			break
		}
		resp.RestoredContainers = append(resp.RestoredContainers, &runtimeapi.RestoredContainer{Name: c.Metadata.Name, ContainerId: id})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("restoring pod %s failed: %w", m.Name, err), s.engine.RemovePod(context.WithoutCancel(ctx), made.PodSandboxId))
	}
	return resp, nil
}

// archiveName is what CheckpointPod calls its archives.
var archiveName = regexp.MustCompile(`^[0-9]{1,6}\.tar$`)

// readPodDump finds the archive of each container that is asked for; the checkpoint must have just those.
func readPodDump(dir *os.Root, configs []*runtimeapi.ContainerConfig) ([]string, error) {
	f, err := openPlain(dir, podFile)
	if err != nil {
		return nil, invalid("checkpoint: %v", err)
	}
	defer f.Close()
	var dump podDump
	if err := json.NewDecoder(io.LimitReader(f, maxDescription)).Decode(&dump); err != nil {
		return nil, invalid("checkpoint: %s: %v", podFile, err)
	}
	if dump.Version != podDumpVersion {
		return nil, invalid("checkpoint: version %d is not known here", dump.Version)
	}
	saved := map[string]string{}
	for _, c := range dump.Containers {
		if !archiveName.MatchString(c.Archive) || saved[c.Name] != "" || c.Name == "" {
			return nil, invalid("checkpoint: container %q in archive %q", c.Name, c.Archive)
		}
		saved[c.Name] = c.Archive
	}
	archives := make([]string, len(configs))
	for i, c := range configs {
		name := c.GetMetadata().GetName()
		if archives[i] = saved[name]; archives[i] == "" {
			return nil, invalid("the checkpoint has no container %q, or it is asked for twice", name)
		}
		delete(saved, name)
	}
	if len(saved) > 0 || len(configs) == 0 {
		return nil, invalid("the checkpoint has containers that are not asked for")
	}
	return archives, nil
}

// openPlain opens a file below a directory that others may have written to, and go on writing to.
func openPlain(dir *os.Root, name string) (*os.File, error) {
	st, err := dir.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", name)
	}
	f, err := dir.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	// It may be another one by now, though none outside.
	if st, err = f.Stat(); err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// restoreContainer makes a container as it is asked for, and fills it from its archive.
func (s *Server) restoreContainer(ctx context.Context, dir *os.Root, archive, pod string, p *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) (string, error) {
	f, err := openPlain(dir, archive)
	if err != nil {
		return "", invalid("checkpoint: %v", err)
	}
	defer f.Close()
	made, err := s.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: c, SandboxConfig: p})
	if err != nil {
		return "", err
	}
	st, err := s.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: made.ContainerId})
	if err != nil {
		return "", err
	}
	err = s.engine.LoadSnapshot(ctx, made.ContainerId, func(to *engine.Saved) error {
		a := snapshotArchive{to: to, config: c, image: st.Status.ImageRef}
		return a.read(ctx, tar.NewReader(f))
	})
	return made.ContainerId, err
}

// snapshotArchive is an archive that is being read into a container.
type snapshotArchive struct {
	to                  *engine.Saved
	config              *runtimeapi.ContainerConfig
	image               string // the id of the image the container is of
	images              int    // how many of CRIU's files there were
	files, saved, named bool   // what else there was
}

// maxImages bounds how many files of CRIU's an archive may have: a process has about ten.
const maxImages = 1 << 15

// hollow says whether a file claims to be larger than what is in the archive of it.
func hollow(h *tar.Header) bool {
	return h.Typeflag == tar.TypeGNUSparse || h.PAXRecords["GNU.sparse.major"] != "" || h.PAXRecords["GNU.sparse.map"] != ""
}

func (a *snapshotArchive) read(ctx context.Context, r *tar.Reader) error {
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if hollow(h) {
			return invalid("the archive has a file with holes, %q", h.Name)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := a.entry(ctx, h.Name, r); err != nil {
			return err
		}
	}
	if a.images == 0 || !a.files || !a.saved || !a.named {
		return invalid("the archive is not of a whole checkpoint")
	}
	return nil
}

func (a *snapshotArchive) entry(ctx context.Context, name string, r io.Reader) error {
	if image, ok := strings.CutPrefix(name, engine.SnapshotImages+"/"); ok {
		if a.images++; a.images > maxImages {
			return invalid("the archive has more than %d files of CRIU's", maxImages)
		}
		return a.to.Image(image, r)
	}
	switch name {
	case engine.SnapshotFiles:
		if a.files {
			return invalid("the archive has files twice")
		}
		a.files = true
		return a.to.Files(ctx, r)
	case requestFile:
		a.saved = true
		raw, err := io.ReadAll(io.LimitReader(r, maxDescription))
		if err != nil {
			return err
		}
		var saved runtimeapi.ContainerConfig
		if err := proto.Unmarshal(raw, &saved); err != nil {
			return invalid("%s: %v", requestFile, err)
		}
		return same(&saved, a.config)
	case "config.dump":
		a.named = true
		var d configDump
		if err := json.NewDecoder(io.LimitReader(r, maxDescription)).Decode(&d); err != nil {
			return invalid("config.dump: %v", err)
		}
		if d.RootfsImageRef != a.image {
			return invalid("container %q: the checkpoint is of image %q, and %q is asked for", a.config.Metadata.Name, d.RootfsImageRef, a.image)
		}
	}
	return nil
}
