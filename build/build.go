// Package build is the builder: BuildKit's solver and Dockerfile front end as a
// library, on our image store, layers, network and runtime. It serves
// BuildKit's own API, so that BuildKit's clients work with it unchanged.
//
// The build cache is a part of the image store. Its books are below
// $CALE_ROOT/build; its blobs and layers are the store's, held there by leases
// (package keep).
package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/platforms"
	cachemd "github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/executor/oci"
	containerdsnapshot "github.com/moby/buildkit/snapshot/containerd"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/archutil"
	"github.com/moby/buildkit/util/leaseutil"
	bknet "github.com/moby/buildkit/util/network"
	"github.com/moby/buildkit/worker/base"
	wlabel "github.com/moby/buildkit/worker/label"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"cale/audit"
	"cale/build/content"
	"cale/build/instance"
	"cale/build/keep"
	"cale/build/names"
	"cale/build/snapshot"
	"cale/build/step"
	"cale/image/store"
	"cale/network"
	"cale/registry/hosts"
)

// Options say what a builder works on.
type Options struct {
	Root string // of the image store and, below build/, the cache's books
	Run  string // running state: networks, steps
	// Keeper is the image store's owner.
	Keeper keep.Keeper
	// Config is BuildKit's configuration: registries, limits, DNS, entitlements.
	Config config.Config
	// HostDirs are where registries' settings are, for registries that Config
	// does not name.
	HostDirs hosts.Dirs
	// PreferLocal takes base images that are in the store without asking the
	// registry, as docker build does, unless the client says otherwise.
	PreferLocal bool
	// OwnSyntax has Dockerfiles for the official front end images read by this
	// program.
	OwnSyntax bool
	Labels    map[string]string // more of the worker's
	Log       func(format string, args ...any)
	Audit     func(audit.Entry) // takes builds with powers over the host
}

// namespace is in containerd's books what it is in BuildKit's.
const namespace = "buildkit"

// snapshotter is the name that BuildKit knows from: it decides by it what it
// may do with trees, and ours are in overlayfs's form.
const snapshotter = "overlayfs"

// books are the databases and what stands on them.
type books struct {
	dir       string
	files     *store.Shared
	holds     *keep.Holds
	snapshots *snapshot.Store
	db        *bolt.DB
	meta      *metadata.DB
	blobs     *content.Store
	content   *containerdsnapshot.Store
	cache     *cachemd.Store
}

// openBooks opens the cache. One that was in use when the machine lost power
// begins anew: its books were not synced, and what the image store had not
// synced is gone.
func openBooks(ctx context.Context, o Options) (b *books, err error) {
	b = &books{dir: filepath.Join(o.Root, "build")}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return nil, err
	}
	if b.holds, err = keep.OpenHolds(ctx, o.Keeper); err != nil {
		return nil, err
	}
	if err := b.begin(ctx); err != nil {
		return nil, err
	}
	temp := filepath.Join(b.dir, "layers")
	if err := os.MkdirAll(temp, 0o700); err != nil {
		return nil, err
	}
	if b.files, err = store.OpenShared(o.Root, temp); err != nil {
		return nil, err
	}
	if err := b.files.Layers.SweepShared(); err != nil {
		return nil, err
	}
	if b.snapshots, err = snapshot.Open(ctx, filepath.Join(b.dir, "snapshots.db"), b.files.Layers, b.holds); err != nil {
		return nil, err
	}
	if b.blobs, err = content.Open(b.files, b.holds, filepath.Join(b.dir, "ingest")); err != nil {
		return nil, err
	}
	b.db, err = bolt.Open(filepath.Join(b.dir, "content.db"), 0o600, &bolt.Options{
		FreelistType: bolt.FreelistMapType, NoFreelistSync: true, NoSync: true,
	})
	if err != nil {
		return nil, err
	}
	b.meta = metadata.NewDB(b.db, b.blobs, map[string]snapshots.Snapshotter{snapshotter: b.snapshots})
	if err := b.meta.Init(ctx); err != nil {
		return nil, err
	}
	b.content = containerdsnapshot.NewContentStore(ourLayers{b.meta.ContentStore(), b.snapshots}, namespace)
	b.cache, err = cachemd.NewStore(filepath.Join(b.dir, "metadata.db"))
	return b, err
}

