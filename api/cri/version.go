package cri

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/engine"
)

// Version names this runtime.
func (s *Server) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "cale", RuntimeVersion: s.opts.Version, RuntimeApiVersion: "v1"}, nil
}

// Status says whether the runtime is ready, and the network of pods.
func (s *Server) Status(ctx context.Context, r *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	resp := &runtimeapi.StatusResponse{
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Status: true},
		}},
		Features: &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true, UserNamespacesHostNetwork: engine.MapsOwners(), MountOptions: true},
	}
	if err := s.engine.PodNetworkReady(ctx); err != nil {
		ready := resp.Status.Conditions[1]
		ready.Status, ready.Reason, ready.Message = false, "NetworkPluginNotReady", err.Error()
	}
	runtimes, err := s.engine.RuntimeList(ctx)
	if err != nil {
		ready := resp.Status.Conditions[0]
		ready.Status, ready.Reason, ready.Message = false, "RuntimeSettings", err.Error()
	}
	for _, name := range slices.Sorted(maps.Keys(runtimes)) {
		f := runtimes[name]
		resp.RuntimeHandlers = append(resp.RuntimeHandlers, &runtimeapi.RuntimeHandler{Name: name,
			Features: &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: f.RecursiveReadOnly, UserNamespaces: f.UserNamespaces}})
	}
	if r.Verbose {
		config, err := json.Marshal(struct {
			Version       string `json:"version"`
			Root          string `json:"root"`
			StreamAddress string `json:"streamAddress"`
			AllowRestore  bool   `json:"allowRestore"`
			Plugins       bool   `json:"plugins"`
		}{s.opts.Version, s.opts.Root, s.listen.Addr().String(), s.opts.AllowRestore, s.telling.plugins != nil})
		if err != nil {
			return nil, err
		}
		resp.Info = map[string]string{"config": string(config)}
	}
	return resp, nil
}

// RuntimeConfig says which cgroup driver the kubelet has to use.
func (s *Server) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: runtimeapi.CgroupDriver_CGROUPFS}}, nil
}

// UpdateRuntimeConfig takes note of the node's pod CIDR, which has no meaning here: pods are on the engine's bridge.
func (s *Server) UpdateRuntimeConfig(context.Context, *runtimeapi.UpdateRuntimeConfigRequest) (*runtimeapi.UpdateRuntimeConfigResponse, error) {
	return &runtimeapi.UpdateRuntimeConfigResponse{}, nil
}
