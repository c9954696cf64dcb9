// Package docker serves the Docker Engine API over an engine.Engine. It translates and decides nothing: a request
// becomes one of the engine's types, an answer one of Docker's. What Docker has and the engine has not is refused
// with 501 and a sentence that names it; nothing is silently dropped.
//
// Source: the Docker Engine API reference, versions 1.24 to 1.57.
package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"

	"cale/audit"
	"cale/engine"
)

// The versions of the API that are understood. A client that speaks none of them is told so.
const (
	APIVersion    = "1.57"
	minAPIVersion = "1.24"
)

// likeDocker is the version of Docker's engine that speaks this version of the API. Clients judge by the engine's version
// what it can do (Compose, minikube, editors), and take one below 20 for ancient; ours follows behind a plus.
const likeDocker = "30.0.0"

// maxBody bounds a request's JSON: the largest real ones (a seccomp profile in the security options) are some
// hundred kilobytes.
const maxBody = 8 << 20

// Options are facts about the daemon that the API reports, and what it may ask of the daemon.
type Options struct {
	Version string // the programs' version
	Commit  string // the source's
	// Registry starts or stops serving the image store as a registry; nil where the daemon offers none.
	Registry RegistryControl
	// Builder connects to the builder, which it starts if need be; nil where the daemon has none.
	Builder func(context.Context) (net.Conn, error)
	// Audit takes each request that changes something; may be nil.
	Audit func(audit.Entry)
}

// RegistryControl turns the daemon's own registry on and off.
type RegistryControl interface {
	Listen(RegistrySettings) (address string, err error)
	Stop(address string) error
	List() []RegistrySettings
}

// RegistrySettings say on what address and how the image store is served as a registry. Files are the daemon's.
type RegistrySettings struct {
	Address  string
	ReadOnly bool   `json:",omitempty"`
	Htpasswd string `json:",omitempty"` // file of the users that are let in; empty for those who may use the API
	Cert     string `json:",omitempty"` // file of the certificates for TLS, empty for plain HTTP
	Key      string `json:",omitempty"` // file of its private key
	Mirror   string `json:",omitempty"` // host of the registry that is mirrored
}

// Server answers the API's requests.
type Server struct {
	engine *engine.Engine
	opts   Options
}

// New makes the API's handler.
func New(e *engine.Engine, opts Options) *Server {
	return &Server{engine: e, opts: opts}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == "PRI" && r.RequestURI == "*" {
		if err := s.buildHTTP2(w, r); err != nil {
			fail(w, err)
		}
		return
	}
	path := r.URL.Path
	version := APIVersion
	if v, rest, ok := cutVersion(path); ok {
		version, path = v, rest
		if !versionLess(minAPIVersion, version) && version != minAPIVersion {
			fail(w, invalid("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", version, minAPIVersion))
			return
		}
		if versionLess(APIVersion, version) {
			fail(w, invalid("client version %s is too new. Maximum supported API version is %s", version, APIVersion))
			return
		}
	}
	w.Header().Set("Api-Version", APIVersion)
	w.Header().Set("Ostype", "linux")
	w.Header().Set("Server", "Cale/"+s.opts.Version+" (linux)")
	w.Header().Set("Docker-Experimental", strconv.FormatBool(engine.CanCheckpoint()))

	found, vars, known := find(r.Method, path)
	if found == nil {
		if known {
			writeError(w, http.StatusMethodNotAllowed, "method not allowed")
			return
		}
		writeError(w, http.StatusNotFound, "page not found")
		return
	}
	q := &request{Request: r, vars: vars, version: version}
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			log.Printf("%s %s: %v", r.Method, path, p)
			panic(p)
		}
	}()
	if err := s.audited(w, q, found); err != nil {
		fail(w, err)
	}
}

// request is an HTTP request with what the route and the version prefix said.
type request struct {
	*http.Request
	vars    map[string]string
	version string
}

func (r *request) name() string { return r.vars["name"] }

func (r *request) before(version string) bool { return versionLess(r.version, version) }

