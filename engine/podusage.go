package engine

import "context"

// ImageUsage is what images take up on disk.
type ImageUsage struct {
	Bytes         int64 // unpacked layers, and the blobs they came as
	Layers, Blobs int
}

// ImageBytes measures all images together.
func (e *Engine) ImageBytes(ctx context.Context) (u ImageUsage, err error) {
	blobs, err := e.store.Blobs()
	if err != nil {
		return u, err
	}
	layers, err := e.store.Layers.List()
	if err != nil {
		return u, err
	}
	for _, d := range blobs {
		if n, err := e.store.Stat(d); err == nil {
			u.Bytes += n
			u.Blobs++
		}
	}
	for _, d := range layers {
		if n, err := e.store.Layers.Size(d); err == nil {
			u.Bytes += n
			u.Layers++
		}
	}
	return u, ctx.Err()
}

// HugepageLimits says whether the kernel can limit huge pages.
func HugepageLimits() bool { return hugepageLimits() }

// SwapLimits says whether the kernel can limit memory and swap together.
func SwapLimits() bool { return swapLimits() }
