package server

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"cale/image/store"
)

// problem is an answer of the protocol's error form.
type problem struct {
	status  int
	code    string
	message string
}

func (p *problem) Error() string { return p.message }

func blobUnknown() error {
	return &problem{http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry"}
}

func manifestUnknown() error {
	return &problem{http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown"}
}

func nameUnknown() error {
	return &problem{http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry"}
}

// failed answers with an error. What is not the client's concern is logged
// and named only as such: it may hold paths of the machine.
func failed(w http.ResponseWriter, err error) {
	var p *problem
	switch {
	case errors.As(err, &p):
		fail(w, p.status, p.code, p.message)
	case errors.Is(err, store.ErrNotFound):
		fail(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
	default:
		slog.Error("registry", "error", err)
		fail(w, http.StatusInternalServerError, "UNKNOWN", "the registry failed; its log says why")
	}
}

func fail(w http.ResponseWriter, status int, code, message string) {
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	raw, _ := json.Marshal(map[string][]entry{"errors": {{code, message}}})
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	w.WriteHeader(status)
	w.Write(raw)
}

func reply(w http.ResponseWriter, mediaType string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	w.WriteHeader(http.StatusOK)
	w.Write(raw) // a client that left needs no error
	return nil
}