// flag reads a query parameter as Docker does: set and neither 0, no, false nor none.
func (r *request) flag(key string) bool {
	switch strings.ToLower(strings.TrimSpace(r.URL.Query().Get(key))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

func (r *request) text(key string) string { return r.URL.Query().Get(key) }

// decode reads the body's JSON into v. Without a body v stays as it is.
func (r *request) decode(v any) error {
	if err := r.checkJSON(); err != nil || r.ContentLength == 0 {
		return err
	}
	d := json.NewDecoder(io.LimitReader(r.Body, maxBody+1))
	if err := d.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			return errNoJSON
		}
		if d.InputOffset() >= maxBody {
			return invalid("the request's body is larger than %d bytes", maxBody)
		}
		return invalid("invalid JSON: %v", err)
	}
	if d.More() {
		return invalid("invalid JSON: unexpected content after JSON")
	}
	return nil
}

var errNoJSON = invalid("invalid JSON: got EOF while reading request body")

// checkJSON refuses a body that is said to be anything but JSON: a form that a browser was tricked into sending, say.
func (r *request) checkJSON() error {
	sent := r.Header.Get("Content-Type")
	if sent == "" && r.ContentLength == 0 {
		return nil
	}
	kind, _, err := mime.ParseMediaType(sent)
	if err != nil {
		return invalid("malformed Content-Type header (%s): %v", sent, err)
	}
	if kind != "application/json" {
		return invalid("unsupported Content-Type header (%s): must be 'application/json'", sent)
	}
	return nil
}

// detached is the request's context without its end: what a client started goes on when the client leaves.
func (r *request) detached() context.Context { return context.WithoutCancel(r.Context()) }

func cutVersion(path string) (version, rest string, ok bool) {
	if !strings.HasPrefix(path, "/v") {
		return "", path, false
	}
	end := strings.IndexByte(path[1:], '/')
	if end < 0 {
		return "", path, false
	}
	v := path[2 : end+1]
	if _, _, ok := splitVersion(v); !ok {
		return "", path, false
	}
	return v, path[end+1:], true
}

func splitVersion(v string) (major, minor int, ok bool) {
	a, b, found := strings.Cut(v, ".")
	if !found {
		return 0, 0, false
	}
	x, err1 := strconv.Atoi(a)
	y, err2 := strconv.Atoi(b)
	return x, y, err1 == nil && err2 == nil && x >= 0 && y >= 0
}

func versionLess(a, b string) bool {
	am, an, _ := splitVersion(a)
	bm, bn, _ := splitVersion(b)
	return am < bm || am == bm && an < bn
}

func writeError(w http.ResponseWriter, status int, message string) {
	_ = writeJSON(w, status, map[string]string{"message": message})
}

// fail answers with an error's own status, and its text as Docker's {"message": …}.
func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, engine.ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, engine.ErrConflict):
		status = http.StatusConflict
	case errors.Is(err, engine.ErrInvalid):
		status = http.StatusBadRequest
	case errors.Is(err, engine.ErrNotModified):
		w.WriteHeader(http.StatusNotModified)
		return
	case errors.Is(err, engine.ErrUnauthorized):
		status = http.StatusUnauthorized
	case errors.Is(err, engine.ErrForbidden):
		status = http.StatusForbidden
	case errors.Is(err, engine.ErrUnsupported):
		status = http.StatusNotImplemented
	case errors.Is(err, engine.ErrUnavailable):
		status = http.StatusServiceUnavailable
	case errors.Is(err, context.Canceled):
		status = 499
	}
	if bare := (bareError{}); errors.As(err, &bare) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, err.Error()+"\r\n")
		return
	}
	writeError(w, status, err.Error())
}

// bareError is told as a line of text, where clients expect a stream and no JSON.
type bareError struct{ error }

func (e bareError) Unwrap() error { return e.error }

// badRequest is a request that asks for something it may not.
type badRequest struct{ text string }

func (e badRequest) Error() string        { return e.text }
func (e badRequest) Is(target error) bool { return target == engine.ErrInvalid }

func invalid(format string, args ...any) error { return badRequest{fmt.Sprintf(format, args...)} }

// notBuilt is a request for what Docker has and Cale has not yet.
type notBuilt struct{ what string }

func (e notBuilt) Error() string        { return e.what + " is not built yet in Cale" }
func (e notBuilt) Is(target error) bool { return target == engine.ErrUnsupported }

func absent(what string) handler {
	return func(*Server, http.ResponseWriter, *request) error { return notBuilt{what} }
}
