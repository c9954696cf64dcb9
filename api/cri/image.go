package cri

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"cale/engine"
	"cale/image"
	"cale/image/trust"
	"cale/registry/client"
)

// imageOf describes an image as the CRI has it. A kubelet that needs room leaves alone what is pinned: what others than
// pods named or use, and names that the node's settings have.
func imageOf(i *engine.Image, pinned []string) *runtimeapi.Image {
	out := &runtimeapi.Image{Id: i.ID, Size: uint64(max(i.Size, 1)), Spec: &runtimeapi.ImageSpec{Image: i.ID}, Pinned: i.Others}
	for _, n := range i.Names {
		out.RepoTags = append(out.RepoTags, fullName(n))
	}
	for _, d := range i.Digests {
		out.RepoDigests = append(out.RepoDigests, fullName(d))
	}
	for _, name := range slices.Concat(out.RepoTags, out.RepoDigests) {
		out.Pinned = out.Pinned || slices.ContainsFunc(pinned, func(p string) bool {
			ok, _ := path.Match(p, name)
			return ok
		})
	}
	user, _, _ := strings.Cut(i.Config.User, ":")
	if user == "" {
		return out
	}
	if uid, err := strconv.ParseUint(user, 10, 32); err == nil {
		out.Uid = &runtimeapi.Int64Value{Value: int64(uid)}
	} else {
		out.Username = user
	}
	return out
}

// fullName writes a name with its registry: Kubernetes knows no short ones.
func fullName(name string) string {
	r, err := image.ParseReference(name)
	if err != nil {
		return name
	}
	return r.String()
}

func imageName(spec *runtimeapi.ImageSpec) (string, error) {
	if spec.GetImage() == "" {
		return "", invalid("no image given")
	}
	if len(spec.Image) == 64 && strings.Trim(spec.Image, "0123456789abcdef") == "" {
		return "sha256:" + spec.Image, nil // an id: no name may look like one
	}
	return spec.Image, nil
}

// ListImages lists the images, whoever brought them.
func (s *Server) ListImages(ctx context.Context, r *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	pinned, err := s.engine.PinnedImages()
	if err != nil {
		return nil, err
	}
	if name := r.GetFilter().GetImage().GetImage(); name != "" {
		i, err := s.engine.Image(ctx, name)
		if errors.Is(err, engine.ErrNotFound) {
			return &runtimeapi.ListImagesResponse{}, nil
		}
		if err != nil {
			return nil, err
		}
		return &runtimeapi.ListImagesResponse{Images: []*runtimeapi.Image{imageOf(&i, pinned)}}, nil
	}
	list, err := s.engine.Images(ctx, true)
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ListImagesResponse{}
	for i := range list {
		resp.Images = append(resp.Images, imageOf(&list[i], pinned))
	}
	return resp, nil
}

// ImageStatus describes one image; none is no error.
func (s *Server) ImageStatus(ctx context.Context, r *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	name, err := imageName(r.Image)
	if err != nil {
		return nil, err
	}
	i, err := s.engine.Image(ctx, name)
	if errors.Is(err, engine.ErrNotFound) {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	pinned, err := s.engine.PinnedImages()
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ImageStatusResponse{Image: imageOf(&i, pinned)}
	if r.Verbose {
		resp.Info = map[string]string{"imageSpec": string(i.RawConfig)}
	}
	return resp, nil
}

// PullImage brings an image and gives its id.
func (s *Server) PullImage(ctx context.Context, r *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	name, err := imageName(r.Image)
	if err != nil {
		return nil, err
	}
	creds, err := credentials(r.Auth)
	if err != nil {
		return nil, err
	}
	namespace := r.GetSandboxConfig().GetMetadata().GetNamespace()
	digest, _, err := s.engine.Pull(ctx, name, engine.PullOptions{Credentials: creds, Pods: true, Namespace: namespace})
	if err != nil {
		return nil, known(err)
	}
	i, err := s.engine.Image(ctx, digest)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.PullImageResponse{ImageRef: i.ID}, nil
}

// known begins errors with the words by which a kubelet knows them.
func known(err error) error {
	switch {
	case errors.Is(err, trust.ErrRejected):
		return fmt.Errorf("%w: %w", crierrors.ErrSignatureValidationFailed, err)
	case errors.Is(err, client.ErrUnavailable):
		return fmt.Errorf("%w: %w", crierrors.ErrRegistryUnavailable, err)
	}
	return err
}

// credentials reads what came with a pull. auth is user:password in base64, as Docker's configuration has it.
func credentials(a *runtimeapi.AuthConfig) (*engine.Credentials, error) {
	if a == nil {
		return nil, nil
	}
	c := &engine.Credentials{User: a.Username, Password: a.Password, Token: a.IdentityToken, Bearer: a.RegistryToken}
	if a.Auth != "" && c.User == "" {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimRight(a.Auth, "\x00"))
		if err != nil {
			return nil, invalid("auth: not base64")
		}
		user, password, ok := strings.Cut(strings.TrimRight(string(raw), "\x00"), ":")
		if !ok {
			return nil, invalid("auth: not user:password")
		}
		c.User, c.Password = user, password
	}
	if *c == (engine.Credentials{}) {
		return nil, nil
	}
	return c, nil
}

// RemoveImage removes an image with all names that it has for pods; none is no error. What Docker's side named or uses
// stays.
func (s *Server) RemoveImage(ctx context.Context, r *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	name, err := imageName(r.Image)
	if err != nil {
		return nil, err
	}
	err = s.engine.RemovePodsImage(ctx, name)
	if err != nil && !errors.Is(err, engine.ErrNotFound) {
		return nil, err
	}
	return &runtimeapi.RemoveImageResponse{}, nil
}

// ImageFsInfo says what images and containers take up.
func (s *Server) ImageFsInfo(ctx context.Context, _ *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	u, err := s.engine.ImageBytes(ctx)
	if err != nil {
		return nil, err
	}
	members, err := s.engine.MemberStates("")
	if err != nil {
		return nil, err
	}
	var all written
	for _, m := range members {
		w := s.size(m.ID)
		all.bytes, all.files = all.bytes+w.bytes, all.files+w.files
	}
	now := time.Now().UnixNano()
	usage := func(dir string, bytes, inodes uint64) []*runtimeapi.FilesystemUsage {
		return []*runtimeapi.FilesystemUsage{{Timestamp: now, FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: filepath.Join(s.opts.Root, dir)},
			UsedBytes: number(bytes), InodesUsed: number(inodes)}}
	}
	return &runtimeapi.ImageFsInfoResponse{
		ImageFilesystems:     usage("layers", uint64(u.Bytes), uint64(u.Blobs+u.Layers)),
		ContainerFilesystems: usage(containersDir, all.bytes, all.files),
	}, nil
}

func number(n uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: n} }

// StreamImages is ListImages in pieces.
func (s *Server) StreamImages(r *runtimeapi.StreamImagesRequest, st runtimeapi.ImageService_StreamImagesServer) error {
	all, err := s.ListImages(st.Context(), &runtimeapi.ListImagesRequest{Filter: r.Filter})
	if err != nil {
		return err
	}
	return inPieces(all.Images, func(part []*runtimeapi.Image) error {
		return st.Send(&runtimeapi.StreamImagesResponse{Images: part})
	})
}

// piece is how many things one message of a stream has.
const piece = 100

func inPieces[T any](all []T, send func([]T) error) error {
	for len(all) > piece {
		if err := send(all[:piece]); err != nil {
			return err
		}
		all = all[piece:]
	}
	if len(all) == 0 {
		return nil
	}
	return send(all)
}
