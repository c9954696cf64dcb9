package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"cale/atomicfile"
	"cale/image"
	"cale/shim"
)

// record is what is kept of a container on disk, as containers/<id>/container.json.
type record struct {
	Version  int               `json:"version"`
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Created  time.Time         `json:"created"`
	Spec     Spec              `json:"spec"`
	ImageID  string            `json:"imageId"`
	ImageRef string            `json:"imageRef"`
	Manifest image.Digest      `json:"manifest"`
	Image    *image.Descriptor `json:"image,omitempty"` // of that manifest, with its platform
	Layers   []image.Digest    `json:"layers"`
	Init     bool              `json:"init,omitempty"` // the layer of mount points lies over the image
	Run      Effective         `json:"run"`
	Mounts   []Mount           `json:"mounts"`
	State    State             `json:"state"`
	Restarts int               `json:"restarts,omitempty"`
	Started  bool              `json:"started,omitempty"`  // at least once
	Stopped  bool              `json:"stopped,omitempty"`  // by a client: restart policies keep away
	Others   []NetworkEndpoint `json:"others,omitempty"`   // networks joined later
	Left     []string          `json:"left,omitempty"`     // networks taken away later
	Disk     int64             `json:"disk,omitempty"`     // the bound of its own file system
	User     *IDMap            `json:"user,omitempty"`     // of a user namespace of its own
	Working  *image.RunConfig  `json:"working,omitempty"`  // what its image is to have, of a working container
	Snapshot bool              `json:"snapshot,omitempty"` // its first start goes on from the checkpoint of that name
}

const recordVersion = 1

// container is one container: a pod of one, or part of a pod of many.
type container struct {
	id  string
	dir string // below Root: what outlives a run
	pod string // below Run: the bundle, while it runs
	op  opLock

	group *pod // nil: it is a pod of its own

	mu          sync.Mutex
	rec         record
	run         *run // nil when no process is there
	removing    bool
	holdRemoval bool // Restart is between stop and start
	restart     *pendingRestart
	backoff     time.Duration
	exits       []chan WaitResult // told at the next exit
	removals    []chan WaitResult
	pending     []*pendingAttach

	snapshots sync.Mutex // for one at a time
}

// run is one life of the container's process.
type run struct {
	shim    *shim.Client
	pid     int
	started time.Time
	done    chan struct{} // closed when the exit is known and recorded
	stop    context.CancelFunc
	health  *monitor
	memory  *memoryWatch
	netns   string // path of the pinned namespace, or ""

	checkpoint string // the directory it goes on from; "" for one that began anew

	user   *specs.User // of its process
	joined string      // path of the network namespace it is in: its own or another container's; "" is the host's
	held   []*os.File  // namespaces of others, for as long as it takes to join them
}

// opLock is a mutex one can give up waiting for.
type opLock struct {
	held    chan struct{}
	waiting *atomic.Int32
}

func newOpLock() opLock { return opLock{make(chan struct{}, 1), new(atomic.Int32)} }

func (l opLock) lock(ctx context.Context) error {
	select {
	case l.held <- struct{}{}:
		return nil
	default:
	}
	l.waiting.Add(1)
	defer l.waiting.Add(-1)
	select {
	case l.held <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l opLock) unlock() { <-l.held }

// wanted says whether anybody waits for the lock.
func (l opLock) wanted() bool { return l.waiting.Load() > 0 }

func (e *Engine) newContainer(rec record) *container {
	c := &container{
		id: rec.ID, rec: rec, op: newOpLock(),
		dir: filepath.Join(e.cfg.Root, "containers", rec.ID),
		pod: filepath.Join(e.cfg.Run, "pods", rec.ID),
	}
	if m := rec.Spec.Member; m != nil {
		c.pod = filepath.Join(e.cfg.Run, "pods", m.Pod, rec.ID)
	}
	return c
}

// find looks a container up by id, name, or a unique prefix of an id; name/alias is the one that a link of the named
// container leads to.
func (e *Engine) find(ref string) (*container, error) {
	if name, alias, ok := strings.Cut(strings.TrimPrefix(ref, "/"), "/"); ok {
		return e.findLinked(ref, name, alias)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if ref == "" {
		return nil, invalid("no container name or id given")
	}
	if c := e.containers[ref]; c != nil {
		return c, nil
	}
	if c := e.containers[e.names[strings.TrimPrefix(ref, "/")]]; c != nil {
		return c, nil
	}
	var found *container
	for id, c := range e.containers {
		if strings.HasPrefix(id, ref) {
			if found != nil {
				return nil, invalid("Multiple IDs found with provided prefix: %s", ref)
			}
			found = c
		}
	}
	if found == nil {
		return nil, notFound("No such container: %s", ref)
	}
	return found, nil
}

// save writes the record. It must be called with c.mu held, so that an older record never replaces a newer one.
// durable waits for the disk: for what must outlive a power cut.
func (c *container) save(durable bool) error {
	raw, err := json.Marshal(&c.rec)
	if err != nil {
		return fmt.Errorf("container %s: %w", c.id, err)
	}
	if err := atomicfile.Write(filepath.Join(c.dir, "container.json"), raw, 0o600, durable); err != nil {
		return fmt.Errorf("container %s: %w", c.id, err)
	}
	return nil
}

// keep is whether the container's state is worth the disk's time: what is removed at its end need not outlive a
// reboot.
func (c *container) keep() bool { return !c.rec.Spec.AutoRemove }

func (c *container) logPath() string { return filepath.Join(c.dir, c.id+"-json.log") }
func (c *container) upper() string   { return filepath.Join(c.writable(), "upper") }
func (c *container) work() string    { return filepath.Join(c.writable(), "work") }

// running gives the current run, or an error as Docker words it.
func (c *container) running() (*run, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run == nil {
		return nil, conflict("container %s is not running", c.id)
	}
	return c.run, nil
}

// name is the container's name now, without a slash.
func (c *container) name() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec.Name
}
