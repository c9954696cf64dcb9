package client

import "context"

// Process is what a working container runs next; Env is beside the image's.
type Process struct {
	Args, Env []string
	User, Dir string
	TTY       bool
	OpenStdin bool
}

// WorkingConfig is the configuration that the image of a working container is
// to have.
func (c *Client) WorkingConfig(ctx context.Context, id string) (Config, error) {
	var out Config
	err := c.call(ctx, request{method: "GET", path: "/cale/working/" + esc(id)}, &out)
	return out, err
}

// SetWorkingConfig sets it, and makes a container that never ran a working
// container.
func (c *Client) SetWorkingConfig(ctx context.Context, id string, cfg Config) error {
	return c.call(ctx, request{method: "POST", path: "/cale/working/" + esc(id), json: cfg}, nil)
}

// SetProcess says what a working container runs when it is started next.
func (c *Client) SetProcess(ctx context.Context, id string, p Process) error {
	return c.call(ctx, request{method: "POST", path: "/cale/working/" + esc(id) + "/process", json: p}, nil)
}
