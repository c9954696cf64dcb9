package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"cale/image/store"
)

const (
	// maxSessions bounds the uploads that are under way.
	maxSessions = 1000
	// maxOpen bounds those whose files stay open between requests, which
	// saves reading them anew for their hash.
	maxOpen = 64
	// sessionTime is how long an upload may rest; then the store collects it.
	sessionTime = 24 * time.Hour
	// busyTime is how long a request waits for the one before it.
	busyTime = 10 * time.Second
)

// uploads are sessions that grow until their digest is known. They outlive the
// registry's process: an id is the store's, and a mark of its repository.
type uploads struct {
	store *store.Store
	mu    sync.Mutex
	all   map[string]*session
	open  int
}

// session is one upload; while busy it is in the hands of one request.
type session struct {
	all  *uploads
	repo string
	id   string
	up   *store.Upload // nil while resting
	over bool
	busy chan struct{} // closed when the request ends; nil while none
	last time.Time
}

func mark(repo string) string {
	s := sha256.Sum256([]byte(repo))
	return hex.EncodeToString(s[:8])
}

// start opens a new session.
func (l *uploads) start(repo string) (*session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) >= maxSessions {
		for id, u := range l.all {
			if u.busy == nil && time.Since(u.last) > sessionTime {
				u.rest()
				delete(l.all, id)
			}
		}
	}
	if len(l.all) >= maxSessions {
		return nil, &problem{http.StatusTooManyRequests, "TOOMANYREQUESTS", "too many uploads are under way"}
	}
	up, err := l.store.NewUpload()
	if err != nil {
		return nil, err
	}
	u := &session{all: l, repo: repo, id: up.ID() + "-" + mark(repo), up: up, busy: make(chan struct{})}
	l.all[u.id] = u
	l.open++
	return u, nil
}

// take hands a session to one request. A request that finds it busy waits a
// while: the other may be one whose connection broke.
func (l *uploads) take(ctx context.Context, repo, id string) (*session, error) {
	unknown := &problem{http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"}
	inner, of, _ := strings.Cut(id, "-")
	if of != mark(repo) {
		return nil, unknown
	}
	ctx, cancel := context.WithTimeout(ctx, busyTime)
	defer cancel()
	l.mu.Lock()
	u := l.all[id]
	for u != nil && u.busy != nil {
		busy := u.busy
		l.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, &problem{http.StatusConflict, "BLOB_UPLOAD_INVALID", "the upload is being written to"}
		}
		l.mu.Lock()
		u = l.all[id]
	}
	if u == nil { // from before this process
		u = &session{all: l, repo: repo, id: id}
		l.all[id] = u
	}
	u.busy = make(chan struct{})
	l.mu.Unlock()
	if u.up != nil {
		return u, nil
	}
	up, err := l.store.OpenUpload(inner) // reads it all
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		close(u.busy)
		delete(l.all, id)
		if errors.Is(err, store.ErrNotFound) {
			return nil, unknown
		}
		return nil, err
	}
	u.up = up
	l.open++
	return u, nil
}

// release ends a request's hold.
func (u *session) release() {
	u.all.mu.Lock()
	defer u.all.mu.Unlock()
	close(u.busy)
	u.busy, u.last = nil, time.Now()
	if u.over {
		u.all.open--
		delete(u.all.all, u.id)
	} else if u.all.open > maxOpen {
		u.rest()
	}
}

// rest closes the file; the lock is held.
func (u *session) rest() {
	if u.up != nil {
		u.up.Close()
		u.up = nil
		u.all.open--
	}
}

// cancel throws the upload away.
func (u *session) cancel() error {
	u.over = true
	return u.up.Cancel()
}
