package client

import "context"

// Checkpoint is a saved state of a container.
type Checkpoint struct{ Name string }

// CheckpointCreate saves a container's state under a name, in a directory of the engine's host or, with dir "", in the
// container's own. exit ends the container.
func (c *Client) CheckpointCreate(ctx context.Context, id, name, dir string, exit bool) error {
	body := struct {
		CheckpointID, CheckpointDir string
		Exit                        bool
	}{name, dir, exit}
	return c.call(ctx, request{method: "POST", path: "/containers/" + esc(id) + "/checkpoints", json: body}, nil)
}

// CheckpointList lists a container's checkpoints.
func (c *Client) CheckpointList(ctx context.Context, id, dir string) ([]Checkpoint, error) {
	var list []Checkpoint
	err := c.call(ctx, request{method: "GET", path: "/containers/" + esc(id) + "/checkpoints", query: values("dir", dir)}, &list)
	return list, err
}

// CheckpointRemove removes one.
func (c *Client) CheckpointRemove(ctx context.Context, id, name, dir string) error {
	return c.call(ctx, request{method: "DELETE", path: "/containers/" + esc(id) + "/checkpoints/" + esc(name), query: values("dir", dir)}, nil)
}
