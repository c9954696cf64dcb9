package client

import (
	"context"
	"encoding/json"
)

// Verified is an image that is signed as it must be. Types are the kinds of
// requirements that it meets.
type Verified struct {
	Ref    string
	Digest string
	Scope  string
	Types  []string
	Signed []Signed
}

// Signed is a signature that was accepted: of what, naming what, by which key
// (its fingerprint) or account.
type Signed struct {
	Digest    string
	Reference string
	Key       string
	Account   string
}

// ImageVerify asks whether an image in its registry is signed with a key (PEM)
// or, without one, as the engine's policy wants it.
func (c *Client) ImageVerify(ctx context.Context, name, key, identity string, auth *Auth) (Verified, error) {
	body := struct{ Key, Identity string }{key, identity}
	var v Verified
	err := c.call(ctx, request{method: "POST", path: "/cale/image/" + escName(name) + "/verify", json: body, header: auth.header()}, &v)
	return v, err
}

// ImageSign adds a signature to those of an image in its registry.
func (c *Client) ImageSign(ctx context.Context, name, digest string, payload, signature []byte, auth *Auth) error {
	body := struct {
		Digest             string
		Payload, Signature []byte
	}{digest, payload, signature}
	return c.call(ctx, request{method: "POST", path: "/cale/image/" + escName(name) + "/sign", json: body, header: auth.header()}, nil)
}

// ImageDigest asks the registry what a name stands for.
func (c *Client) ImageDigest(ctx context.Context, name string, auth *Auth) (string, error) {
	var out struct{ Descriptor struct{ Digest string } }
	err := c.call(ctx, request{method: "GET", path: "/distribution/" + escName(name) + "/json", header: auth.header()}, &out)
	return out.Descriptor.Digest, err
}

// TrustPolicy is the policy of signatures; nil if there is no file.
func (c *Client) TrustPolicy(ctx context.Context) (path string, policy json.RawMessage, err error) {
	var out struct {
		Path   string
		Policy json.RawMessage
	}
	err = c.call(ctx, request{method: "GET", path: "/cale/trust"}, &out)
	return out.Path, out.Policy, err
}

// TrustSet changes what the policy requires in one scope; nil takes the scope
// out.
func (c *Client) TrustSet(ctx context.Context, scope string, requirements any) error {
	body := struct {
		Scope        string
		Requirements any `json:",omitempty"`
	}{scope, requirements}
	return c.call(ctx, request{method: "POST", path: "/cale/trust", json: body}, nil)
}
