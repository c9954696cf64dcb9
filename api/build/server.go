package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	control "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/moby/api/types/build"

	"cale/audit"
)

// Server answers the build calls of Docker's Engine API.
type Server struct {
	split    *Split
	sessions *session.Manager
	mux      *http.ServeMux
	mounts   Mounts
	builds   builds
}

// NewServer serves over the builder that split's HTTP2 connections come to,
// whose sessions and cache mounts these are.
func NewServer(split *Split, sessions *session.Manager, mounts Mounts) *Server {
	s := &Server{split: split, sessions: sessions, mounts: mounts, mux: http.NewServeMux(), builds: builds{cancel: map[string]context.CancelFunc{}}}
	for path, do := range map[string]func(http.ResponseWriter, *http.Request) error{
		"POST /session": s.session, "POST /grpc": s.grpc, "POST /build": s.build, "POST /build/cancel": s.cancel,
		"POST /build/prune": s.prune, "GET /build/cache": s.cache, "GET " + MountsPath: s.exportMounts, "POST " + MountsPath: s.importMounts,
	} {
		s.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if err := do(w, r); err != nil {
				// Who is still sending a context would see a broken connection, not the answer.
				_, _ = io.CopyN(io.Discard, r.Body, mostRefused)
				fail(w, err)
			}
		})
	}
	return s
}

// mostRefused bounds what is read, in bytes, of a request that is refused.
const mostRefused = 64 << 20

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// invalid is a request that cannot be fulfilled as it is.
type invalid string

func (e invalid) Error() string { return string(e) }

func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	var bad invalid
	if errors.As(err, &bad) {
		status = http.StatusBadRequest
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": err.Error()})
}

// session lets the builder ask the client for what it has: files, secrets,
// credentials. The connection is taken over.
func (s *Server) session(w http.ResponseWriter, r *http.Request) error {
	return s.sessions.HandleHTTPRequest(context.WithoutCancel(r.Context()), w, r)
}

// grpc makes the connection one of BuildKit's API.
func (s *Server) grpc(w http.ResponseWriter, r *http.Request) error {
	if r.Header.Get("Upgrade") != "h2c" {
		return invalid("no upgrade to h2c is asked for")
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"); err != nil {
		conn.Close()
		return nil
	}
	rest, _ := buf.Peek(buf.Reader.Buffered())
	s.split.v2.put(&audit.For{Conn: &ahead{Conn: conn, rest: append([]byte(nil), rest...)}, Peer: peerOf(r)})
	return nil
}

// client speaks with the builder for whoever has sent r.
func (s *Server) client(r *http.Request) (*client.Client, error) {
	return client.New(r.Context(), "unix:///builder", client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return s.split.DialFor(ctx, peerOf(r))
	}))
}

type connKey struct{}

// ConnContext notes on a connection's context who is at its other end; it is
// for the http.Server that serves with this Server.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, audit.PeerOf(c))
}

// peerOf is who has sent a request.
func peerOf(r *http.Request) *audit.Peer {
	from, _ := r.Context().Value(connKey{}).(*audit.Peer)
	return audit.RequestPeer(r.Header, from)
}

// Mounts are what steps keep in cache mounts, as archives.
type Mounts interface {
	Export(ctx context.Context, w io.Writer, ids []string) error
	Import(ctx context.Context, r io.Reader) error
}

// MountsPath is where the builder gives and takes its cache mounts: a call of
// ours, not Docker's.
const MountsPath = "/cale/build/mounts"

func (s *Server) exportMounts(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Type", "application/x-tar")
	out := &begun{Writer: w}
	err := s.mounts.Export(r.Context(), out, r.URL.Query()["id"])
	if err != nil && out.yes {
		log.Printf("export cache mounts: %v", err)
		panic(http.ErrAbortHandler) // an archive that ends early is not to look whole
	}
	return err
}

// begun notes whether anything was written.
type begun struct {
	io.Writer
	yes bool
}

func (b *begun) Write(p []byte) (int, error) {
	b.yes = true
	return b.Writer.Write(p)
}

