package docker

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

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

type entryKey struct{}

// quiet are requests that change nothing, or that others write down: builds are the builder's.
var quiet = map[string]bool{
	"/auth": true, "/containers/{name*}/wait": true, "/containers/{name*}/resize": true, "/exec/{name}/resize": true,
	"/session": true, "/grpc": true, "/build": true, "/build/cancel": true, "/cale/image/{name*}/verify": true,
}

// begun are requests that last as long as a client likes, and are written down when they begin.
var begun = map[string]bool{"/containers/{name*}/attach": true, "/containers/{name*}/attach/ws": true, "/exec/{name}/start": true}

// audited answers a request, and writes it down if it changes something.
func (s *Server) audited(w http.ResponseWriter, q *request, r *route) error {
	changes := r.method != http.MethodGet && r.method != http.MethodHead || begun[r.path]
	if s.opts.Audit == nil || !changes || quiet[r.path] || strings.HasPrefix(r.path, "/cale/build/") {
		return r.do(s, w, q)
	}
	e := &audit.Entry{API: "docker", Peer: peerOf(q.Context()), Action: r.action(), Request: q.Method + " " + q.URL.Path, Object: q.object()}
	if q.URL.RawQuery != "" && q.text("fromSrc") == "" { // whose address may have a password
		e.Request += "?" + q.URL.RawQuery
	}
	if begun[r.path] {
		e.Outcome = "begun"
		s.opts.Audit(*e)
	}
	q.Request = q.Request.WithContext(context.WithValue(q.Context(), entryKey{}, e))
	err := r.do(s, w, q)
	switch {
	case begun[r.path] && err == nil:
		return nil
	case e.Outcome == "" || begun[r.path]: // else a stream has told how it went
		e.End(err)
	}
	s.opts.Audit(*e)
	return err
}

// action is what a route does, in words: container start.
func (r *route) action() string {
	var words []string
	for part := range strings.SplitSeq(r.path, "/") {
		if part != "" && part[0] != '{' && part != "cale" && part != "ws" {
			words = append(words, part)
		}
	}
	words[0] = strings.TrimSuffix(words[0], "s")
	if r.method == http.MethodDelete {
		words = append(words, "remove")
	} else if len(words) == 1 {
		words = append(words, "set")
	}
	return strings.Join(words, " ")
}

// object is what a request names.
func (r *request) object() string {
	if n := r.vars["name"]; n != "" {
		return n
	}
	for _, key := range []string{"name", "fromImage", "fromSrc", "container", "names"} {
		if text := r.text(key); text != "" {
			if u, err := url.Parse(text); err == nil && key == "fromSrc" {
				text = u.Redacted()
			}
			if tag := r.text("tag"); tag != "" && key == "fromImage" {
				text += ":" + tag
			}
			return text
		}
	}
	return ""
}

// entryOf is the line that is being written for a request.
func entryOf(ctx context.Context) *audit.Entry {
	if e, ok := ctx.Value(entryKey{}).(*audit.Entry); ok {
		return e
	}
	return &audit.Entry{} // nobody's
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
