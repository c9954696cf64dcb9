package cri

import (
	"context"
	"errors"
	"log"
	"net/netip"
	"strconv"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/engine"
)

// podMeta is what this package keeps with a pod: the request itself.
func podMeta(p *engine.PodState) *runtimeapi.RunPodSandboxRequest {
	return decode(p.ID, p.Spec.Meta, func() *runtimeapi.RunPodSandboxRequest {
		r := new(runtimeapi.RunPodSandboxRequest)
		_ = proto.Unmarshal(p.Spec.Meta, r) // we wrote it; what can't be read is empty
		if r.Config == nil {
			r.Config = &runtimeapi.PodSandboxConfig{}
		}
		if r.Config.Metadata == nil {
			r.Config.Metadata = &runtimeapi.PodSandboxMetadata{}
		}
		return r
	})
}

// RunPodSandbox makes a pod. The same request again gives the same pod.
func (s *Server) RunPodSandbox(ctx context.Context, r *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	m := r.GetConfig().GetMetadata()
	if m == nil {
		return nil, invalid("the sandbox has no metadata")
	}
	unlock, err := s.making.lock(ctx, "pod", m.Uid, m.Namespace, m.Name, strconv.FormatUint(uint64(m.Attempt), 10))
	if err != nil {
		return nil, err
	}
	defer unlock()
	for _, p := range s.engine.Pods() {
		if p.Ready && proto.Equal(podMeta(&p).Config.Metadata, m) {
			return &runtimeapi.RunPodSandboxResponse{PodSandboxId: p.ID}, nil
		}
	}
	spec, err := podSpec(r)
	if err != nil {
		return nil, err
	}
	defer s.telling.hold()()
	id, err := s.engine.RunPod(ctx, spec)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

func podSpec(r *runtimeapi.RunPodSandboxRequest) (spec engine.PodSpec, err error) {
	c := r.Config
	sec := c.GetLinux().GetSecurityContext()
	ns := sec.GetNamespaceOptions()
	spec = engine.PodSpec{
		Hostname: c.Hostname, HostNetwork: ns.GetNetwork() == runtimeapi.NamespaceMode_NODE,
		HostIPC: ns.GetIpc() == runtimeapi.NamespaceMode_NODE, HostPID: ns.GetPid() == runtimeapi.NamespaceMode_NODE,
		SharePID: ns.GetPid() == runtimeapi.NamespaceMode_POD,
		DNS:      c.GetDnsConfig().GetServers(), DNSSearch: c.GetDnsConfig().GetSearches(), DNSOptions: c.GetDnsConfig().GetOptions(),
		Sysctls: c.GetLinux().GetSysctls(), CgroupParent: c.GetLinux().GetCgroupParent(), Runtime: r.RuntimeHandler,
	}
	if spec.HostNetwork {
		spec.Hostname = ""
	}
	spec.NetworkArgs = map[string]string{"K8S_POD_NAMESPACE": c.Metadata.Namespace, "K8S_POD_NAME": c.Metadata.Name, "K8S_POD_UID": c.Metadata.Uid}
	if spec.NetworkOffers, err = networkOffers(c.Annotations); err != nil {
		return spec, err
	}
	if spec.User, err = idMap(ns.GetUsernsOptions()); err != nil {
		return spec, err
	}
	for _, p := range c.PortMappings {
		if p.HostPort <= 0 {
			continue
		}
		if p.ContainerPort <= 0 || p.ContainerPort > 65535 || p.HostPort > 65535 {
			return spec, invalid("port mapping %d to %d: not port numbers", p.HostPort, p.ContainerPort)
		}
		out := engine.Publish{HostPort: uint16(p.HostPort), Port: engine.Port{Number: uint16(p.ContainerPort)}}
		switch p.Protocol {
		case runtimeapi.Protocol_TCP:
			out.Protocol = "tcp"
		case runtimeapi.Protocol_UDP:
			out.Protocol = "udp"
		case runtimeapi.Protocol_SCTP:
			out.Protocol = "sctp"
		default:
			return spec, invalid("port mapping: unknown protocol %s", p.Protocol)
		}
		if p.HostIp != "" {
			if out.HostIP, err = netip.ParseAddr(p.HostIp); err != nil {
				return spec, invalid("port mapping: host address %q: %v", p.HostIp, err)
			}
		}
		spec.Publish = append(spec.Publish, out)
	}
	spec.Meta, err = proto.Marshal(r)
	return spec, err
}

// StopPodSandbox ends a pod's containers and frees its addresses; no such pod is no error.
func (s *Server) StopPodSandbox(ctx context.Context, r *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	defer s.telling.hold()()
	if err := s.engine.StopPod(ctx, r.PodSandboxId); err != nil && !errors.Is(err, engine.ErrNotFound) {
		return nil, err
	}
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

// RemovePodSandbox removes a pod and its containers, by force; no such pod is no error.
func (s *Server) RemovePodSandbox(ctx context.Context, r *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	defer s.telling.hold()()
	p, err := s.engine.Pod(r.PodSandboxId)
	if errors.Is(err, engine.ErrNotFound) {
		return &runtimeapi.RemovePodSandboxResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	if s.telling.plugins != nil {
		if err := s.engine.StopPod(ctx, p.ID); err != nil {
			log.Printf("cri: %v", err) // the removal tries again
		}
		if members, err := s.engine.Members(p.ID); err == nil {
			for k := range members {
				s.telling.removed(ctx, &members[k])
			}
		}
	}
	members, _ := s.engine.MemberStates(p.ID) // none, if it is gone meanwhile
	if err := s.engine.RemovePod(ctx, p.ID); err != nil && !errors.Is(err, engine.ErrNotFound) {
		return nil, err
	}
	for k := range members {
		s.usage.drop(members[k].ID)
		forget(members[k].ID)
	}
	forget(p.ID)
	if s.telling.plugins != nil {
		if err := s.telling.plugins.RemovePod(ctx, pluginPod(p)); err != nil {
			log.Printf("cri: plug-ins: removal of pod %s: %v", p.ID, err)
		}
	}
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

func podState(p *engine.PodState) runtimeapi.PodSandboxState {
	if p.Ready {
		return runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
}

// PodSandboxStatus tells all of one pod.
func (s *Server) PodSandboxStatus(ctx context.Context, r *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	p, err := s.engine.Pod(r.PodSandboxId)
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.PodSandboxStatusResponse{Status: s.podStatus(&p)}
	if r.Verbose {
		resp.Info = map[string]string{"info": "{" + `"pid":` + strconv.Itoa(p.Pid) + `,"netns":` + strconv.Quote(p.NetNS) + "}"}
	}
	return resp, nil
}

func (s *Server) podStatus(p *engine.PodInfo) *runtimeapi.PodSandboxStatus {
	m := podMeta(&p.PodState)
	st := &runtimeapi.PodSandboxStatus{
		Id: p.ID, Metadata: m.Config.Metadata, State: podState(&p.PodState), CreatedAt: p.Created.UnixNano(), Labels: m.Config.Labels,
		Annotations: m.Config.Annotations, RuntimeHandler: m.RuntimeHandler, Network: &runtimeapi.PodSandboxNetworkStatus{},
		Linux: &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: m.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()}},
	}
	if st.Linux.Namespaces.Options == nil {
		st.Linux.Namespaces.Options = &runtimeapi.NamespaceOption{}
	}
	for i, ip := range p.IPs {
		if i == 0 {
			st.Network.Ip = ip.String()
		} else {
			st.Network.AdditionalIps = append(st.Network.AdditionalIps, &runtimeapi.PodIP{Ip: ip.String()})
		}
	}
	return st
}

// UpdatePodSandboxResources tells what the kubelet has set on the pod's own group; that needs nothing of us.
func (s *Server) UpdatePodSandboxResources(ctx context.Context, r *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	p, err := s.engine.Pod(r.PodSandboxId)
	if err == nil && s.telling.plugins != nil {
		err = s.telling.plugins.UpdatePod(ctx, pluginPod(p), r.Overhead, r.Resources)
	}
	if err != nil {
		return nil, err
	}
	return &runtimeapi.UpdatePodSandboxResourcesResponse{}, nil
}

// idMatches takes a prefix, as crictl gives them.
func idMatches(id, want string) bool {
	return len(id) >= len(want) && id[:len(want)] == want
}

func labelsMatch(labels, want map[string]string) bool {
	for k, v := range want {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}
