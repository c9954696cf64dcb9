package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/buildkit/cache/remotecache"
	inlinecache "github.com/moby/buildkit/cache/remotecache/inline"
	localcache "github.com/moby/buildkit/cache/remotecache/local"
	registrycache "github.com/moby/buildkit/cache/remotecache/registry"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/frontend"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway"
	gatewayclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/gateway/forwarder"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	"github.com/moby/buildkit/util/db/boltutil"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/buildkit/util/tracing"
	"github.com/moby/buildkit/util/tracing/detect"
	"github.com/moby/buildkit/worker"
	bolt "go.etcd.io/bbolt"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"cale/audit"
	"cale/audit/caller"
	"cale/build/cachemount"
	"cale/build/lent"
	"cale/build/names"
	"cale/build/step"
	"cale/network"
)

// maxMessage bounds a message on the API in bytes, as BuildKit's clients do.
const maxMessage = 16 << 20

// Builder is a builder that is open. One process at a time has one on a Root.
type Builder struct {
	opts       Options
	books      *books
	nets       *network.Store
	worker     *worker.Controller
	controller *control.Controller
	steps      *step.Runner
	sessions   *session.Manager
	mounts     *cachemount.Mounts
	folders    *lent.Source
	server     *grpc.Server
	stop       chan struct{}
}

// Open opens the builder. ctx bounds the opening alone.
func Open(ctx context.Context, o Options) (*Builder, error) {
	b, err := open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open the builder: %w", err)
	}
	return b, nil
}

func init() {
	setVersion()
	detect.ServiceName = "cale-build"
	// What a build did, when, is a part of its history.
	detect.Recorder = detect.NewTraceRecorder()
}

func open(ctx context.Context, o Options) (_ *Builder, err error) {
	if err := os.Unsetenv(forceOverlay); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	if o.Audit == nil {
		o.Audit = func(audit.Entry) {}
	}
	b := &Builder{opts: o, stop: make(chan struct{})}
	run := filepath.Join(o.Run, "build")
	b.nets, err = network.Open(network.Config{
		StateDir: filepath.Join(run, "networks"), RunDir: filepath.Join(run, "network"), Name: network.InstanceName(run),
		Warn: func(text string) { o.Log("network: %s", text) },
	})
	if err != nil {
		return nil, err
	}
	if b.books, err = openBooks(ctx, o); err != nil {
		return nil, err
	}
	sessions, err := session.NewManager()
	if err != nil {
		return nil, err
	}
	w, steps, err := newWorker(ctx, o, b.books, b.nets)
	if err != nil {
		return nil, err
	}
	b.steps, b.sessions = steps, sessions
	// What steps were at work on when the last builder ended: a disk that it
	// fills would end this one's builds.
	if _, err := b.books.meta.GarbageCollect(ctx); err != nil {
		return nil, err
	}
	w.SourceManager.Register(judged{w.ImageSource, o.Keeper})
	if b.mounts, err = cachemount.New(w.CacheMgr, filepath.Join(b.books.dir, "mounts")); err != nil {
		return nil, err
	}
	w.CacheMgr = b.mounts.Manager()
	if b.folders, err = lent.NewSource(w.CacheMgr); err != nil {
		return nil, err
	}
	w.SourceManager.Register(b.folders)
	b.worker = &worker.Controller{}
	if err := b.worker.Add(storing{preferred{w, &names.Store{Keeper: o.Keeper}, b.books.blobs}}); err != nil {
		return nil, err
	}
	cache, err := bboltcachestorage.NewStore(filepath.Join(b.books.dir, "cache.db"))
	if err != nil {
		return nil, err
	}
	history, err := boltutil.SafeOpen(filepath.Join(b.books.dir, "history.db"), 0o600, &bolt.Options{
		FreelistType: bolt.FreelistMapType, NoFreelistSync: true, NoSync: true,
	})
	if err != nil {
		return nil, err
	}
	frontends, err := b.frontends()
	if err != nil {
		return nil, err
	}
	entitlements := o.Config.Entitlements
	if o.Config.CDI.Disabled == nil || !*o.Config.CDI.Disabled {
		entitlements = append(entitlements, "device")
	}
	env, err := provenanceEnv(o.Config.ProvenanceEnvDir)
	if err != nil {
		return nil, err
	}
	hosts := w.RegistryHosts
	b.controller, err = control.NewController(control.Opt{
		SessionManager:   sessions,
		WorkerController: b.worker,
		Frontends:        frontends,
		ResolveCacheExporterFuncs: map[string]remotecache.ResolveCacheExporterFunc{
			"registry": registrycache.ResolveCacheExporterFunc(sessions, hosts),
			"local":    localcache.ResolveCacheExporterFunc(sessions),
			"inline":   inlinecache.ResolveCacheExporterFunc(),
		},
		ResolveCacheImporterFuncs: map[string]remotecache.ResolveCacheImporterFunc{
			"registry": registrycache.ResolveCacheImporterFunc(sessions, w.ContentStore(), hosts),
			"local":    localcache.ResolveCacheImporterFunc(sessions),
		},
		CacheManager:   solver.NewCacheManager(ctx, "local", cache, worker.NewCacheResultStorage(b.worker)),
		Entitlements:   entitlements,
		TraceCollector: detect.Recorder,
		MeterProvider:  noop.NewMeterProvider(),
		HistoryDB:      history,
		CacheStore:     cache,
		LeaseManager:   w.LeaseManager(),
		ContentStore:   w.ContentStore(),
		HistoryConfig:  o.Config.History,
		GarbageCollect: w.GarbageCollect,
		GracefulStop:   b.stop,
		ProvenanceEnv:  env,
	})
	if err != nil {
		return nil, err
	}
	tracer := sdktrace.NewTracerProvider(sdktrace.WithResource(detect.Resource()), sdktrace.WithSyncer(detect.Recorder))
	b.server = grpc.NewServer(
		grpc.StatsHandler(tracing.ServerStatsHandler(otelgrpc.WithTracerProvider(tracer), otelgrpc.WithMeterProvider(noop.NewMeterProvider()),
			otelgrpc.WithPropagators(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})))),
		grpc.Creds(caller.Credentials()),
		grpc.ChainUnaryInterceptor(grpcerrors.UnaryServerInterceptor, audited(o.Audit), newGuard(o.Root).unary), grpc.StreamInterceptor(grpcerrors.StreamServerInterceptor),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
	)
	healthv1.RegisterHealthServer(b.server, health.NewServer())
	b.controller.Register(b.server)
	return b, nil
}

