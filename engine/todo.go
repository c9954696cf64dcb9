package engine

import (
	"context"
	"io"
	"time"

	"cale/image/pull"
	"cale/image/push"
	"cale/image/store"
)

// Engine runs pods and keeps images, volumes and networks. Its methods may be called from any goroutine.
type Engine struct{}

func todo(what string) error { return fail(ErrUnsupported, "%s is not built yet", what) }

// Open takes the instance (one engine per Run directory), and brings what is on disk in line with what runs.
func Open(ctx context.Context, c Config) (*Engine, error) { return nil, todo("open") }

func (e *Engine) Close() error { return todo("close") }

// Busy says whether anything runs, or is asked for right now.
func (e *Engine) Busy() bool { return true }

// Idle gives a value each time the engine becomes idle (it may be spurious: ask Busy again).
func (e *Engine) Idle() <-chan struct{} { return nil }

// Retire removes the bridge, the packet filter's table and the cgroup parent when nothing runs.
func (e *Engine) Retire(ctx context.Context) error { return todo("retire") }

func (e *Engine) Create(ctx context.Context, s Spec) (id string, warnings []string, err error) {
	return "", nil, todo("create")
}
func (e *Engine) Start(ctx context.Context, ref string, o StartOptions) error { return todo("start") }
func (e *Engine) Stop(ctx context.Context, ref string, o StopOptions) error   { return todo("stop") }
func (e *Engine) Restart(ctx context.Context, ref string, o StopOptions) error {
	return todo("restart")
}
func (e *Engine) Kill(ctx context.Context, ref, signal string) error { return todo("kill") }
func (e *Engine) Pause(ctx context.Context, ref string) error        { return todo("pause") }
func (e *Engine) Unpause(ctx context.Context, ref string) error      { return todo("unpause") }
func (e *Engine) Remove(ctx context.Context, ref string, o RemoveOptions) error {
	return todo("remove")
}
func (e *Engine) Rename(ctx context.Context, ref, name string) error { return todo("rename") }
func (e *Engine) Update(ctx context.Context, ref string, r Resources, p *Restart) ([]string, error) {
	return nil, todo("update")
}
func (e *Engine) Wait(ctx context.Context, ref, condition string) (<-chan WaitResult, error) {
	return nil, todo("wait")
}
func (e *Engine) Inspect(ctx context.Context, ref string, size bool) (Info, error) {
	return Info{}, todo("inspect")
}
func (e *Engine) List(ctx context.Context, size bool) []Info { return nil }
func (e *Engine) Logs(ctx context.Context, ref string, o LogOptions) (s LogStream, tty bool, err error) {
	return nil, false, todo("logs")
}
func (e *Engine) Attach(ctx context.Context, ref string, o AttachOptions) (*Stream, error) {
	return nil, todo("attach")
}
func (e *Engine) Resize(ctx context.Context, ref string, height, width uint) error {
	return todo("resize")
}
func (e *Engine) Top(ctx context.Context, ref, psArgs string) (titles []string, rows [][]string, err error) {
	return nil, nil, todo("top")
}
func (e *Engine) Stats(ctx context.Context, ref string) (Stats, error) { return Stats{}, todo("stats") }
func (e *Engine) Changes(ctx context.Context, ref string) ([]Change, error) {
	return nil, todo("changes")
}
func (e *Engine) Export(ctx context.Context, ref string, w io.Writer) error { return todo("export") }

// CopyFrom writes a tar of path (the last element is the archive's top) and returns its stat before the first byte.
func (e *Engine) CopyFrom(ctx context.Context, ref, path string) (PathStat, io.ReadCloser, error) {
	return PathStat{}, nil, todo("copy")
}

// CopyTo unpacks a plain tar into the directory path.
func (e *Engine) CopyTo(ctx context.Context, ref, path string, r io.Reader, o CopyOptions) error {
	return todo("copy")
}
func (e *Engine) StatPath(ctx context.Context, ref, path string) (PathStat, error) {
	return PathStat{}, todo("stat")
}

// PruneContainers removes stopped containers that keep says true for (nil: all).
func (e *Engine) PruneContainers(ctx context.Context, match func(Info) bool) (Pruned, error) {
	return Pruned{}, todo("prune")
}

func (e *Engine) ExecCreate(ctx context.Context, ref string, s ExecSpec) (string, error) {
	return "", todo("exec")
}

