package build

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	control "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/protobuf/proto"
)

// builds are those under way, by the id that the client gave.
type builds struct {
	mu     sync.Mutex
	cancel map[string]context.CancelFunc
}

func (b *builds) add(id string, cancel context.CancelFunc) (remove func()) {
	if id == "" {
		return func() {}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cancel[id] = cancel
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.cancel, id)
	}
}

// cancel ends a build of this id.
func (s *Server) cancel(w http.ResponseWriter, r *http.Request) error {
	id := r.URL.Query().Get("id")
	if id == "" {
		return invalid("build ID not provided")
	}
	s.builds.mu.Lock()
	end := s.builds.cancel[id]
	s.builds.mu.Unlock()
	if end != nil {
		end()
	}
	return nil
}

// build is POST /build.
func (s *Server) build(w http.ResponseWriter, r *http.Request) error {
	a, err := read(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer s.builds.add(a.id, cancel)()
	out := &writer{w: w}
	c, err := s.client(r)
	if err != nil {
		return err
	}
	defer c.Close()
	shown := make(chan struct{})
	status := make(chan *client.SolveStatus)
	var show func(<-chan *client.SolveStatus)
	if a.buildkit {
		show = traces{out}.show
	} else {
		show = (&steps{out: out, quiet: a.quiet}).show
	}
	go func() {
		defer close(shown)
		show(status)
	}()
	response, err := s.solve(ctx, c, a, r.Body, status)
	<-shown
	if err != nil {
		if !out.sent && !a.buildkit && badInput(err) {
			return invalid(err.Error())
		}
		out.send(failure(err))
		return nil
	}
	id := response[exptypes.ExporterImageConfigDigestKey]
	switch {
	case id == "":
	case a.buildkit:
		out.send(map[string]any{"id": "moby.image.id", "aux": map[string]string{"ID": id}})
	default:
		out.send(map[string]any{"aux": map[string]string{"ID": id}})
		if a.quiet {
			out.send(stream(id + "\n"))
			break
		}
		out.send(stream("Successfully built " + strings.TrimPrefix(id, "sha256:")[:12] + "\n"))
		for _, n := range a.names {
			out.send(stream("Successfully tagged " + familiar(n) + "\n"))
		}
	}
	return nil
}

// solve has the builder do it. The client's own session is used if it has one;
// else the context comes with the request.
func (s *Server) solve(ctx context.Context, c *client.Client, a *asked, body io.Reader, status chan *client.SolveStatus) (map[string]string, error) {
	opt := client.SolveOpt{
		Frontend: "dockerfile.v0", FrontendAttrs: a.attrs, CacheImports: a.caches, AllowedEntitlements: a.allow,
		LocalMounts: map[string]fsutil.FS{}, Exports: []client.ExportEntry{a.export},
	}
	if a.inline {
		opt.CacheExports = []client.CacheOptionsEntry{{Type: "inline", Attrs: map[string]string{}}}
	}
	if a.session != "" && (a.buildkit || a.remote == "client-session") {
		return s.solveWith(ctx, c, a, opt, body, status)
	}
	opt.Session = []session.Attachable{authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{
		AuthConfigProvider: authprovider.LoadAuthConfig(a.auth),
	})}
	if a.remote != "" {
		a.attrs["context"] = a.remote
	} else {
		up := uploadprovider.New()
		a.attrs["context"] = up.Add(io.NopCloser(body))
		opt.Session = append(opt.Session, up)
	}
	r, err := c.Solve(ctx, nil, opt, status)
	if err != nil {
		return nil, err
	}
	return r.ExporterResponse, nil
}

// solveWith uses the session that the client has opened, under the id by which
// it asks for traces.
func (s *Server) solveWith(ctx context.Context, c *client.Client, a *asked, opt client.SolveOpt, body io.Reader, status chan *client.SolveStatus) (map[string]string, error) {
	defer close(status)
	switch a.remote {
	case "client-session", "":
	case "upload-request":
		return nil, invalid("a context by upload-request is not built yet in Cale")
	default:
		a.attrs["context"] = a.remote
	}
	ref := identity.NewID()
	api := c.ControlClient()
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		st, err := api.Status(watch, &control.StatusRequest{Ref: ref})
		for err == nil {
			var m *control.StatusResponse
			if m, err = st.Recv(); err == nil {
				status <- client.NewSolveStatus(m)
			}
		}
	}()
	req := &control.SolveRequest{
		Ref: ref, Session: a.session, Frontend: opt.Frontend, FrontendAttrs: a.attrs, Entitlements: a.allow,
		Exporters: []*control.Exporter{{Type: a.export.Type, Attrs: a.export.Attrs}}, Cache: &control.CacheOptions{},
	}
	for _, i := range opt.CacheImports {
		req.Cache.Imports = append(req.Cache.Imports, &control.CacheOptionsEntry{Type: i.Type, Attrs: i.Attrs})
	}
	for _, e := range opt.CacheExports {
		req.Cache.Exports = append(req.Cache.Exports, &control.CacheOptionsEntry{Type: e.Type, Attrs: e.Attrs})
	}
	r, err := api.Solve(ctx, req)
	if err != nil {
		stop()
	}
	<-watched
	if err != nil {
		return nil, err
	}
	return r.ExporterResponse, nil
}

// traces passes the builder's status on as it is.
type traces struct{ out *writer }

func (t traces) show(ch <-chan *client.SolveStatus) {
	for st := range ch {
		for _, m := range st.Marshal() {
			raw, err := proto.Marshal(m)
			if err != nil {
				continue
			}
			t.out.send(map[string]any{"id": "moby.buildkit.trace", "aux": raw})
		}
	}
}

// badInput tells an archive that is none, and a Dockerfile that can't be read.
func badInput(err error) bool {
	text := err.Error()
	return errors.Is(err, bufio.ErrBufferFull) || strings.Contains(text, "failed to read dockerfile") || strings.Contains(text, "Dockerfile cannot be empty") ||
		strings.Contains(text, "file with no instructions") || strings.Contains(text, "dockerfile parse error")
}
