package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"cale/image"
	"cale/registry/client"
)

// RegistryHost is the host that a login is for, out of what clients call a registry's address: a host, a URL of one
// of the protocol's versions, or nothing for Docker Hub.
func RegistryHost(address string) string {
	if _, rest, ok := strings.Cut(address, "://"); ok {
		address = rest
	}
	host, _, _ := strings.Cut(address, "/")
	switch host {
	case "", "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return host
}

// Login asks a registry whether it takes credentials; refused ones are ErrUnauthorized. The engine keeps none: each
// pull and push brings its own.
func (e *Engine) Login(ctx context.Context, host string, c Credentials) error {
	defer e.begin()()
	if _, err := image.ParseReference(host + "/a"); err != nil || strings.ContainsAny(host, "/@") {
		return invalid("%q is not the address of a registry", host)
	}
	err := e.clientFor(&c, host).Ping(ctx, host)
	switch {
	case errors.Is(err, client.ErrDenied):
		return &Error{Class: ErrUnauthorized, Text: fmt.Sprintf("login attempt to %s failed: %v", host, err), Cause: err}
	case errors.Is(err, client.ErrNotFound):
		return &Error{Class: ErrInvalid, Text: fmt.Sprintf("login attempt to %s failed: it is no registry: %v", host, err), Cause: err}
	case err != nil:
		return &Error{Class: ErrUnavailable, Text: fmt.Sprintf("login attempt to %s failed: %v", host, err), Cause: err}
	}
	return nil
}

// Tags lists the tags that a repository has at its registry; one without any is ErrNoSuchImage.
func (e *Engine) Tags(ctx context.Context, repository string, c *Credentials) ([]string, error) {
	defer e.begin()()
	parsed, err := e.parseName(repository)
	if err != nil {
		return nil, err
	}
	tags, err := e.clientFor(c, parsed.Domain).Tags(ctx, parsed)
	if err != nil {
		return nil, registryError(err)
	}
	if len(tags) == 0 {
		return nil, fail(ErrNoSuchImage, "%s has no tags at its registry", e.familiarName(parsed))
	}
	return tags, nil
}

// Distribution is what a registry has under a name.
type Distribution struct {
	Descriptor image.Descriptor
	Platforms  []image.Platform
}

// Distribution asks a registry what a name stands for, without pulling it.
func (e *Engine) Distribution(ctx context.Context, ref string, c *Credentials) (Distribution, error) {
	defer e.begin()()
	var d Distribution
	parsed, err := e.parseName(ref)
	if err != nil {
		return d, err
	}
	reg := e.clientFor(c, parsed.Domain)
	if d.Descriptor, err = reg.Resolve(ctx, parsed); err != nil {
		return d, registryError(err)
	}
	raw, mt, err := reg.Manifest(ctx, parsed, d.Descriptor)
	if err != nil {
		return d, registryError(err)
	}
	d.Descriptor.MediaType = mt
	if image.IsIndex(mt) {
		x, err := image.ParseIndex(mt, raw)
		if err != nil {
			return d, fmt.Errorf("%s: %w", parsed.Familiar(), err)
		}
		for _, m := range x.Manifests {
			if m.Platform != nil {
				d.Platforms = append(d.Platforms, *m.Platform)
			}
		}
		return d, nil
	}
	m, err := image.ParseManifest(mt, raw)
	if err != nil {
		return d, fmt.Errorf("%s: %w", parsed.Familiar(), err)
	}
	if !image.IsConfig(m.Config.MediaType) {
		return d, nil // an artifact has no platform
	}
	cfg, err := remoteConfig(ctx, reg, parsed, m.Config)
	if err != nil {
		return d, registryError(err)
	}
	d.Platforms = []image.Platform{cfg.Platform}
	return d, nil
}

// remoteConfig reads an image's configuration at its registry.
func remoteConfig(ctx context.Context, reg *client.Client, ref image.Reference, desc image.Descriptor) (*image.Config, error) {
	if desc.Size > image.MaxConfigSize {
		return nil, fmt.Errorf("%s: its configuration has %d bytes, more than %d", ref.Familiar(), desc.Size, image.MaxConfigSize)
	}
	body, _, err := reg.Blob(ctx, ref, desc, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, desc.Size+1))
	if err != nil {
		return nil, fmt.Errorf("%s: read configuration: %w", ref.Familiar(), err)
	}
	h := desc.Digest.Hash()
	h.Write(raw)
	if have := image.FromHash(h); have != desc.Digest {
		return nil, fmt.Errorf("%s: %w: configuration %s is %s", ref.Familiar(), client.ErrDigest, desc.Digest, have)
	}
	return image.ParseConfig(raw)
}
