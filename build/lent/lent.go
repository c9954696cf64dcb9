// Package lent is the source of a build's local files where they lie in this
// process's reach: they are read by their descriptors, with no connection in
// between, and what was changed is known by the kernel's own time of change.
package lent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/contenthash"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/snapshot"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/source"
	"github.com/moby/buildkit/source/local"
	"github.com/moby/buildkit/util/progress"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sync/errgroup"
)

// Folder is a tree that is lent.
type Folder interface {
	fsutil.FS
	// Key tells the folder from others.
	Key() string
}

// Changed is what a Folder's entries have beside their interface.
type Changed interface {
	// Changed is when the kernel last saw a change of the file, which no
	// program can set.
	Changed() time.Time
}

// Source is the source of local files. Folders of sessions that it does not
// know are their clients' to send.
type Source struct {
	source.Source
	cm cache.Accessor

	mu       sync.Mutex
	sessions map[string]map[string]Folder
}

// NewSource makes the source; what is sent, and not lent, is of's.
func NewSource(cm cache.Accessor) (*Source, error) {
	of, err := local.NewSource(local.Opt{CacheAccessor: cm})
	return &Source{Source: of, cm: cm, sessions: map[string]map[string]Folder{}}, err
}

// Lend has a session's folders read directly until the function is called.
func (s *Source) Lend(session string, folders map[string]Folder) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[session] = maps.Clone(folders)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sessions, session)
	}
}

func (s *Source) folder(session, name string) (Folder, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.sessions[session][name]
	return f, ok
}

// Resolve implements source.Source.
func (s *Source) Resolve(ctx context.Context, id source.Identifier, sm *session.Manager, v solver.Vertex) (source.SourceInstance, error) {
	i, err := s.Source.Resolve(ctx, id, sm, v)
	l, ok := id.(*local.LocalIdentifier)
	if err != nil || !ok || l.MetadataOnly {
		return i, err
	}
	f, ok := s.folder(l.SessionID, l.Name)
	if !ok {
		return i, nil
	}
	return &instance{SourceInstance: i, id: l, folder: f, cm: s.cm}, nil
}

type instance struct {
	source.SourceInstance
	id     *local.LocalIdentifier
	folder Folder
	cm     cache.Accessor
}

