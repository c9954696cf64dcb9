package cri

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/engine"
)

// CheckpointContainer saves a running container, which runs on, as a tar archive at the place the request names. It
// has what containerd's has: config.dump, spec.dump, status.dump, dump.log, container.log, checkpoint/ and
// rootfs-diff.tar, for checkpointctl to read.
func (s *Server) CheckpointContainer(ctx context.Context, r *runtimeapi.CheckpointContainerRequest) (*runtimeapi.CheckpointContainerResponse, error) {
	if !filepath.IsAbs(r.Location) {
		return nil, invalid("the location of a checkpoint must be an absolute path, not %q", r.Location)
	}
	i, err := s.engine.Member(r.ContainerId)
	if err != nil {
		return nil, err
	}
	if st := containerState(&i.State); st != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil, &engine.Error{Class: engine.ErrConflict, Text: fmt.Sprintf("container %q is in %s state. only %s containers can be checkpointed",
			i.ID, st, runtimeapi.ContainerState_CONTAINER_RUNNING)}
	}
	if r.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(r.Timeout)*time.Second)
		defer cancel()
	}
	status, err := s.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: i.ID})
	if err != nil {
		return nil, err
	}
	err = s.engine.Snapshot(ctx, []string{i.ID}, func(dirs []string) error {
		if err := describe(dirs[0], status.Status); err != nil {
			return err
		}
		return archiveAt(ctx, r.Location, dirs[0])
	})
	if err != nil {
		return nil, fmt.Errorf("checkpointing container %q failed: %w", i.ID, err)
	}
	return &runtimeapi.CheckpointContainerResponse{}, nil
}

// configDump is the part of an archive by which people and tools tell what it is of.
type configDump struct {
	ID              string    `json:"id"`
	Name            string    `json:"name"`
	RootfsImage     string    `json:"rootfsImage,omitempty"`
	RootfsImageRef  string    `json:"rootfsImageRef,omitempty"`
	RootfsImageName string    `json:"rootfsImageName,omitempty"`
	OCIRuntime      string    `json:"runtime,omitempty"`
	CreatedTime     time.Time `json:"createdTime"`
	CheckpointedAt  time.Time `json:"checkpointedTime"`
	RestoredAt      time.Time `json:"restoredTime"`
	Restored        bool      `json:"restored"`
}

// describe adds to a snapshot what the CRI knows of its container.
func describe(dir string, st *runtimeapi.ContainerStatus) error {
	image := st.GetImage().GetImage()
	for name, v := range map[string]any{
		"config.dump": configDump{ID: st.Id, Name: st.GetMetadata().GetName(), RootfsImage: image, RootfsImageName: image,
			RootfsImageRef: st.ImageRef, OCIRuntime: "cale", CreatedTime: time.Unix(0, st.CreatedAt), CheckpointedAt: time.Now()},
		"status.dump": st,
	} {
		raw, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			return err
		}
	}
	return copyLog(st.LogPath, filepath.Join(dir, "container.log"))
}

// copyLog copies a container's log, if it has one. Where logs are others may write: a link there is not followed, and
// only a file is read (CVE-2026-53489).
func copyLog(from, to string) error {
	if from == "" {
		return nil
	}
	in, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	// As long as it is now: the container may go on writing.
	_, err = io.Copy(out, io.LimitReader(in, st.Size()))
	return errors.Join(err, out.Close())
}

// archiveAt writes a directory as a tar file, which is there under its name only when it is whole.
func archiveAt(ctx context.Context, location, dir string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(location), "."+filepath.Base(location)+".") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err == nil {
			err = os.Rename(f.Name(), location)
		}
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	w := tar.NewWriter(f)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil || path == dir {
			return err
		}
		return addFile(w, dir, path)
	})
	return errors.Join(err, w.Close())
}

// addFile adds a directory or a file below dir to an archive; there is nothing else there.
func addFile(w *tar.Writer, dir, path string) error {
	in, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	h, err := tar.FileInfoHeader(st, "")
	if err != nil {
		return err
	}
	if h.Name, err = filepath.Rel(dir, path); err != nil {
		return err
	}
	if st.IsDir() {
		h.Name += "/"
	}
	if err := w.WriteHeader(h); err != nil || st.IsDir() {
		return err
	}
	_, err = io.CopyN(w, in, st.Size())
	return err
}
