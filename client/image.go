package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/url"
	"strconv"
)

// Auth is a registry's credentials.
type Auth struct {
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	ServerAddress string `json:"serveraddress,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

func (a *Auth) header() map[string]string {
	if a == nil {
		return nil
	}
	b, _ := json.Marshal(a)
	return map[string]string{"X-Registry-Auth": base64.URLEncoding.EncodeToString(b)}
}

// ImagePull pulls name (with tag or digest; empty tag with all pulls every
// tag) and streams its progress.
func (c *Client) ImagePull(ctx context.Context, name, tag, platform string, auth *Auth) (io.ReadCloser, error) {
	return c.body(ctx, request{method: "POST", path: "/images/create", query: values("fromImage", name, "tag", tag, "platform", platform), header: auth.header()})
}

// ImagePush pushes name and streams its progress.
func (c *Client) ImagePush(ctx context.Context, name, tag, platform string, auth *Auth) (io.ReadCloser, error) {
	if auth == nil {
		auth = &Auth{} // the API wants the header
	}
	return c.body(ctx, request{method: "POST", path: "/images/" + escName(name) + "/push", query: values("tag", tag, "platform", platform), header: auth.header()})
}

// ImageList lists images.
func (c *Client) ImageList(ctx context.Context, all, sharedSize bool, f Filters) ([]Image, error) {
	var out []Image
	err := c.call(ctx, request{method: "GET", path: "/images/json", query: values("all", flag(all), "shared-size", flag(sharedSize), "filters", f.String())}, &out)
	return out, err
}

// ImageInspectRaw returns an image's inspection as the engine wrote it.
func (c *Client) ImageInspectRaw(ctx context.Context, name, platform string) ([]byte, error) {
	return c.raw(ctx, request{method: "GET", path: "/images/" + escName(name) + "/json", query: values("platform", platform)})
}

// ImageHistory returns an image's history, newest first.
func (c *Client) ImageHistory(ctx context.Context, name, platform string) ([]ImageHistory, error) {
	var out []ImageHistory
	err := c.call(ctx, request{method: "GET", path: "/images/" + escName(name) + "/history", query: values("platform", platform)}, &out)
	return out, err
}

// ImageRemove removes a name, and the image with its last name.
func (c *Client) ImageRemove(ctx context.Context, name string, force, noPrune bool) ([]Deleted, error) {
	var out []Deleted
	err := c.call(ctx, request{method: "DELETE", path: "/images/" + escName(name), query: values("force", flag(force), "noprune", flag(noPrune))}, &out)
	return out, err
}

// Found is one result of a search.
type Found struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	StarCount   int    `json:"star_count"`
	Official    bool   `json:"is_official"`
}

// ImageSearch searches a registry.
func (c *Client) ImageSearch(ctx context.Context, term string, limit int, f Filters, auth *Auth) ([]Found, error) {
	v := values("term", term, "filters", f.String())
	if limit > 0 {
		v.Set("limit", strconv.Itoa(limit))
	}
	var out []Found
	err := c.call(ctx, request{method: "GET", path: "/images/search", query: v, header: auth.header()}, &out)
	return out, err
}

// ImageTag gives an image another name.
func (c *Client) ImageTag(ctx context.Context, source, repo, tag string) error {
	return c.call(ctx, request{method: "POST", path: "/images/" + escName(source) + "/tag", query: values("repo", repo, "tag", tag)}, nil)
}

// ImageSave streams images as a tar.
func (c *Client) ImageSave(ctx context.Context, names []string, platform string) (io.ReadCloser, error) {
	v := values("platform", platform)
	v["names"] = names
	return c.body(ctx, request{method: "GET", path: "/images/get", query: v})
}

// ImageLoad loads a tar of images and streams what it does.
func (c *Client) ImageLoad(ctx context.Context, tar io.Reader, quiet bool, platform string) (io.ReadCloser, error) {
	v := values("platform", platform)
	v.Set("quiet", "0")
	if quiet {
		v.Set("quiet", "1")
	}
	return c.body(ctx, request{method: "POST", path: "/images/load", query: v, stream: tar})
}

// Import says what to make of an imported tar.
type Import struct {
	Source, Repo, Tag, Message, Platform string
	Changes                              []string
}

// ImageImport makes an image of a tar of files (Source "-" sends it).
func (c *Client) ImageImport(ctx context.Context, i Import, tar io.Reader) (io.ReadCloser, error) {
	v := values("fromSrc", i.Source, "repo", i.Repo, "tag", i.Tag, "message", i.Message, "platform", i.Platform)
	if len(i.Changes) > 0 {
		v["changes"] = i.Changes
	}
	return c.body(ctx, request{method: "POST", path: "/images/create", query: v, stream: tar})
}

// Commit says what to make of a container's files.
type Commit struct {
	Container, Repo, Tag, Comment, Author string
	Changes                               []string
	Pause                                 bool
}

// ContainerCommit makes an image of a container; it returns its id.
func (c *Client) ContainerCommit(ctx context.Context, m Commit) (string, error) {
	v := values("container", m.Container, "repo", m.Repo, "tag", m.Tag, "comment", m.Comment, "author", m.Author)
	if len(m.Changes) > 0 {
		v["changes"] = m.Changes
	}
	if !m.Pause {
		v.Set("pause", "0")
	}
	var out Created
	err := c.call(ctx, request{method: "POST", path: "/commit", query: v, json: struct{}{}}, &out)
	return out.ID, err
}

// Stat describes a file of a container.
type Stat struct {
	Name       string `json:"name"`
	Size       int64  `json:"size"`
	Mode       uint32 `json:"mode"` // an fs.FileMode
	LinkTarget string `json:"linkTarget"`
}

// ContainerStat returns what path in a container is.
func (c *Client) ContainerStat(ctx context.Context, id, path string) (Stat, error) {
	var s Stat
	r, err := c.do(ctx, request{method: "HEAD", path: "/containers/" + esc(id) + "/archive", query: url.Values{"path": {path}}})
	if err != nil {
		return s, err
	}
	r.Body.Close()
	return s, statHeader(r, &s)
}

// ContainerCopyFrom streams path of a container as a tar.
func (c *Client) ContainerCopyFrom(ctx context.Context, id, path string) (io.ReadCloser, Stat, error) {
	var s Stat
	r, err := c.do(ctx, request{method: "GET", path: "/containers/" + esc(id) + "/archive", query: url.Values{"path": {path}}})
	if err != nil {
		return nil, s, err
	}
	if err := statHeader(r, &s); err != nil {
		r.Body.Close()
		return nil, s, err
	}
	return r.Body, s, nil
}

func statHeader(r *Response, s *Stat) error {
	b, err := base64.StdEncoding.DecodeString(r.Header.Get("X-Docker-Container-Path-Stat"))
	if err != nil {
		return err
	}
	return json.Unmarshal(b, s)
}

// ContainerCopyTo unpacks a tar in directory path of a container. noOverwrite
// refuses to put a directory in a file's place and the other way round.
func (c *Client) ContainerCopyTo(ctx context.Context, id, path string, tar io.Reader, noOverwrite, copyUIDGID bool) error {
	return c.call(ctx, request{method: "PUT", path: "/containers/" + esc(id) + "/archive", stream: tar,
		query: values("path", path, "noOverwriteDirNonDir", flag(noOverwrite), "copyUIDGID", flag(copyUIDGID))}, nil)
}
