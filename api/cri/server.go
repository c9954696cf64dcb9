// Package cri translates the Kubernetes Container Runtime Interface, version 1, to calls of the engine. What a pod and
// its containers were asked to be is kept with them in the engine's records, in the protocol's own encoding: this
// package has no state on disk.
package cri

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/audit"
	"cale/audit/caller"
	"cale/engine"
)

// maxMessage bounds a request and an answer: 16 MiB, as the kubelet's client does.
const maxMessage = 16 << 20

// containersDir is where the engine keeps what containers write, below its Root.
const containersDir = "containers"

// Options says what is served beside the engine.
type Options struct {
	Version string // of this program
	// Root is the engine's Root: where images and containers take up space.
	Root string
	// StreamAddress is where exec, attach and port-forward connect to; "" is a free port of 127.0.0.1.
	StreamAddress string
	// AllowRestore lets clients have containers go on from checkpoints. CRIU reads those as root and does what they say,
	// so one from elsewhere is as good as a program that is run as root.
	AllowRestore bool
	// Audit takes what clients have asked to be changed; nil is nobody.
	Audit func(audit.Entry)
	// Plugins starts what takes part in decisions about pods; nil is nothing.
	Plugins func(Node) (Plugins, error)
}

// Server answers the CRI's calls.
type Server struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer

	engine  *engine.Engine
	opts    Options
	grpc    *grpc.Server
	tokens  tokens
	telling telling
	end     context.CancelFunc
	web     *http.Server
	listen  net.Listener
	active  atomic.Int64

	writtenAt string // where containers' files are
	making    keyed  // pods and containers being made, by what names them
	usage     usageCache
	probes    probes
}

// New makes a server and opens the port for streams. Close frees it.
func New(e *engine.Engine, o Options) (*Server, error) {
	if o.StreamAddress == "" {
		o.StreamAddress = "127.0.0.1:0"
	}
	s := &Server{engine: e, opts: o, writtenAt: filepath.Join(o.Root, containersDir)}
	s.telling.s = s
	ctx, end := context.WithCancel(context.Background())
	s.end = end
	if o.Plugins != nil {
		plugins, err := o.Plugins(Node{s})
		if err != nil {
			end()
			return nil, fmt.Errorf("plug-ins: %w", err)
		}
		s.telling.plugins = plugins
		e.HookPods(s.telling.hooks())
		go s.telling.watch(ctx)
	}
	l, err := net.Listen("tcp", o.StreamAddress)
	if err != nil {
		return nil, fmt.Errorf("streaming server: %w", err)
	}
	s.listen = l
	s.web = &http.Server{Handler: http.HandlerFunc(s.serveStream), ReadHeaderTimeout: 30 * time.Second, MaxHeaderBytes: 64 << 10}
	s.grpc = grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage), grpc.WaitForHandlers(true), grpc.Creds(caller.Credentials()), grpc.ForceServerCodecV2(newCodec()),
		grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream))
	runtimeapi.RegisterRuntimeServiceServer(s.grpc, s)
	runtimeapi.RegisterImageServiceServer(s.grpc, s)
	go s.web.Serve(l)
	return s, nil
}

// Listen makes the socket of the API; only root may use it.
func Listen(path string) (net.Listener, error) {
	if len(path) > 107 {
		return nil, fmt.Errorf("socket %s: the path is longer than the 107 bytes the kernel takes: choose a shorter --run", path)
	}
	// The engine holds the instance's lock: whoever left this file is dead.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return l, nil
}

// Serve answers on l until Close.
func (s *Server) Serve(l net.Listener) error { return s.grpc.Serve(l) }

// Busy says whether a call is being answered.
func (s *Server) Busy() bool { return s.active.Load() > 0 }

// Close ends all calls and streams.
func (s *Server) Close() {
	s.engine.Ending()
	s.grpc.Stop()
	s.web.Close()
	s.end()
	if s.telling.plugins != nil {
		s.telling.plugins.Close()
	}
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	s.active.Add(1)
	defer s.active.Add(-1)
	resp, err := next(ctx, req)
	s.audit(ctx, info.FullMethod, req, resp, err)
	return resp, coded(err)
}

func (s *Server) stream(srv any, st grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return coded(next(srv, st))
}

// coded gives an error of the engine its code in gRPC.
func coded(err error) error {
	if err == nil {
		return nil
	}
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	code := codes.Unknown
	switch {
	case errors.Is(err, engine.ErrNotFound):
		code = codes.NotFound
	case errors.Is(err, engine.ErrInvalid):
		code = codes.InvalidArgument
	case errors.Is(err, engine.ErrConflict):
		code = codes.FailedPrecondition
	case errors.Is(err, engine.ErrForbidden):
		code = codes.PermissionDenied
	case errors.Is(err, engine.ErrUnauthorized):
		code = codes.Unauthenticated
	case errors.Is(err, engine.ErrUnsupported):
		code = codes.Unimplemented
	case errors.Is(err, engine.ErrUnavailable):
		code = codes.Unavailable
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	}
	return status.Error(code, err.Error())
}

func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

// keyed lets one at a time make what one name stands for: a call that is repeated while the first still runs waits
// for it, and finds what it made.
type keyed struct {
	mu    sync.Mutex
	locks map[string]*keyLock
}

type keyLock struct {
	held chan struct{}
	refs int
}

func (k *keyed) lock(ctx context.Context, parts ...string) (unlock func(), err error) {
	name := strings.Join(parts, "\x00")
	k.mu.Lock()
	l := k.locks[name]
	if l == nil {
		l = &keyLock{held: make(chan struct{}, 1)}
		if k.locks == nil {
			k.locks = map[string]*keyLock{}
		}
		k.locks[name] = l
	}
	l.refs++
	k.mu.Unlock()
	drop := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.refs--; l.refs == 0 {
			delete(k.locks, name)
		}
	}
	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; drop() }, nil
	case <-ctx.Done():
		drop()
		return nil, ctx.Err()
	}
}
