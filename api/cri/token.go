package cri

import (
	"crypto/rand"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	tokenLife = time.Minute
	maxTokens = 1000 // that wait to be used
)

// tokens are requests for streams that wait for their connection. Each is good for one.
type tokens struct {
	mu     sync.Mutex
	byName map[string]pending
}

type pending struct {
	request any
	until   time.Time
}

// put keeps a request and gives the name that brings it back.
func (t *tokens) put(request any) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if len(t.byName) >= maxTokens {
		for name, p := range t.byName {
			if now.After(p.until) {
				delete(t.byName, name)
			}
		}
	}
	if len(t.byName) >= maxTokens {
		return "", status.Error(codes.ResourceExhausted, "too many streams that were asked for wait for their client to connect")
	}
	if t.byName == nil {
		t.byName = map[string]pending{}
	}
	name := rand.Text()
	t.byName[name] = pending{request, now.Add(tokenLife)}
	return name, nil
}

// take gives the request, once.
func (t *tokens) take(name string) (any, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.byName[name]
	delete(t.byName, name)
	return p.request, ok && time.Now().Before(p.until)
}
