package build

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	controlapi "github.com/moby/buildkit/api/services/control"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestDiskNearlyFull: a build ends before the disk does, and says why.
func TestDiskNearlyFull(t *testing.T) {
	var free atomic.Uint64
	free.Store(1 << 20)
	g := newGuard("/")
	g.stat = func(_ string, st *unix.Statfs_t) error {
		st.Bsize, st.Blocks, st.Bavail = 4096, 1<<20, free.Load()
		return nil
	}
	filling := func(ctx context.Context, _ any) (any, error) {
		free.Store(100)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	_, err := g.unary(t.Context(), &controlapi.SolveRequest{}, nil, filling)
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "the disk is nearly full: 0 MiB are left of /, and builds leave 40 MiB") {
		t.Errorf("a build that fills the disk: %v", err)
	}
	if _, err := g.unary(t.Context(), &controlapi.PruneRequest{}, nil, func(ctx context.Context, _ any) (any, error) { return nil, ctx.Err() }); err != nil {
		t.Errorf("making room: %v", err)
	}
	free.Store(1 << 20)
	other := errors.New("other")
	if _, err := g.unary(t.Context(), &controlapi.SolveRequest{}, nil, func(context.Context, any) (any, error) { return nil, other }); err != other {
		t.Errorf("a build that fails by itself: %v", err)
	}
}
