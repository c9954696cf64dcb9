package client

import (
	"context"
	"encoding/json"
)

// ManifestPlatform is for what machine an image of a manifest list is. Fields
// that are empty are left as they are.
type ManifestPlatform struct {
	OS           string `json:"os,omitempty"`
	Architecture string `json:"architecture,omitempty"`
	Variant      string `json:"variant,omitempty"`
	OSVersion    string `json:"os.version,omitempty"`
}

// ManifestInspect gives the document that a name stands for.
func (c *Client) ManifestInspect(ctx context.Context, name string, auth *Auth) (json.RawMessage, error) {
	var out struct{ Manifest json.RawMessage }
	err := c.call(ctx, request{method: "GET", path: "/cale/manifest/" + escName(name), header: auth.header()}, &out)
	return out.Manifest, err
}

// ManifestCreate makes a manifest list of images that the engine has; amend
// adds to one.
func (c *Client) ManifestCreate(ctx context.Context, name string, manifests []string, amend bool) (digest string, err error) {
	body := struct {
		Manifests []string
		Amend     bool
	}{manifests, amend}
	return c.manifestDigest(ctx, request{method: "POST", path: "/cale/manifest/" + escName(name), json: body})
}

// ManifestAnnotate changes the platform of one of a manifest list's images.
func (c *Client) ManifestAnnotate(ctx context.Context, name, manifest string, p ManifestPlatform) (digest string, err error) {
	body := struct {
		Manifest string
		Platform ManifestPlatform
	}{manifest, p}
	return c.manifestDigest(ctx, request{method: "POST", path: "/cale/manifest/" + escName(name) + "/annotate", json: body})
}

func (c *Client) manifestDigest(ctx context.Context, r request) (string, error) {
	var out struct{ Digest string }
	err := c.call(ctx, r, &out)
	return out.Digest, err
}
