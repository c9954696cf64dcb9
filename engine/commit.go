package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cale/filetree"
	"cale/image"
	"cale/image/instruction"
	"cale/image/store"
	"cale/layer"
)

// CommitOptions say what to make of a container's files.
type CommitOptions struct {
	Name            string // repository[:tag]; "" leaves the image untagged
	Author, Comment string
	Pause           bool             // freeze the container meanwhile
	Config          *image.RunConfig // what it sets replaces the container's; may be nil
	Changes         []string         // Dockerfile instructions
}

// Commit makes an image of a container: its image's layers, what it changed as one more, and its configuration. It
// returns the image's id. Volumes are no part of it.
func (e *Engine) Commit(ctx context.Context, ref string, o CommitOptions) (id string, err error) {
	defer e.begin()()
	name, err := e.newName(o.Name)
	if err != nil {
		return "", err
	}
	c, err := e.find(ref)
	if err != nil {
		return "", err
	}
	// Nobody starts, stops or removes it meanwhile.
	if err := c.op.lock(ctx); err != nil {
		return "", err
	}
	defer c.op.unlock()
	c.mu.Lock()
	rec, removing := c.rec, c.removing
	c.mu.Unlock()
	if removing {
		return "", notFound("No such container: %s", ref)
	}
	run := committed(&rec.Run, o.Config)
	if rec.Working != nil {
		run = *rec.Working
		run.Env, run.Labels = slices.Clone(run.Env), maps.Clone(run.Labels)
	}
	if err := change(&run, o.Changes); err != nil {
		return "", err
	}
	parent, err := e.store.Image(image.Descriptor{Digest: rec.Manifest}, image.Platform{})
	if err != nil {
		return "", fmt.Errorf("commit container %s: its image: %w", ref, err)
	}
	pin := e.store.Pin("commit of " + ref)
	defer pin.Release()
	pin.Add(parent.ManifestDescriptor.Digest)
	if o.Pause {
		goOn, err := e.standStill(ctx, c, ref)
		if err != nil {
			return "", err
		}
		defer func() {
			if e2 := goOn(); e2 != nil && err == nil {
				err = e2
			}
		}()
	}
	desc, diffID, err := e.diff(ctx, c, pin)
	if err != nil {
		return "", fmt.Errorf("commit container %s: %w", ref, err)
	}
	now := time.Now().UTC()
	cfg := &image.Config{Platform: parent.Config.Platform, Created: &now, Author: o.Author, Run: run,
		DiffIDs: slices.Clone(parent.Config.DiffIDs), History: slices.Clone(parent.Config.History)}
	step := image.History{Created: &now, CreatedBy: strings.Join(rec.Run.Cmd, " "), Author: o.Author, Comment: o.Comment}
	layers := slices.Clone(parent.Manifest.Layers)
	if diffID == emptyLayer {
		step.EmptyLayer = true
	} else {
		cfg.DiffIDs, layers = append(cfg.DiffIDs, diffID), append(layers, desc)
	}
	cfg.History = append(cfg.History, step)
	img, err := e.putImage(pin, cfg, layers)
	if err != nil {
		return "", fmt.Errorf("commit container %s: %w", ref, err)
	}
	if err := e.nameImage(name, img.Target); err != nil {
		return "", err
	}
	e.emit(c, "commit", "comment", o.Comment, "imageID", img.ID.String(), "imageRef", o.Name)
	return img.ID.String(), nil
}

// emptyLayer is the diffID of a layer without files: two blocks of zeros.
var emptyLayer = image.FromBytes(make([]byte, 1024))

// diff stores what a container has changed as a layer.
func (e *Engine) diff(ctx context.Context, c *container, pin *store.Pin) (image.Descriptor, image.Digest, error) {
	upper, err := filetree.Open(c.upper())
	if err != nil {
		return image.Descriptor{}, image.Digest{}, err
	}
	defer upper.Close()
	return e.store.PutLayer(ctx, pin, func(ctx context.Context, w io.Writer) error { return layer.Diff(ctx, w, upper) })
}