// ExecStart starts a session; the Stream is nil when detached.
func (e *Engine) ExecStart(ctx context.Context, id string, o ExecStartOptions) (*Stream, error) {
	return nil, todo("exec")
}
func (e *Engine) ExecInspect(ctx context.Context, id string) (ExecInfo, error) {
	return ExecInfo{}, todo("exec")
}
func (e *Engine) ExecResize(ctx context.Context, id string, height, width uint) error {
	return todo("exec")
}

// Pull brings an image; digest is what its name stands for, "sha256:…", fresh says whether anything new came.
func (e *Engine) Pull(ctx context.Context, ref, platform string, c *Credentials, progress func(pull.Event)) (digest string, fresh bool, err error) {
	return "", false, todo("pull")
}
func (e *Engine) Push(ctx context.Context, ref, platform string, c *Credentials, progress func(push.Event)) (digest string, size int64, err error) {
	return "", 0, todo("push")
}
func (e *Engine) Images(ctx context.Context, all bool) ([]Image, error) { return nil, todo("images") }
func (e *Engine) Image(ctx context.Context, ref string) (Image, error)  { return Image{}, todo("image") }
func (e *Engine) ImageHistory(ctx context.Context, ref string) ([]History, error) {
	return nil, todo("history")
}
func (e *Engine) TagImage(ctx context.Context, src, dst string) error { return todo("tag") }
func (e *Engine) RemoveImage(ctx context.Context, ref string, force, prune bool) ([]RemovedImage, error) {
	return nil, todo("remove image")
}

// PruneImages removes images no container uses: untagged ones, or all of them; match may be nil.
func (e *Engine) PruneImages(ctx context.Context, all bool, match func(Image) bool) (PrunedImages, error) {
	return PrunedImages{}, todo("prune")
}

// LoadImages reads a tar (docker save's or an OCI layout), telling each name or id loaded.
func (e *Engine) LoadImages(ctx context.Context, r io.Reader, loaded func(string)) error {
	return todo("load")
}
func (e *Engine) SaveImages(ctx context.Context, refs []string, w io.Writer) error {
	return todo("save")
}
func (e *Engine) Store() *store.Store { return nil }

func (e *Engine) VolumeCreate(ctx context.Context, name, driver string, opts, labels map[string]string) (Volume, error) {
	return Volume{}, todo("volume")
}
func (e *Engine) Volumes(ctx context.Context) ([]Volume, error) { return nil, todo("volume") }
func (e *Engine) Volume(ctx context.Context, name string) (Volume, error) {
	return Volume{}, todo("volume")
}
func (e *Engine) VolumeRemove(ctx context.Context, name string, force bool) error {
	return todo("volume")
}

// PruneVolumes removes unused volumes: anonymous ones, or all.
func (e *Engine) PruneVolumes(ctx context.Context, all bool, match func(Volume) bool) (Pruned, error) {
	return Pruned{}, todo("volume")
}

func (e *Engine) NetworkCreate(ctx context.Context, s NetworkSpec) (id, warning string, err error) {
	return "", "", todo("network")
}
func (e *Engine) Networks(ctx context.Context) ([]NetworkInfo, error) { return nil, todo("network") }
func (e *Engine) NetworkInspect(ctx context.Context, ref string) (NetworkInfo, error) {
	return NetworkInfo{}, todo("network")
}
func (e *Engine) NetworkRemove(ctx context.Context, ref string) error { return todo("network") }
func (e *Engine) NetworkConnect(ctx context.Context, network, container string, ep NetworkEndpoint) error {
	return todo("network")
}
func (e *Engine) NetworkDisconnect(ctx context.Context, network, container string, force bool) error {
	return todo("network")
}
func (e *Engine) PruneNetworks(ctx context.Context, match func(NetworkInfo) bool) (Pruned, error) {
	return Pruned{}, todo("network")
}

// Subscribe gives past events since (zero: none) and then new ones until (zero: for ever) or ctx's end. The channel
// is closed at the end, and when the reader is too slow.
func (e *Engine) Subscribe(ctx context.Context, since, until time.Time) <-chan Event { return nil }
func (e *Engine) Info(ctx context.Context) SystemInfo                                { return SystemInfo{} }
func (e *Engine) DiskUsage(ctx context.Context) (Usage, error)                       { return Usage{}, todo("disk usage") }
