// Package simplesign finds and opens signatures of the simple signing kind: OpenPGP messages as gpg makes them, in files
// beside the registries, where podman and skopeo keep them (containers-registries.d(5), containers-signature(5)).
//
// What it is made of is large, and reads what anybody may have written: it is linked by the program cale-verify alone.
package simplesign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cale/image"
	"cale/image/trust"

	"go.yaml.in/yaml/v3"
)

// Bounds of what is read for simple signing.
const (
	maxLookaside = 128       // signatures of one image
	maxSettings  = 256 << 10 // bytes of a file of settings
)

// defaultLookaside is where podman and skopeo keep what they sign, if nothing
// says otherwise.
const defaultLookaside = "file:///var/lib/containers/sigstore"

// place is where signatures lie that are not in registries
// (containers-registries.d(5)). Where they are written to does not matter here.
type place struct {
	Lookaside string `yaml:"lookaside"`
	Sigstore  string `yaml:"sigstore"` // what it was called before
}

func (p *place) url() string {
	if p.Lookaside != "" {
		return p.Lookaside
	}
	return p.Sigstore
}

// Open finds the signatures of a manifest at the place that the files *.yaml of
// the folders name, of which the first that says something about the repository
// counts, and opens them. There may be none.
func Open(ctx context.Context, r trust.SimpleRequest) ([]trust.Opened, error) {
	ref, err := image.ParseReference(r.Reference)
	if err != nil {
		return nil, err
	}
	messages, err := find(ctx, r.Folders, ref, r.Digest)
	if err != nil {
		return nil, err
	}
	out := []trust.Opened{}
	for _, m := range messages {
		var o trust.Opened
		o.Payload, o.Key, err = open(r.Keys, m, trust.MaxPayload)
		if err != nil {
			o = trust.Opened{Refused: err.Error()}
		}
		out = append(out, o)
	}
	return out, nil
}

// find gets the signatures of a manifest.
func find(ctx context.Context, folders []string, ref image.Reference, digest image.Digest) ([][]byte, error) {
	base, err := lookasideOf(folders, ref)
	if err != nil {
		return nil, fmt.Errorf("registries.d: %w", err)
	}
	at, err := url.Parse(base)
	if err != nil || at.Scheme != "file" && at.Scheme != "http" && at.Scheme != "https" {
		return nil, fmt.Errorf("registries.d: %q is no URL of signatures", base)
	}
	at = at.JoinPath(ref.Path + "@" + digest.Algorithm() + "=" + digest.Encoded())
	var list [][]byte
	for n := 1; n <= maxLookaside; n++ {
		raw, err := readURL(ctx, at.JoinPath(fmt.Sprintf("signature-%d", n)))
		if errors.Is(err, fs.ErrNotExist) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		list = append(list, raw)
	}
	return list, nil
}

// lookasideOf finds the place for ref's repository.
func lookasideOf(folders []string, ref image.Reference) (string, error) {
	other := ""
	for _, dir := range folders {
		files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
		if err != nil {
			return "", err
		}
		for _, path := range files {
			raw, err := readSettings(path)
			if err != nil {
				return "", err
			}
			var set struct {
				Default *place           `yaml:"default-docker"`
				Docker  map[string]place `yaml:"docker"`
			}
			if err := yaml.Unmarshal(raw, &set); err != nil {
				return "", fmt.Errorf("%s: %w", path, err)
			}
			for _, scope := range trust.Scopes(ref) {
				if p, ok := set.Docker[scope]; ok && p.url() != "" {
					return p.url(), nil
				}
			}
			if set.Default != nil && other == "" {
				other = set.Default.url()
			}
		}
	}
	if other != "" {
		return other, nil
	}
	return defaultLookaside, nil
}

func readSettings(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return bounded(f, maxSettings)
}

func bounded(r io.Reader, max int64) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, max+1))
	if err == nil && int64(len(raw)) > max {
		err = fmt.Errorf("more than %d bytes", max)
	}
	return raw, err
}

// readURL reads a signature; fs.ErrNotExist means that there is none.
func readURL(ctx context.Context, at *url.URL) ([]byte, error) {
	if at.Scheme == "file" {
		f, err := os.Open(at.Path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		raw, err := bounded(f, trust.MaxPayload)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at.Path, err)
		}
		return raw, nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
		raw, err := bounded(res.Body, trust.MaxPayload)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at.Redacted(), err)
		}
		return raw, nil
	case http.StatusNotFound, http.StatusGone:
		return nil, fs.ErrNotExist
	}
	return nil, fmt.Errorf("%s: the server answered %s", at.Redacted(), strings.ToLower(res.Status))
}
