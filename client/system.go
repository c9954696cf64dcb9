package client

import (
	"context"
	"encoding/json"
	"io"
	"time"
)

// Info returns the engine's description of itself as it wrote it.
func (c *Client) Info(ctx context.Context) ([]byte, error) {
	return c.raw(ctx, request{method: "GET", path: "/info"})
}

// ServerVersion is the engine's version.
type ServerVersion struct {
	Version       string
	APIVersion    string `json:"ApiVersion"`
	MinAPIVersion string
	GitCommit     string
	GoVersion     string
	Os            string
	Arch          string
	KernelVersion string
	BuildTime     string
	Platform      struct{ Name string }
	Components    []struct {
		Name    string
		Version string
		Details map[string]string
	}
}

// ServerVersion returns the engine's version.
func (c *Client) ServerVersion(ctx context.Context) (ServerVersion, error) {
	var v ServerVersion
	err := c.call(ctx, request{method: "GET", path: "/version"}, &v)
	return v, err
}

// Events streams events as JSON objects. Since and until are Unix times.
func (c *Client) Events(ctx context.Context, since, until string, f Filters) (io.ReadCloser, error) {
	return c.body(ctx, request{method: "GET", path: "/events", query: values("since", since, "until", until, "filters", f.String())})
}

// Pruned is what a prune removed. Space is bytes.
type Pruned struct {
	ContainersDeleted []string
	ImagesDeleted     []Deleted
	NetworksDeleted   []string
	VolumesDeleted    []string
	CachesDeleted     []string
	SpaceReclaimed    int64
}

// Prune removes what is not used of a kind: containers, images, networks,
// volumes.
func (c *Client) Prune(ctx context.Context, kind string, f Filters) (Pruned, error) {
	var p Pruned
	err := c.call(ctx, request{method: "POST", path: "/" + kind + "/prune", query: values("filters", f.String())}, &p)
	return p, err
}

// PruneBuild removes what the build cache holds and nothing uses; all also what
// an image made here is cached for.
func (c *Client) PruneBuild(ctx context.Context, all bool, f Filters) (Pruned, error) {
	var p Pruned
	err := c.call(ctx, request{method: "POST", path: "/build/prune", query: values("all", flag(all), "filters", f.String())}, &p)
	return p, err
}

// DiskUsage is what the engine's objects take on disk.
type DiskUsage struct {
	LayersSize int64
	Images     []Image
	Containers []Container
	Volumes    []Volume
	BuildCache []CacheRecord
}

// CacheRecord is one thing that the build cache holds. Size is bytes.
type CacheRecord struct {
	ID, Type      string
	Size          int64
	InUse, Shared bool
	CreatedAt     time.Time
	LastUsedAt    *time.Time
	UsageCount    int
}

// DiskUsage returns what the engine's objects take on disk.
func (c *Client) DiskUsage(ctx context.Context) (DiskUsage, error) {
	var d DiskUsage
	err := c.call(ctx, request{method: "GET", path: "/system/df"}, &d)
	return d, err
}

// BuildCache lists what the build cache holds.
func (c *Client) BuildCache(ctx context.Context) ([]CacheRecord, error) {
	var d DiskUsage
	err := c.call(ctx, request{method: "GET", path: "/system/df", query: values("type", "build-cache")}, &d)
	return d.BuildCache, err
}

// Login checks credentials with their registry; it returns the registry's
// status and, if it gives one, an identity token.
func (c *Client) Login(ctx context.Context, a Auth) (status, token string, err error) {
	var out struct{ Status, IdentityToken string }
	err = c.call(ctx, request{method: "POST", path: "/auth", json: a}, &out)
	return out.Status, out.IdentityToken, err
}

// VolumeCreate makes a volume.
func (c *Client) VolumeCreate(ctx context.Context, name, driver string, options, labels map[string]string) (Volume, error) {
	body := struct {
		Name       string
		Driver     string            `json:",omitempty"`
		DriverOpts map[string]string `json:",omitempty"`
		Labels     map[string]string `json:",omitempty"`
	}{name, driver, options, labels}
	var v Volume
	err := c.call(ctx, request{method: "POST", path: "/volumes/create", json: body}, &v)
	return v, err
}

// VolumeList lists volumes.
func (c *Client) VolumeList(ctx context.Context, f Filters) ([]Volume, []string, error) {
	var out struct {
		Volumes  []Volume
		Warnings []string
	}
	err := c.call(ctx, request{method: "GET", path: "/volumes", query: values("filters", f.String())}, &out)
	return out.Volumes, out.Warnings, err
}

// VolumeInspectRaw returns a volume as the engine wrote it.
func (c *Client) VolumeInspectRaw(ctx context.Context, name string) ([]byte, error) {
	return c.raw(ctx, request{method: "GET", path: "/volumes/" + esc(name)})
}

