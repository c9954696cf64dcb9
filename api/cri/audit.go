package cri

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/audit"
	"cale/audit/caller"
)

// changing are the calls that change something, or run something.
var changing = map[string]bool{
	"RunPodSandbox": true, "StopPodSandbox": true, "RemovePodSandbox": true, "UpdatePodSandboxResources": true,
	"CreateContainer": true, "StartContainer": true, "StopContainer": true, "RemoveContainer": true, "UpdateContainerResources": true,
	"ExecSync": true, "Exec": true, "Attach": true, "PortForward": true,
	"CheckpointContainer": true, "CheckpointPod": true, "RestorePod": true,
	"PullImage": true, "RemoveImage": true, "UpdateRuntimeConfig": true,
}

// audit writes a call that changes something down.
func (s *Server) audit(ctx context.Context, method string, req, resp any, err error) {
	name := path.Base(method)
	if s.opts.Audit == nil || !changing[name] {
		return
	}
	e := audit.Entry{API: "cri", Peer: caller.Of(ctx), Action: name, Request: method, Object: objectOf(req)}
	if r, ok := req.(interface{ GetCmd() []string }); ok {
		e.Command = r.GetCmd()
	}
	switch r := req.(type) {
	case *runtimeapi.RunPodSandboxRequest:
		e.Powers = podPowers(r.GetConfig())
	case *runtimeapi.RestorePodRequest:
		e.Powers = append(podPowers(r.GetConfig()), "checkpoint="+r.CheckpointPath)
	case *runtimeapi.CreateContainerRequest:
		e.Powers = containerPowers(r.GetConfig())
	}
	switch r := resp.(type) {
	case *runtimeapi.RunPodSandboxResponse:
		e.Made = r.GetPodSandboxId()
	case *runtimeapi.CreateContainerResponse:
		e.Made = r.GetContainerId()
	case *runtimeapi.PullImageResponse:
		e.Made = r.GetImageRef()
	}
	e.End(err)
	if name != "ExecSync" || s.probes.first(&e, time.Now()) {
		s.opts.Audit(e)
	}
}

// probes knows which commands were written down lately. Kubelets run the same ones every few seconds, with the same end:
// each time in a log that is turned over by its size they would leave no room for the rest.
type probes struct {
	mu   sync.Mutex
	seen map[[sha256.Size]byte]time.Time
}

const (
	probeAgain = time.Hour
	mostProbes = 4096
)

// first tells whether that command has ended so for who asks for the first time in an hour.
func (p *probes) first(e *audit.Entry, now time.Time) bool {
	key := sha256.Sum256(fmt.Appendf(nil, "%v %q %q %q", e.Peer, e.Object, e.Command, e.Outcome))
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.seen[key]) < probeAgain {
		return false
	}
	if p.seen == nil || len(p.seen) >= mostProbes {
		p.seen = map[[sha256.Size]byte]time.Time{}
	}
	p.seen[key] = now
	return true
}

// objectOf names what a request is about.
func objectOf(req any) string {
	switch r := req.(type) {
	case *runtimeapi.RunPodSandboxRequest:
		return podObject(r.GetConfig())
	case *runtimeapi.RestorePodRequest:
		return podObject(r.GetConfig())
	case *runtimeapi.CreateContainerRequest:
		return podObject(r.GetSandboxConfig()) + "/" + r.GetConfig().GetMetadata().GetName()
	case interface{ GetContainerId() string }:
		return r.GetContainerId()
	case interface{ GetPodSandboxId() string }:
		return r.GetPodSandboxId()
	case interface{ GetImage() *runtimeapi.ImageSpec }:
		return r.GetImage().GetImage()
	}
	return ""
}

func podObject(c *runtimeapi.PodSandboxConfig) string {
	return c.GetMetadata().GetNamespace() + "/" + c.GetMetadata().GetName()
}

// podPowers names what a pod is given of the host.
func podPowers(c *runtimeapi.PodSandboxConfig) (out []string) {
	sec := c.GetLinux().GetSecurityContext()
	if sec.GetPrivileged() {
		out = append(out, "privileged")
	}
	n := sec.GetNamespaceOptions()
	for _, ns := range []struct {
		what string
		mode runtimeapi.NamespaceMode
	}{{"network", n.GetNetwork()}, {"pid", n.GetPid()}, {"ipc", n.GetIpc()}} {
		if ns.mode == runtimeapi.NamespaceMode_NODE {
			out = append(out, ns.what+"=host")
		}
	}
	return out
}

// containerPowers names what a container is given of the host.
func containerPowers(c *runtimeapi.ContainerConfig) (out []string) {
	sec := c.GetLinux().GetSecurityContext()
	if sec.GetPrivileged() {
		out = append(out, "privileged")
	}
	for _, k := range sec.GetCapabilities().GetAddCapabilities() {
		out = append(out, "cap="+k)
	}
	for _, d := range c.GetDevices() {
		out = append(out, "device="+d.GetHostPath())
	}
	for _, d := range c.GetCDIDevices() {
		out = append(out, "device-request="+d.GetName())
	}
	for _, m := range c.GetMounts() {
		if m.GetHostPath() != "" {
			out = append(out, "bind="+m.GetHostPath())
		}
	}
	return out
}