func (s *Server) importMounts(w http.ResponseWriter, r *http.Request) error {
	if err := s.mounts.Import(r.Context(), r.Body); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// cache lists what the build cache holds, as GET /system/df has it.
func (s *Server) cache(w http.ResponseWriter, r *http.Request) error {
	c, err := s.client(r)
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := c.DiskUsage(r.Context())
	if err != nil {
		return err
	}
	out := make([]build.CacheRecord, 0, len(list))
	for _, u := range list {
		out = append(out, build.CacheRecord{
			ID: u.ID, Parents: u.Parents, Type: string(u.RecordType), Description: u.Description, InUse: u.InUse, Shared: u.Shared,
			Size: u.Size, CreatedAt: u.CreatedAt, LastUsedAt: u.LastUsedAt, UsageCount: u.UsageCount,
		})
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(out)
}

// prune removes what of the cache is not in use.
func (s *Server) prune(w http.ResponseWriter, r *http.Request) error {
	opts, err := pruneOptions(r)
	if err != nil {
		return err
	}
	c, err := s.client(r)
	if err != nil {
		return err
	}
	defer c.Close()
	ch := make(chan client.UsageInfo)
	done := make(chan build.CachePruneReport)
	go func() {
		report := build.CachePruneReport{CachesDeleted: []string{}}
		for u := range ch {
			report.CachesDeleted = append(report.CachesDeleted, u.ID)
			report.SpaceReclaimed += uint64(u.Size)
		}
		done <- report
	}()
	err = c.Prune(r.Context(), ch, opts...)
	close(ch)
	report := <-done
	if err == nil && flag(r.URL.Query().Get("all")) && r.URL.Query().Get("filters") == "" {
		err = forget(r.Context(), c)
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(report)
}

// forget removes the records of builds that have ended, and with them what is
// kept for these.
func forget(ctx context.Context, c *client.Client) error {
	api := c.ControlClient()
	records, err := api.ListenBuildHistory(ctx, &control.BuildHistoryRequest{EarlyExit: true})
	if err != nil {
		return err
	}
	for {
		e, err := records.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if e.Type != control.BuildHistoryEventType_COMPLETE {
			continue
		}
		if _, err := api.UpdateBuildHistory(ctx, &control.UpdateBuildHistoryRequest{Ref: e.Record.Ref, Delete: true}); err != nil {
			return fmt.Errorf("forget build %s: %w", e.Record.Ref, err)
		}
	}
}

func pruneOptions(r *http.Request) (out []client.PruneOption, err error) {
	q := r.URL.Query()
	if flag(q.Get("all")) {
		out = append(out, client.PruneAll)
	}
	space := map[string]int64{}
	for _, key := range []string{"keep-storage", "reserved-space", "max-used-space", "min-free-space"} {
		if v := q.Get(key); v != "" {
			if space[key], err = strconv.ParseInt(v, 10, 64); err != nil {
				return nil, invalid(fmt.Sprintf("%s is not a number of bytes: %q", key, v))
			}
		}
	}
	keep := time.Duration(0)
	var filters map[string]map[string]bool
	if v := q.Get("filters"); v != "" {
		if err := json.Unmarshal([]byte(v), &filters); err != nil {
			return nil, invalid("filters: " + err.Error())
		}
	}
	var match []string
	for key, values := range filters {
		for v := range values {
			switch key {
			case "until", "unused-for":
				if keep, err = time.ParseDuration(v); err != nil {
					return nil, invalid(fmt.Sprintf("filter %s=%q is not a duration", key, v))
				}
			case "id", "parent", "type", "description", "inuse", "shared", "private":
				match = append(match, key+"=="+v)
			default:
				return nil, invalid("unsupported build cache filter: " + key)
			}
		}
	}
	reserved := max(space["keep-storage"], space["reserved-space"])
	out = append(out, client.WithKeepOpt(keep, reserved, space["max-used-space"], space["min-free-space"]))
	if len(match) > 0 {
		out = append(out, client.WithFilter([]string{strings.Join(match, ",")}))
	}
	return out, nil
}

// flag reads a query parameter as Docker does.
func flag(v string) bool {
	switch strings.ToLower(strings.TrimSpace(v)) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// writer sends one JSON value after the other.
type writer struct {
	w    http.ResponseWriter
	sent bool
}

func (o *writer) send(v any) {
	if !o.sent {
		o.w.Header().Set("Content-Type", "application/json")
		o.w.WriteHeader(http.StatusOK)
		o.sent = true
	}
	e := json.NewEncoder(o.w)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		log.Printf("answer a build: %v", err) // the client has left; its request's context ends the build
		return
	}
	_ = http.NewResponseController(o.w).Flush()
}
