package client

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"strconv"
	"strings"
)

// call sends a request and decodes its JSON answer into out (when not nil).
func (c *Client) call(ctx context.Context, q request, out any) error {
	r, err := c.do(ctx, q)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if out == nil {
		_, err := io.Copy(io.Discard, r.Body)
		return err
	}
	return json.NewDecoder(r.Body).Decode(out)
}

// raw sends a request and returns the answer's bytes.
func (c *Client) raw(ctx context.Context, q request) ([]byte, error) {
	r, err := c.do(ctx, q)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	return io.ReadAll(r.Body)
}

// body returns the answer's body, which the caller closes.
func (c *Client) body(ctx context.Context, q request) (io.ReadCloser, error) {
	r, err := c.do(ctx, q)
	if err != nil {
		return nil, err
	}
	return r.Body, nil
}

func esc(s string) string { return url.PathEscape(s) }

// escName escapes an image's name, whose slashes are the path's.
func escName(s string) string { return strings.ReplaceAll(url.PathEscape(s), "%2F", "/") }

// values builds a query from pairs; pairs with an empty value are left out.
func values(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	return v
}

func flag(b bool) string {
	if b {
		return "1"
	}
	return ""
}

// Filters is a listing's filter: key to accepted values.
type Filters map[string][]string

// String is the API's JSON form, empty for no filters.
func (f Filters) String() string {
	if len(f) == 0 {
		return ""
	}
	b, _ := json.Marshal(map[string][]string(f))
	return string(b)
}

// Created is the answer to a container's creation.
type Created struct {
	ID       string `json:"Id"`
	Warnings []string
}

// ContainerCreate creates a container.
func (c *Client) ContainerCreate(ctx context.Context, name, platform string, config *Config, host *HostConfig, net *NetworkingConfig) (Created, error) {
	body := struct {
		*Config
		HostConfig       *HostConfig
		NetworkingConfig *NetworkingConfig
	}{config, host, net}
	var out Created
	err := c.call(ctx, request{method: "POST", path: "/containers/create", query: values("name", name, "platform", platform), json: body}, &out)
	return out, err
}

// Start says how a container is started. Checkpoint is the name of what it goes on from, CheckpointDir a directory of
// the engine's host in which that is; "" is the container's own.
type Start struct{ DetachKeys, Checkpoint, CheckpointDir string }

// ContainerStart starts a container.
func (c *Client) ContainerStart(ctx context.Context, id string, s Start) error {
	return c.call(ctx, request{method: "POST", path: "/containers/" + esc(id) + "/start", query: values("detachKeys", s.DetachKeys,
		"checkpoint", s.Checkpoint, "checkpoint-dir", s.CheckpointDir)}, nil)
}

// Attach says which streams of a process to attach to.
type Attach struct {
	Stdin, Stdout, Stderr bool
	Logs                  bool
	DetachKeys            string
}

// ContainerAttach connects to a container's streams; it works before the
// container is started too.
func (c *Client) ContainerAttach(ctx context.Context, id string, a Attach) (*Stream, error) {
	return c.hijack(ctx, request{method: "POST", path: "/containers/" + esc(id) + "/attach", query: values("stream", "1",
		"stdin", flag(a.Stdin), "stdout", flag(a.Stdout), "stderr", flag(a.Stderr), "logs", flag(a.Logs), "detachKeys", a.DetachKeys)})
}

// ContainerWait waits until the container's condition ("not-running",
// "next-exit", "removed") holds. The engine has begun to wait once registered
// is called, which is before the container need be started.
func (c *Client) ContainerWait(ctx context.Context, id, condition string, registered func()) (Exit, error) {
	var e Exit
	r, err := c.do(ctx, request{method: "POST", path: "/containers/" + esc(id) + "/wait", query: values("condition", condition)})
	if err != nil {
		return e, err
	}
	defer r.Body.Close()
	if registered != nil {
		registered()
	}
	err = json.NewDecoder(r.Body).Decode(&e)
	return e, err
}

