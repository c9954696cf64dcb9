// Package server serves the OCI distribution protocol (distribution-spec 1.1)
// from an image store.
package server

import (
	"net/http"

	"cale/image/store"
)

// Options bounds what a registry does.
type Options struct {
	// ReadOnly refuses every write.
	ReadOnly bool
	// Domain is the host part of the store names that this registry's
	// repositories have: repository foo/bar with tag 1 is "<Domain>/foo/bar:1".
	// Reads also find docker.io names. Empty means "localhost".
	Domain string
}

// New returns the handler of /v2/.
func New(s *store.Store, o Options) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "registry: not built yet", http.StatusNotImplemented)
	})
}
