package cli

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// engine is a fake engine on a socket: a handler for each "METHOD /path"
// (without version), and a list of what was asked.
type engine struct {
	host     string
	mu       sync.Mutex
	handlers map[string]http.HandlerFunc
	asked    []string
}

func newEngine(t *testing.T, handlers map[string]http.HandlerFunc) *engine {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "cale-cli")
	if err != nil {
		t.Skip("no /dev/shm for a socket: ", err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{host: "unix://" + path, handlers: handlers}
	s := &http.Server{Handler: e}
	go s.Serve(l)
	t.Cleanup(func() { s.Close(); os.RemoveAll(dir) })
	return e
}

func (e *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/_ping" {
		w.Header().Set("Api-Version", "1.48")
		io.WriteString(w, "OK")
		return
	}
	path := r.URL.Path
	if strings.HasPrefix(path, "/v1.48/") {
		path = strings.TrimPrefix(path, "/v1.48")
	}
	key := r.Method + " " + path
	e.mu.Lock()
	line := key
	if r.URL.RawQuery != "" {
		line += "?" + r.URL.RawQuery
	}
	e.asked = append(e.asked, line)
	h := e.handlers[key]
	e.mu.Unlock()
	if h == nil {
		answer(404, `{"message":"no handler for `+key+`"}`)(w, r)
		return
	}
	h(w, r)
}

func (e *engine) requests() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.asked...)
}

// answer answers with a status and a body.
func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// stream takes a connection over and lets f talk on it.
func stream(f func(rw io.ReadWriter)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		f(struct {
			io.Reader
			io.Writer
		}{rw.Reader, c})
	}
}

func frame(w io.Writer, stream byte, text string) {
	var head [8]byte
	head[0] = stream
	binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
	io.WriteString(w, string(head[:])+text)
}

// result is what a command line did.
type result struct {
	code     int
	out, err string
}

// cale runs a command line.
func cale(t *testing.T, in io.Reader, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	var out, errs bytes.Buffer
	if in == nil {
		in = strings.NewReader("")
	}
	code := Main(ctx, &App{In: in, Out: &out, Err: &errs}, args)
	if ctx.Err() != nil {
		t.Errorf("cale %q did not end in time", args)
	}
	return result{code, out.String(), errs.String()}
}

// cale runs a command line against the fake engine.
func (e *engine) cale(t *testing.T, args ...string) result {
	t.Helper()
	return cale(t, nil, append([]string{"-H", e.host}, args...)...)
}

func (r result) check(t *testing.T, code int, out, errs string) {
	t.Helper()
	if r.code != code || r.out != out || r.err != errs {
		t.Errorf("got code %d, out %q, err %q\nwant     %d, out %q, err %q", r.code, r.out, r.err, code, out, errs)
	}
}

// process is a fake container's life: attach, wait and start in their order.
type process struct {
	mu      sync.Mutex
	order   []string
	started chan struct{}
	ended   chan struct{}
}

func newProcess() *process {
	return &process{started: make(chan struct{}), ended: make(chan struct{})}
}

func (p *process) note(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.order = append(p.order, what)
}

// handlers are those of a container "id" that does run and ends with exit.
func (p *process) handlers(exit int, run func(rw io.ReadWriter)) map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"POST /containers/create": answer(201, `{"Id":"id","Warnings":["be careful"]}`),
		"POST /containers/id/attach": func(w http.ResponseWriter, r *http.Request) {
			p.note("attach")
			stream(func(rw io.ReadWriter) {
				<-p.started
				run(rw)
				close(p.ended)
			})(w, r)
		},
		"POST /containers/id/wait": func(w http.ResponseWriter, r *http.Request) {
			p.note("wait " + r.URL.Query().Get("condition"))
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			select {
			case <-p.ended:
			case <-r.Context().Done():
			}
			fmt.Fprintf(w, `{"StatusCode":%d}`, exit)
		},
		"POST /containers/id/start": func(w http.ResponseWriter, r *http.Request) {
			p.note("start")
			w.WriteHeader(204)
			close(p.started)
		},
	}
}
