package cri

import (
	"context"
	"slices"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A kubelet lists everything each second, and what it is told of one pod or container changes with its state only. So
// that is encoded once, as the part of the answer that it is, and an answer is such parts.

// itemsField is the number of the field with what is listed, in all answers with lists of pods or containers.
const itemsField = 1

// setItems makes an answer of encoded items. To this process they are not in the answer's field, but what follows the
// fields that are set; a client finds them in the field.
func setItems(answer proto.Message, items [][]byte) {
	answer.ProtoReflect().SetUnknown(slices.Concat(items...))
}

// item gives what lists tell of a pod or container with that state, encoded. raw is what is kept with it, which decode
// was asked about before.
func item(id string, raw []byte, state int32, tell func() proto.Message) ([]byte, error) {
	decoded.RLock()
	d := decoded.byID[id]
	decoded.RUnlock()
	if d.item != nil && d.state == state && d.raw == unsafe.SliceData(raw) {
		return d.item, nil
	}
	m, err := proto.Marshal(tell())
	if err != nil {
		return nil, err
	}
	b := protowire.AppendBytes(protowire.AppendTag(nil, itemsField, protowire.BytesType), m)
	decoded.Lock()
	defer decoded.Unlock()
	if d := decoded.byID[id]; d.raw == unsafe.SliceData(raw) {
		d.state, d.item = state, b
		decoded.byID[id] = d
	}
	return b, nil
}

func (s *Server) podItems(f *runtimeapi.PodSandboxFilter) (out [][]byte, err error) {
	for _, p := range s.engine.Pods() {
		m := podMeta(&p)
		st := podState(&p)
		if !idMatches(p.ID, f.GetId()) || f.GetState() != nil && f.State.State != st || !labelsMatch(m.Config.Labels, f.GetLabelSelector()) {
			continue
		}
		b, err := item(p.ID, p.Spec.Meta, int32(st), func() proto.Message {
			return &runtimeapi.PodSandbox{Id: p.ID, Metadata: m.Config.Metadata, State: st, CreatedAt: p.Created.UnixNano(),
				Labels: m.Config.Labels, Annotations: m.Config.Annotations, RuntimeHandler: m.RuntimeHandler}
		})
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// ListPodSandbox lists pods, the newest first.
func (s *Server) ListPodSandbox(_ context.Context, r *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	items, err := s.podItems(r.GetFilter())
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ListPodSandboxResponse{}
	setItems(resp, items)
	return resp, nil
}

// StreamPodSandboxes is ListPodSandbox in pieces.
func (s *Server) StreamPodSandboxes(r *runtimeapi.StreamPodSandboxesRequest, st runtimeapi.RuntimeService_StreamPodSandboxesServer) error {
	items, err := s.podItems(r.GetFilter())
	if err != nil {
		return err
	}
	return inPieces(items, func(part [][]byte) error {
		resp := &runtimeapi.StreamPodSandboxesResponse{}
		setItems(resp, part)
		return st.Send(resp)
	})
}

func (s *Server) containerItems(f *runtimeapi.ContainerFilter) (out [][]byte, err error) {
	all, err := s.engine.MemberStates("")
	if err != nil {
		return nil, err
	}
	for k := range all {
		i := &all[k]
		m := containerMeta(i.ID, i.Member)
		st := containerState(&i.State)
		if !idMatches(i.ID, f.GetId()) || !idMatches(i.Member.Pod, f.GetPodSandboxId()) || f.GetState() != nil && f.State.State != st ||
			!labelsMatch(m.Labels, f.GetLabelSelector()) {
			continue
		}
		b, err := item(i.ID, i.Member.Meta, int32(st), func() proto.Message {
			return &runtimeapi.Container{Id: i.ID, PodSandboxId: i.Member.Pod, Metadata: m.Metadata, Image: m.Image, ImageRef: i.ImageID,
				ImageId: i.ImageID, State: st, CreatedAt: i.Created.UnixNano(), Labels: m.Labels, Annotations: m.Annotations}
		})
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// ListContainers lists the containers of pods, the newest first.
func (s *Server) ListContainers(_ context.Context, r *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	items, err := s.containerItems(r.GetFilter())
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ListContainersResponse{}
	setItems(resp, items)
	return resp, nil
}

// StreamContainers is ListContainers in pieces.
func (s *Server) StreamContainers(r *runtimeapi.StreamContainersRequest, st runtimeapi.RuntimeService_StreamContainersServer) error {
	items, err := s.containerItems(r.GetFilter())
	if err != nil {
		return err
	}
	return inPieces(items, func(part [][]byte) error {
		resp := &runtimeapi.StreamContainersResponse{}
		setItems(resp, part)
		return st.Send(resp)
	})
}