// committed is a container's configuration as an image's, under what the client asks for.
func committed(from *Effective, over *image.RunConfig) image.RunConfig {
	var r image.RunConfig
	if over != nil {
		r = *over
	}
	if len(r.Entrypoint) == 0 {
		if len(r.Cmd) == 0 {
			r.Cmd = from.Cmd
		}
		if r.Entrypoint == nil {
			r.Entrypoint = from.Entrypoint
		}
	}
	for text, value := range map[*string]string{&r.User: from.User, &r.WorkingDir: from.WorkingDir, &r.StopSignal: from.StopSignal} {
		if *text == "" {
			*text = value
		}
	}
	set := map[string]bool{}
	for _, v := range r.Env {
		k, _, _ := strings.Cut(v, "=")
		set[k] = true
	}
	r.Env = slices.Clone(r.Env)
	for _, v := range from.Env {
		if k, _, _ := strings.Cut(v, "="); !set[k] {
			r.Env = append(r.Env, v)
		}
	}
	labels := map[string]string{}
	for _, m := range []map[string]string{from.Labels, r.Labels} {
		for k, v := range m {
			labels[k] = v
		}
	}
	r.Labels = labels
	r.Volumes = mergeVolumes(from.Volumes, r.Volumes)
	for _, p := range from.Exposed {
		r.ExposedPorts = append(r.ExposedPorts, strconv.Itoa(int(p.Number))+"/"+p.Protocol)
	}
	slices.Sort(r.ExposedPorts)
	r.ExposedPorts = slices.Compact(r.ExposedPorts)
	if h := from.Health; r.Healthcheck == nil && h != nil {
		r.Healthcheck = &image.Healthcheck{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod,
			StartInterval: h.StartInterval, Retries: h.Retries}
	}
	if r.Shell == nil {
		r.Shell = from.Shell
	}
	if r.OnBuild == nil {
		r.OnBuild = from.OnBuild
	}
	return r
}

// change applies a client's Dockerfile instructions.
func change(run *image.RunConfig, changes []string) error {
	if err := instruction.Apply(run, changes); err != nil {
		return invalid("%v", err)
	}
	if run.StopSignal != "" {
		if _, err := parseSignal(run.StopSignal); err != nil {
			return err
		}
	}
	return nil
}

// newName reads the name that an image made here is to have; the zero reference is none.
func (e *Engine) newName(text string) (image.Reference, error) {
	if text == "" {
		return image.Reference{}, nil
	}
	r, err := e.parseName(text)
	if err != nil {
		return r, err
	}
	if !r.Digest.IsZero() {
		return r, invalid("refusing to create a tag with a digest reference")
	}
	return r, nil
}

// nameImage makes an image that was made here visible: by its name, or as one without.
func (e *Engine) nameImage(name image.Reference, target image.Descriptor) error {
	if name.IsZero() {
		return e.store.KeepUntagged(target)
	}
	return e.setName(name, target)
}

// putImage stores an image of layers that are there. It has no name yet: pin keeps it.
func (e *Engine) putImage(pin *store.Pin, cfg *image.Config, layers []image.Descriptor) (*store.Image, error) {
	raw, err := cfg.Encode()
	if err != nil {
		return nil, err
	}
	if len(raw) > image.MaxConfigSize {
		return nil, invalid("the image's configuration has %d bytes, more than %d", len(raw), image.MaxConfigSize)
	}
	put := func(mt string, raw []byte) (image.Descriptor, error) {
		pin.Add(image.FromBytes(raw))
		return e.store.Put(mt, raw)
	}
	m := &image.Manifest{}
	if m.Config, err = put(image.MediaTypeConfig, raw); err != nil {
		return nil, err
	}
	for _, l := range layers {
		pin.Add(l.Digest)
		l.MediaType = ociLayer(l.MediaType)
		m.Layers = append(m.Layers, l)
	}
	if raw, err = m.Encode(); err != nil {
		return nil, err
	}
	target, err := put(image.MediaTypeManifest, raw)
	if err != nil {
		return nil, err
	}
	return e.store.Image(target, cfg.Platform)
}

// ociLayer gives Docker's layer types their OCI names: the bytes are the same, and a manifest is of one kind.
func ociLayer(mt string) string {
	switch mt {
	case image.MediaTypeDockerLayer:
		return image.MediaTypeLayer
	case image.MediaTypeDockerLayerGzip:
		return image.MediaTypeLayerGzip
	case image.MediaTypeDockerLayerZstd:
		return image.MediaTypeLayerZstd
	case image.MediaTypeDockerForeign:
		return image.MediaTypeForeignGzip
	}
	return mt
}

// hasEnded says whether a container's process is gone, though its end may still wait to be recorded: for the lock that
// the caller holds.
func hasEnded(c *container) bool {
	c.mu.Lock()
	r := c.run
	c.mu.Unlock()
	if r == nil {
		return true
	}
	err := unix.Kill(r.pid, 0)
	return errors.Is(err, unix.ESRCH)
}