// worker is BuildKit's worker on the books.
func newWorker(ctx context.Context, o Options, b *books, nets *network.Store) (*base.Worker, *step.Runner, error) {
	bridge, err := step.NewBridge(nets, filepath.Join(o.Run, "build", "netns"))
	if err != nil {
		return nil, nil, err
	}
	networks := map[pb.NetMode]bknet.Provider{
		pb.NetMode_UNSET: bridge, pb.NetMode_HOST: bknet.NewHostProvider(), pb.NetMode_NONE: bknet.NewNoneProvider(),
	}
	devices, err := deviceManager(o.Config.CDI)
	if err != nil {
		return nil, nil, err
	}
	var dns *oci.DNSConfig
	if c := o.Config.DNS; c != nil {
		dns = &oci.DNSConfig{Nameservers: c.Nameservers, Options: c.Options, SearchDomains: c.SearchDomains}
	}
	proxy := step.NewProxy(filepath.Join(o.Run, "build"), networks)
	run, err := step.New(step.Options{
		Dir: filepath.Join(o.Run, "build", "steps"), CgroupParent: instance.Cgroup(o.Run), Networks: networks, Proxy: proxy, DNS: dns, Devices: devices, Log: o.Log,
	})
	if err != nil {
		return nil, nil, err
	}
	id, err := base.ID(b.dir)
	if err != nil {
		return nil, nil, err
	}
	hostname, _ := os.Hostname()
	labels := map[string]string{
		wlabel.Executor: "oci", wlabel.Snapshotter: snapshotter, wlabel.Hostname: hostname, wlabel.Network: "bridge",
		wlabel.OCIProcessMode: oci.ProcessSandbox.String(), wlabel.SELinuxEnabled: "false",
	}
	for k, v := range o.Labels {
		labels[k] = v
	}
	w, err := base.NewWorker(ctx, base.WorkerOpt{
		ID: id, Root: b.dir, Labels: labels,
		Platforms:        supportedPlatforms(),
		GCPolicy:         gcPolicy(o.Config.Workers.OCI.GCConfig, b.dir),
		BuildkitVersion:  buildkitVersion(),
		NetworkProviders: networks,
		ProxyProvider:    proxy,
		Executor:         run,
		Snapshotter:      containerdsnapshot.NewSnapshotter(snapshotter, b.meta.Snapshotter(snapshotter), namespace, nil),
		ContentStore:     b.content,
		Applier:          &snapshot.Applier{Snapshots: b.snapshots, Content: b.content},
		Differ: &snapshot.Comparer{
			Snapshots: b.snapshots, Content: containerdsnapshot.NewContentStore(b.meta.ContentStore(), namespace),
			Other: walking.NewWalkingDiff(containerdsnapshot.NewContentStore(b.meta.ContentStore(), namespace)),
		},
		ImageStore:      &names.Store{Keeper: o.Keeper},
		RegistryHosts:   registryHosts(o.Config, o.HostDirs),
		LeaseManager:    leaseutil.WithNamespace(metadata.NewLeaseManager(b.meta), namespace),
		GarbageCollect:  b.meta.GarbageCollect,
		MetadataStore:   b.cache,
		ContentMetadata: b.db,
		MountPoolRoot:   filepath.Join(o.Run, "build", "cachemounts"),
		CDIManager:      devices,
	})
	return w, run, err
}

func supportedPlatforms() []ocispec.Platform {
	var out []ocispec.Platform
	for _, p := range archutil.SupportedPlatforms(false) {
		out = append(out, platforms.Normalize(p))
	}
	return out
}

// close closes the books, synced, so that a reboot leaves them valid.
func (b *books) close(ctx context.Context, k keep.Keeper) error {
	err := b.snapshots.Close()
	if err2 := k.Added(ctx, keep.Content{}, true); err2 != nil {
		return errors.Join(err, err2)
	}
	return errors.Join(err, b.end())
}
