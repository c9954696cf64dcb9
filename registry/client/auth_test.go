package client

import (
	"net/http"
	"net/url"
	"testing"
	"time"
)

// TestChallengeDuringFetch: a refusal that comes while the token is being fetched waits for it without keeping what
// the fetch needs.
func TestChallengeDuringFetch(t *testing.T) {
	e := &endpoint{base: url.URL{Scheme: "https", Host: "registry.test", Path: "/v2"}}
	tok := &token{}
	a := &auth{scheme: "bearer", tokens: map[string]*token{"s": tok}}
	tok.mu.Lock() // the fetch
	done := make(chan bool)
	go func() {
		h := http.Header{"Www-Authenticate": {`Bearer realm="https://tokens.test/",service="x"`}}
		done <- a.challenged(e, "s", "", h)
	}()
	for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
		free := make(chan struct{})
		go func() {
			a.mu.Lock() // only whether it can be had
			close(free)
			a.mu.Unlock()
		}()
		select {
		case <-free:
		case <-time.After(10 * time.Second):
			t.Fatal("fetch and challenge wait for each other")
		}
	}
	tok.mu.Unlock()
	if !<-done {
		t.Error("the challenge was not taken in")
	}
}
