package build

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What a build brings in has no size that is known before: contexts, files and
// archives from elsewhere, what steps write. So the disk's last is kept from it,
// and who else uses the disk is not the one to fail.

// reserve is what is left of a disk of so many bytes when builds are ended: a
// hundredth, and no more than maxReserve.
func reserve(total uint64) uint64 { return min(total/100, maxReserve) }

const maxReserve = 512 << 20

const spaceLook = 250 * time.Millisecond // how often

// errFull is why builds were ended.
var errFull = errors.New("the disk is nearly full")

// guard ends builds when the disk that dir is on runs full.
type guard struct {
	dir string
	// stat tells of the file system of dir; a test has its own.
	stat func(dir string, st *unix.Statfs_t) error

	mu      sync.Mutex
	looking bool
	builds  map[*context.CancelCauseFunc]struct{}
}

func newGuard(dir string) *guard {
	return &guard{dir: dir, stat: unix.Statfs, builds: map[*context.CancelCauseFunc]struct{}{}}
}

// full tells whether the disk's rest is to be kept.
func (g *guard) full() error {
	var st unix.Statfs_t
	if err := g.stat(g.dir, &st); err != nil {
		return nil // nothing is known
	}
	free, least := st.Bavail*uint64(st.Bsize), reserve(st.Blocks*uint64(st.Bsize))
	if free < least {
		return fmt.Errorf("%w: %d MiB are left of %s, and builds leave %d MiB", errFull, free>>20, g.dir, least>>20)
	}
	return nil
}

// unary is for the call that lasts as long as a build.
func (g *guard) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if _, ok := req.(*controlapi.SolveRequest); !ok {
		return next(ctx, req)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer g.watch(&cancel)()
	out, err := next(ctx, req)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errFull) {
		return nil, status.Error(codes.ResourceExhausted, cause.Error())
	}
	return out, err
}

// watch has a build ended when the disk is full, until the function is called.
func (g *guard) watch(cancel *context.CancelCauseFunc) (done func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.builds[cancel] = struct{}{}
	if !g.looking {
		g.looking = true
		go g.look()
	}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.builds, cancel)
	}
}

// look looks for as long as there are builds.
func (g *guard) look() {
	for {
		err := g.full()
		g.mu.Lock()
		if len(g.builds) == 0 {
			g.looking = false
			g.mu.Unlock()
			return
		}
		if err != nil {
			for c := range g.builds {
				(*c)(err)
			}
		}
		g.mu.Unlock()
		time.Sleep(spaceLook)
	}
}