// frontends read what is to be built: Dockerfiles by this program's own code,
// anything by an image that knows how.
func (b *Builder) frontends() (map[string]frontend.Frontend, error) {
	c := b.opts.Config.Frontends
	out := map[string]frontend.Frontend{}
	if c.Dockerfile.Enabled == nil || *c.Dockerfile.Enabled {
		out["dockerfile.v0"] = forwarder.NewGatewayForwarder(b.worker.Infos(), func(ctx context.Context, c gatewayclient.Client) (*gatewayclient.Result, error) {
			return built(dockerfile.Build(ctx, including{c}))
		})
	}
	if c.Gateway.Enabled == nil || *c.Gateway.Enabled {
		g, err := gateway.NewGatewayFrontend(b.worker.Infos(), c.Gateway.AllowedRepositories)
		if err != nil {
			return nil, err
		}
		out["gateway.v0"] = g
		if own := out["dockerfile.v0"]; own != nil && b.opts.OwnSyntax {
			out["gateway.v0"] = ownSyntax{Frontend: g, own: own}
		}
	}
	if b.opts.PreferLocal {
		for name, f := range out {
			out[name] = preferLocal{f}
		}
	}
	return out, nil
}

// Server is the API.
func (b *Builder) Server() *grpc.Server { return b.server }

// Sessions are the clients that the builder may ask for files, secrets and
// credentials.
func (b *Builder) Sessions() *session.Manager { return b.sessions }

// Mounts are the builder's cache mounts.
func (b *Builder) Mounts() *cachemount.Mounts { return b.mounts }

// Lend has the builder read folders directly that a session of this process has.
func (b *Builder) Lend(session string, folders map[string]lent.Folder) (done func()) {
	return b.folders.Lend(session, folders)
}

// Renew holds in the image store, anew, all that the cache needs.
func (b *Builder) Renew(ctx context.Context) error { return b.books.holds.Renew(ctx) }

// Close ends what runs and closes the cache.
func (b *Builder) Close() error {
	close(b.stop)
	stopped := make(chan struct{})
	go func() {
		b.server.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(2 * time.Second):
		b.server.Stop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	// The controller closes the worker, and that the networks' providers.
	return errors.Join(b.controller.Close(), b.steps.Close(), b.nets.Teardown(), b.nets.Close(), b.books.close(ctx, b.opts.Keeper))
}