// Snapshot implements source.SourceInstance: what the folder was at the last
// build becomes what it is now.
func (i *instance) Snapshot(ctx context.Context, _ solver.JobContext) (cache.ImmutableRef, error) {
	ref, err := i.last(ctx)
	if err != nil {
		return nil, err
	}
	if err := i.update(ctx, ref); err != nil {
		// What is known of its files may be wrong now.
		_ = ref.SetCachePolicyDefault()
		contenthash.ClearCacheContext(ref)
		go ref.Release(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("read %s: %w", i.id.Name, err)
	}
	return ref.Commit(ctx)
}

func (i *instance) update(ctx context.Context, ref cache.MutableRef) error {
	mounts, err := ref.Mount(ctx, false, nil)
	if err != nil {
		return err
	}
	m := snapshot.LocalMounter(mounts)
	dest, err := m.Mount()
	if err != nil {
		return err
	}
	defer m.Unmount()
	known, err := contenthash.GetCacheContext(ctx, ref)
	if err != nil {
		return err
	}
	now, since := time.Now(), ref.GetString(keySince)
	// A builder that is killed over it leaves a tree of which nobody knows what it holds: see last.
	if err := ref.SetString(keySince, "", ""); err != nil {
		return err
	}
	if err := i.bring(ctx, since, dest, known); err != nil {
		return err
	}
	if err := contenthash.SetCacheContext(ctx, ref, known); err != nil {
		return err
	}
	return i.remember(ref, now)
}

// transfer has the tree at dest become the folder.
func (i *instance) transfer(ctx context.Context, from fsutil.FS, dest string, known contenthash.CacheContext) error {
	owned, err := fsutil.NewFilterFS(from, &fsutil.FilterOpt{Map: func(_ string, st *types.Stat) fsutil.MapResult {
		st.Uid, st.Gid = 0, 0 // a context has no owners
		return fsutil.MapResultKeep
	}})
	if err != nil {
		return err
	}
	wanted, err := fsutil.NewFilterFS(owned, &fsutil.FilterOpt{
		IncludePatterns: i.id.IncludePatterns, ExcludePatterns: i.id.ExcludePatterns, FollowPaths: i.id.FollowPaths,
	})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	here, there := ends(ctx)
	group.Go(func() error {
		defer here.close()
		return fsutil.Send(ctx, here, wanted, nil)
	})
	group.Go(func() error {
		return fsutil.Receive(ctx, there, dest, fsutil.ReceiveOpt{
			NotifyHashed: known.HandleChange, ContentHasher: contenthash.NewFromStat, ProgressCb: shown(ctx, i.id.Name), Differ: i.id.Differ,
		})
	})
	return group.Wait()
}

// bring has the tree at dest become the folder, also where a file was changed
// and has its size and time as before: the kernel's time of change tells, and
// such a file is brought anew. since is when the tree was the folder, as remember notes it.
func (i *instance) bring(ctx context.Context, since, dest string, known contenthash.CacheContext) error {
	at, err := strconv.ParseInt(since, 10, 64)
	if err != nil {
		return i.transfer(ctx, i.folder, dest, known) // nothing is there
	}
	w := &watched{FS: i.folder, since: time.Unix(0, at).Add(-tick), changed: map[string]bool{}}
	if err := i.transfer(ctx, w, dest, known); err != nil {
		return err
	}
	dropped, err := w.drop(dest, known)
	if err != nil || !dropped {
		return err
	}
	return i.transfer(ctx, i.folder, dest, known)
}

const (
	keyFolder   = "cale.folder"
	folderIndex = keyFolder + ":"
	keySince    = "cale.since"
)

// last is the tree that the folder was at the last build, or an empty one.
func (i *instance) last(ctx context.Context) (cache.MutableRef, error) {
	list, err := i.cm.Search(ctx, folderIndex+i.key(), false)
	if err != nil {
		return nil, err
	}
	for _, md := range list {
		ref, err := i.cm.GetMutable(ctx, md.ID())
		if err != nil { // another build may have it
			continue
		}
		if ref.GetString(keySince) != "" {
			return ref, nil
		}
		// What was noted of its files' contents may be of those before.
		err = ref.SetCachePolicyDefault()
		if err := errors.Join(err, ref.Release(ctx)); err != nil {
			return nil, err
		}
	}
	return i.cm.New(ctx, nil, nil, cache.CachePolicyRetain, cache.WithRecordType(client.UsageRecordTypeLocalSource),
		cache.WithDescription("local source for "+i.id.Name))
}

func (i *instance) key() string { return i.id.Name + ":" + i.id.SharedKeyHint + ":" + i.folder.Key() }

func (i *instance) remember(ref cache.MutableRef, at time.Time) error {
	if ref.GetString(keyFolder) != i.key() {
		if err := ref.SetString(keyFolder, i.key(), folderIndex+i.key()); err != nil {
			return err
		}
	}
	return ref.SetString(keySince, strconv.FormatInt(at.UnixNano(), 10), "")
}

// shown tells the client how much was transferred, a few times a second.
func shown(ctx context.Context, name string) func(int, bool) {
	w, _, _ := progress.NewFromContext(ctx)
	begin := time.Now()
	st, last := progress.Status{Started: &begin, Action: "transferring"}, time.Time{}
	id := "transferring " + name + ":"
	_ = w.Write(id, st)
	return func(bytes int, end bool) {
		now := time.Now()
		if !end && now.Sub(last) < 100*time.Millisecond {
			return
		}
		st.Current, last = bytes, now
		if end {
			st.Completed = &now
		}
		_ = w.Write(id, st)
		if end {
			_ = w.Close()
		}
	}
}
