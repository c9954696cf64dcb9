package client

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// certDir is the folder of a registry's own certificates, or "".
func (c *Client) certDir(host string) string {
	if host == "" || strings.ContainsAny(host, "/\x00") || host[0] == '.' {
		return ""
	}
	if host == dockerHub {
		host = "docker.io"
	}
	for _, d := range c.opts.CertDirs {
		d = filepath.Join(d, host)
		if info, err := os.Stat(d); err == nil && info.IsDir() {
			return d
		}
	}
	return ""
}

// withCerts is a client for a registry with certificates of its own.
func (c *Client) withCerts(dir string) (*http.Client, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		path := filepath.Join(dir, e.Name())
		switch filepath.Ext(path) {
		case ".crt":
			raw, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			if !pool.AppendCertsFromPEM(raw) {
				return nil, fmt.Errorf("%s holds no certificate", path)
			}
		case ".cert":
			pair, err := tls.LoadX509KeyPair(path, strings.TrimSuffix(path, ".cert")+".key")
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			conf.Certificates = append(conf.Certificates, pair)
		}
	}
	t := transport().(*http.Transport).Clone()
	t.TLSClientConfig = conf
	h := *c.http
	h.Transport = t
	return &h, nil
}
