package client

import "context"

// Why says what keeps an image, a blob or an unpacked layer. Size is bytes.
type Why struct {
	Kind    string
	Digest  string
	Size    int64
	Holders []WhyHolder
}

// WhyHolder is one thing that keeps content; Path goes from what it holds to
// what was asked for.
type WhyHolder struct {
	Kind string
	Name string
	Path []string
}

// ImageWhy tells what holds content, by an image's name or a digest.
func (c *Client) ImageWhy(ctx context.Context, name string) (Why, error) {
	var w Why
	err := c.call(ctx, request{method: "GET", path: "/cale/image/" + name + "/why"}, &w)
	return w, err
}

// Explanation says why a container is as it is: what ended its processes, keeps things from them or slows them.
type Explanation struct {
	ID, Name, Status string
	Reasons          []struct{ Topic, Text, Hint string }
}

// ContainerExplain tells why a container ended or did not start, and what the kernel keeps from one that runs.
func (c *Client) ContainerExplain(ctx context.Context, name string) (Explanation, error) {
	var x Explanation
	err := c.call(ctx, request{method: "GET", path: "/cale/container/" + name + "/explain"}, &x)
	return x, err
}

// CheckReport is what a check of the engine's store read and found. Unverified
// are layers that could not be compared, as their blob is not here.
type CheckReport struct {
	Blobs, Images, Layers, Containers int
	Bytes                             int64
	Unverified                        int
	Problems                          []struct{ Object, Text, Repaired string }
}

// SystemCheck has the engine read back what it stores; repair also puts right
// what can be.
func (c *Client) SystemCheck(ctx context.Context, repair bool) (CheckReport, error) {
	var r CheckReport
	err := c.call(ctx, request{method: "POST", path: "/cale/system/check", query: values("repair", flag(repair))}, &r)
	return r, err
}
