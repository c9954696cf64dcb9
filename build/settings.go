package build

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	dockerfileversion "github.com/moby/buildkit/frontend/dockerfile/version"
	"github.com/moby/buildkit/solver/llbsolver/cdidevices"
	"github.com/moby/buildkit/util/appdefaults"
	"github.com/moby/buildkit/util/disk"
	"github.com/moby/buildkit/util/resolver"
	"github.com/moby/buildkit/version"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	registry "cale/registry/client"
	"cale/registry/hosts"
)

// setVersion has BuildKit's code tell which version it is: its own build would
// set it, ours finds it among what was linked.
func setVersion() {
	info, ok := debug.ReadBuildInfo()
	if !ok || version.Version != unsetVersion {
		return
	}
	for _, m := range info.Deps {
		if m.Path == version.Package {
			version.Version = m.Version
		}
	}
}

const unsetVersion = "v0.0.0+unknown"

func buildkitVersion() client.BuildkitVersion {
	return client.BuildkitVersion{
		Package: version.Package, Version: version.Version, Revision: version.Revision, DockerfileVersion: dockerfileversion.Version(),
	}
}

// gcPolicy is what of the cache goes by itself: BuildKit's rules, with what the
// configuration says otherwise.
func gcPolicy(c config.GCConfig, dir string) []client.PruneInfo {
	if c.GC != nil && !*c.GC {
		return nil
	}
	stat, err := disk.GetDiskStat(dir)
	if err != nil {
		return nil // without knowing the disk there is no limit to keep
	}
	if len(c.GCPolicy) == 0 {
		c.GCPolicy = config.DefaultGCPolicy(c, stat)
	}
	var out []client.PruneInfo
	for _, r := range c.GCPolicy {
		out = append(out, client.PruneInfo{
			Filter: r.Filters, All: r.All, KeepDuration: r.KeepDuration.Duration, ReservedSpace: r.ReservedSpace.AsBytes(stat),
			MaxUsedSpace: r.MaxUsedSpace.AsBytes(stat), MinFreeSpace: r.MinFreeSpace.AsBytes(stat),
		})
	}
	return out
}

// deviceManager knows the devices that steps may ask for; nil if that is
// switched off.
func deviceManager(c config.CDIConfig) (*cdidevices.Manager, error) {
	if c.Disabled != nil && *c.Disabled {
		return nil, nil
	}
	dirs := c.SpecDirs
	if len(dirs) == 0 {
		dirs = appdefaults.CDISpecDirs
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(dirs...))
	if err != nil {
		return nil, fmt.Errorf("devices in %s: %w", strings.Join(dirs, ", "), err)
	}
	// A specification that can't be read is told to who asks for its device.
	_ = cache.Refresh()
	return cdidevices.NewManager(cache, c.AutoAllowed), nil
}

// registryHosts says where a registry's content is: what BuildKit's
// configuration names, else what is set for all of Cale.
func registryHosts(c config.Config, dirs hosts.Dirs) docker.RegistryHosts {
	configured := resolver.NewRegistryConfig(c.Registries)
	return func(domain string) ([]docker.RegistryHost, error) {
		if _, ok := c.Registries[domain]; ok {
			return configured(domain)
		}
		name := domain
		if name == "registry-1.docker.io" {
			name = "docker.io"
		}
		set, err := dirs.Load(name)
		if err != nil || set == nil {
			if err != nil {
				return nil, err
			}
			return configured(domain)
		}
		var out []docker.RegistryHost
		for _, h := range set.Hosts {
			if len(h.Rewrites) > 0 {
				return nil, fmt.Errorf("settings of registry %s: rewrite is not built yet in Cale's builds", name)
			}
			rh, err := registryHost(domain, h)
			if err != nil {
				return nil, err
			}
			out = append(out, rh)
		}
		if len(out) == 0 {
			return nil, errors.New("the settings of registry " + name + " name no host")
		}
		return out, nil
	}
}

func registryHost(domain string, h hosts.Host) (docker.RegistryHost, error) {
	r := docker.RegistryHost{Scheme: h.URL.Scheme, Host: h.URL.Host, Path: h.URL.Path, Header: h.Header}
	if r.Host == "" {
		r.Host, r.Path = domain, "/v2"
		if r.Host == "docker.io" {
			r.Host = "registry-1.docker.io"
		}
		r.Scheme = "https"
		if local, _ := docker.MatchLocalhost(domain); local && !h.TLS() {
			r.Scheme = "http"
		}
	}
	if h.Pull {
		r.Capabilities |= docker.HostCapabilityPull
	}
	if h.Resolve {
		r.Capabilities |= docker.HostCapabilityResolve
	}
	if h.Push {
		r.Capabilities |= docker.HostCapabilityPush
	}
	t, err := registry.Transport(h)
	if err != nil {
		return r, err
	}
	r.Client = &http.Client{Transport: t}
	return r, nil
}
