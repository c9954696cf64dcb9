package docker

import (
	"context"
	"fmt"

	"cale/audit"
	"cale/engine"
)

type peerKey struct{}

// WithPeer notes on a connection's context who is at its other end.
func WithPeer(ctx context.Context, p *audit.Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// peerOf is who WithPeer noted, or nil.
func peerOf(ctx context.Context) *audit.Peer {
	p, _ := ctx.Value(peerKey{}).(*audit.Peer)
	return p
}

// audit records an action that came with powers; one with none leaves no line.
func (s *Server) audit(ctx context.Context, action, object string, powers []string, err error) {
	if s.opts.Audit == nil || len(powers) == 0 {
		return
	}
	e := audit.Entry{Peer: peerOf(ctx), Action: action, Object: object, Powers: powers, Outcome: "done"}
	if err != nil {
		e.Outcome = err.Error()
	}
	s.opts.Audit(e)
}

// powers names what a container is given of the host.
func powers(s *engine.Spec) []string {
	var out []string
	add := func(is bool, what string) {
		if is {
			out = append(out, what)
		}
	}
	add(s.Security.Privileged, "privileged")
	add(s.PidMode == "host", "pid=host")
	add(s.IpcMode == "host", "ipc=host")
	add(s.UTSMode == "host", "uts=host")
	add(s.CgroupnsMode == "host", "cgroupns=host")
	add(s.Network.Mode == "host", "network=host")
	add(s.Security.Seccomp == "unconfined", "seccomp=unconfined")
	add(s.Security.SystemPaths == "unconfined", "systempaths=unconfined")
	for _, c := range s.Security.CapAdd {
		out = append(out, "cap="+c)
	}
	for _, d := range s.Resources.Devices {
		out = append(out, "device="+d.Host)
	}
	for _, r := range s.Resources.DeviceRequests { // vendors' descriptions may have mounts and hooks as well
		for _, id := range r.IDs {
			out = append(out, "device-request="+id)
		}
		if len(r.IDs) == 0 {
			out = append(out, fmt.Sprintf("device-request=%d %v", r.Count, r.Capabilities))
		}
	}
	for _, r := range s.Resources.DeviceCgroupRules {
		out = append(out, "device-rule="+r)
	}
	for _, m := range s.Mounts {
		if m.Type == "bind" {
			out = append(out, "bind="+m.Source)
		}
		out = append(out, devicePowers(m.DriverOpts)...)
	}
	return out
}

// devicePowers names what a volume of the local driver mounts from the host, if it does: a bind by another name.
func devicePowers(options map[string]string) []string {
	if options["device"] == "" {
		return nil
	}
	return []string{"volume-device=" + options["device"] + " type=" + options["type"] + " o=" + options["o"]}
}