// ContainerResize sets the size of a container's terminal.
func (c *Client) ContainerResize(ctx context.Context, id string, width, height uint) error {
	return c.call(ctx, request{method: "POST", path: "/containers/" + esc(id) + "/resize", query: size(width, height)}, nil)
}

func size(w, h uint) url.Values {
	return values("w", strconv.Itoa(int(w)), "h", strconv.Itoa(int(h)))
}

// List says which containers to list.
type List struct {
	All, Size bool
	Owners    bool // those of other APIs' clients too, with who owns each
	Limit     int
	Filters   Filters
}

// ContainerList lists containers.
func (c *Client) ContainerList(ctx context.Context, l List) ([]Container, error) {
	v := values("all", flag(l.All), "size", flag(l.Size), "all-owners", flag(l.Owners), "filters", l.Filters.String())
	if l.Limit > 0 {
		v.Set("limit", strconv.Itoa(l.Limit))
	}
	var out []Container
	err := c.call(ctx, request{method: "GET", path: "/containers/json", query: v}, &out)
	return out, err
}

// ContainerInspect returns what steers the command line about a container.
func (c *Client) ContainerInspect(ctx context.Context, id string) (ContainerDetail, error) {
	var d ContainerDetail
	err := c.call(ctx, request{method: "GET", path: "/containers/" + esc(id) + "/json"}, &d)
	return d, err
}

// ContainerInspectRaw returns a container's inspection as the engine wrote it.
func (c *Client) ContainerInspectRaw(ctx context.Context, id string, size bool) ([]byte, error) {
	return c.raw(ctx, request{method: "GET", path: "/containers/" + esc(id) + "/json", query: values("size", flag(size))})
}

// ContainerRemove removes a container.
func (c *Client) ContainerRemove(ctx context.Context, id string, force, volumes, link bool) error {
	return c.call(ctx, request{method: "DELETE", path: "/containers/" + esc(id), query: values("force", flag(force), "v", flag(volumes), "link", flag(link))}, nil)
}

// ContainerStop stops or restarts (verb) a container; seconds nil leaves the
// container's own time.
func (c *Client) ContainerStop(ctx context.Context, verb, id, signal string, seconds *int) error {
	v := values("signal", signal)
	if seconds != nil {
		v.Set("t", strconv.Itoa(*seconds))
	}
	return c.call(ctx, request{method: "POST", path: "/containers/" + esc(id) + "/" + verb, query: v}, nil)
}

// ContainerKill sends a signal.
func (c *Client) ContainerKill(ctx context.Context, id, signal string) error {
	return c.call(ctx, request{method: "POST", path: "/containers/" + esc(id) + "/kill", query: values("signal", signal)}, nil)
}

// ContainerPost does one of the verbs without parameters: pause, unpause.
func (c *Client) ContainerPost(ctx context.Context, id, verb string) error {
	return c.call(ctx, request{method: "POST", path: "/containers/" + esc(id) + "/" + verb}, nil)
}

// ContainerRename renames a container.
func (c *Client) ContainerRename(ctx context.Context, id, name string) error {
	return c.call(ctx, request{method: "POST", path: "/containers/" + esc(id) + "/rename", query: values("name", name)}, nil)
}

// ContainerUpdate changes limits; it returns the engine's warnings.
func (c *Client) ContainerUpdate(ctx context.Context, id string, u UpdateConfig) ([]string, error) {
	var out struct{ Warnings []string }
	err := c.call(ctx, request{method: "POST", path: "/containers/" + esc(id) + "/update", json: u}, &out)
	return out.Warnings, err
}

// Alteration is what becomes different about a container's ports and mounts.
type Alteration struct {
	AddPorts     map[string][]PortBinding `json:",omitempty"`
	RemovePorts  map[string][]PortBinding `json:",omitempty"`
	AddBinds     []string                 `json:",omitempty"`
	AddMounts    []Mount                  `json:",omitempty"`
	RemoveMounts []string                 `json:",omitempty"`
}