// VolumeSnapshot copies a volume into a new one; an empty name makes one.
func (c *Client) VolumeSnapshot(ctx context.Context, volume, name string, labels map[string]string, noPause bool) (Volume, error) {
	body := struct {
		Name    string            `json:",omitempty"`
		Labels  map[string]string `json:",omitempty"`
		NoPause bool              `json:",omitempty"`
	}{name, labels, noPause}
	var v Volume
	err := c.call(ctx, request{method: "POST", path: "/cale/volume/" + esc(volume) + "/snapshot", json: body}, &v)
	return v, err
}

// VolumeExport streams a volume's files as a tar.
func (c *Client) VolumeExport(ctx context.Context, volume string) (io.ReadCloser, error) {
	return c.body(ctx, request{method: "GET", path: "/cale/volume/" + esc(volume) + "/export"})
}

// VolumeImport unpacks a tar, which may be compressed, into a volume, which is
// made if it isn't there.
func (c *Client) VolumeImport(ctx context.Context, volume string, tar io.Reader) (Volume, error) {
	var v Volume
	err := c.call(ctx, request{method: "POST", path: "/cale/volume/" + esc(volume) + "/import", stream: tar}, &v)
	return v, err
}

// VolumeRemove removes a volume.
func (c *Client) VolumeRemove(ctx context.Context, name string, force bool) error {
	return c.call(ctx, request{method: "DELETE", path: "/volumes/" + esc(name), query: values("force", flag(force))}, nil)
}

// NetworkCreate makes a network; it returns its id and a warning.
func (c *Client) NetworkCreate(ctx context.Context, n NetworkCreate) (id, warning string, err error) {
	var out struct {
		ID      string `json:"Id"`
		Warning string
	}
	err = c.call(ctx, request{method: "POST", path: "/networks/create", json: n}, &out)
	return out.ID, out.Warning, err
}

// NetworkList lists networks.
func (c *Client) NetworkList(ctx context.Context, f Filters) ([]Network, error) {
	var out []Network
	err := c.call(ctx, request{method: "GET", path: "/networks", query: values("filters", f.String())}, &out)
	return out, err
}

// NetworkInspectRaw returns a network as the engine wrote it.
func (c *Client) NetworkInspectRaw(ctx context.Context, name string, verbose bool) ([]byte, error) {
	return c.raw(ctx, request{method: "GET", path: "/networks/" + esc(name), query: values("verbose", flag(verbose))})
}

// NetworkRemove removes a network.
func (c *Client) NetworkRemove(ctx context.Context, name string) error {
	return c.call(ctx, request{method: "DELETE", path: "/networks/" + esc(name)}, nil)
}

// NetworkConnect attaches a container to a network.
func (c *Client) NetworkConnect(ctx context.Context, network, container string, e *EndpointSettings) error {
	body := struct {
		Container      string
		EndpointConfig *EndpointSettings `json:",omitempty"`
	}{container, e}
	return c.call(ctx, request{method: "POST", path: "/networks/" + esc(network) + "/connect", json: body}, nil)
}

// NetworkDisconnect detaches a container from a network.
func (c *Client) NetworkDisconnect(ctx context.Context, network, container string, force bool) error {
	body := struct {
		Container string
		Force     bool
	}{container, force}
	return c.call(ctx, request{method: "POST", path: "/networks/" + esc(network) + "/disconnect", json: body}, nil)
}

// Registry is one registry the engine serves from its own store. Its files are
// on the engine's machine.
type Registry struct {
	Address  string // host:port
	ReadOnly bool   `json:",omitempty"`
	Htpasswd string `json:",omitempty"`
	Cert     string `json:",omitempty"`
	Key      string `json:",omitempty"`
	Mirror   string `json:",omitempty"` // the registry that is mirrored
}

// RegistryServe asks the engine to serve its store as a registry; it returns
// the address it really listens on.
func (c *Client) RegistryServe(ctx context.Context, how Registry) (string, error) {
	var out Registry
	r, err := c.send(ctx, request{method: "POST", path: "/cale/registry", json: how})
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	err = json.NewDecoder(r.Body).Decode(&out)
	return out.Address, err
}

// RegistryList lists the registries the engine serves.
func (c *Client) RegistryList(ctx context.Context) ([]Registry, error) {
	r, err := c.send(ctx, request{method: "GET", path: "/cale/registry"})
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	var out []Registry
	err = json.NewDecoder(r.Body).Decode(&out)
	return out, err
}

// RegistryStop stops serving on an address.
func (c *Client) RegistryStop(ctx context.Context, address string) error {
	r, err := c.send(ctx, request{method: "DELETE", path: "/cale/registry", query: values("address", address)})
	if err != nil {
		return err
	}
	return r.Body.Close()
}
