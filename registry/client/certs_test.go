package client

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cale/image"
	"cale/registry/hosts"
)

// A registry with an authority of its own is trusted when its certificate is
// where Docker looks for it, and only then.
func TestCerts(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(serveIndex))
	t.Cleanup(s.Close)
	host := s.Listener.Addr().String()
	ref := image.Reference{Domain: host, Path: "a", Tag: "1"}
	never := func(string) bool { return false }
	_, err := New(Options{PlainHTTP: never}).Resolve(testContext(t), ref)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%v", err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, host), 0o700); err != nil {
		t.Fatal(err)
	}
	crt := filepath.Join(dir, host, "ca.crt")
	if err := os.WriteFile(crt, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	// Also on the loopback, where there would be no TLS otherwise.
	if _, err := New(Options{HostDirs: hosts.Dirs{dir}}).Resolve(testContext(t), ref); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(crt, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{HostDirs: hosts.Dirs{dir}}).Resolve(testContext(t), ref); err == nil || !strings.Contains(err.Error(), "holds no certificate") {
		t.Error(err)
	}
}