// ContainerAlter changes ports and mounts; it returns warnings.
func (c *Client) ContainerAlter(ctx context.Context, id string, a Alteration) ([]string, error) {
	var out struct{ Warnings []string }
	err := c.call(ctx, request{method: "POST", path: "/cale/container/" + esc(id) + "/alter", json: a}, &out)
	return out.Warnings, err
}

// Logs says which part of a container's log to read. Since and Until are Unix
// times as the API takes them.
type Logs struct {
	Follow, Timestamps, Details bool
	Since, Until, Tail          string
}

// ContainerLogs reads a container's log; multiplexed unless the container has
// a terminal.
func (c *Client) ContainerLogs(ctx context.Context, id string, l Logs) (io.ReadCloser, error) {
	return c.body(ctx, request{method: "GET", path: "/containers/" + esc(id) + "/logs", query: values("stdout", "1", "stderr", "1",
		"follow", flag(l.Follow), "timestamps", flag(l.Timestamps), "details", flag(l.Details), "since", l.Since, "until", l.Until, "tail", l.Tail)})
}

// Top is a table of a container's processes.
type Top struct {
	Titles    []string
	Processes [][]string
}

// ContainerTop lists a container's processes.
func (c *Client) ContainerTop(ctx context.Context, id, args string) (Top, error) {
	var t Top
	err := c.call(ctx, request{method: "GET", path: "/containers/" + esc(id) + "/top", query: values("ps_args", args)}, &t)
	return t, err
}

// ContainerStats streams a container's statistics as JSON objects; once ends
// after one.
func (c *Client) ContainerStats(ctx context.Context, id string, stream bool) (io.ReadCloser, error) {
	v := url.Values{"stream": {strconv.FormatBool(stream)}}
	return c.body(ctx, request{method: "GET", path: "/containers/" + esc(id) + "/stats", query: v})
}

// Change is a path that differs from the image: 0 changed, 1 added, 2 deleted.
type Change struct {
	Path string
	Kind int
}

// ContainerDiff lists what a container has changed in its files.
func (c *Client) ContainerDiff(ctx context.Context, id string) ([]Change, error) {
	var out []Change
	err := c.call(ctx, request{method: "GET", path: "/containers/" + esc(id) + "/changes"}, &out)
	return out, err
}

// ContainerExport streams a container's files as tar.
func (c *Client) ContainerExport(ctx context.Context, id string) (io.ReadCloser, error) {
	return c.body(ctx, request{method: "GET", path: "/containers/" + esc(id) + "/export"})
}

// ExecCreate prepares a process; it returns its id.
func (c *Client) ExecCreate(ctx context.Context, container string, e ExecConfig) (string, error) {
	var out Created
	err := c.call(ctx, request{method: "POST", path: "/containers/" + esc(container) + "/exec", json: e}, &out)
	return out.ID, err
}

type execStart struct {
	Detach      bool
	Tty         bool
	ConsoleSize *[2]uint `json:",omitempty"`
}

// ExecStart starts a process without a stream.
func (c *Client) ExecStart(ctx context.Context, id string, tty bool) error {
	return c.call(ctx, request{method: "POST", path: "/exec/" + esc(id) + "/start", json: execStart{Detach: true, Tty: tty}}, nil)
}

// ExecAttach starts a process and takes over its streams.
func (c *Client) ExecAttach(ctx context.Context, id string, tty bool, console *[2]uint) (*Stream, error) {
	return c.hijack(ctx, request{method: "POST", path: "/exec/" + esc(id) + "/start", json: execStart{Tty: tty, ConsoleSize: console}})
}

// ExecResize sets the size of a process's terminal.
func (c *Client) ExecResize(ctx context.Context, id string, width, height uint) error {
	return c.call(ctx, request{method: "POST", path: "/exec/" + esc(id) + "/resize", query: size(width, height)}, nil)
}

// ExecInspect returns a process's state.
func (c *Client) ExecInspect(ctx context.Context, id string) (ExecState, error) {
	var s ExecState
	err := c.call(ctx, request{method: "GET", path: "/exec/" + esc(id) + "/json"}, &s)
	return s, err
}
