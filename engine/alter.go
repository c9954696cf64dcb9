package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"

	"cale/image"
)

// Alteration is what becomes different about the ports and mounts of a container that exists.
type Alteration struct {
	AddPorts    []Publish
	RemovePorts []Publish // HostPort 0 and the zero HostIP match any
	AddMounts   []Mount
	// RemoveMounts are targets. A target that is in AddMounts too gets another mount.
	RemoveMounts []string
}

// Alter changes a container's published ports and its mounts: those of a running one at once, except what the warnings
// name, which comes with its next start. After an error nothing is changed.
func (e *Engine) Alter(ctx context.Context, ref string, a Alteration) (warnings []string, err error) {
	defer e.begin()()
	c, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	if c.group != nil {
		return nil, conflict("container %s belongs to a pod, whose client decides what it has", c.id)
	}
	if err := c.op.lock(ctx); err != nil {
		return nil, err
	}
	defer c.op.unlock()
	ctx = context.WithoutCancel(ctx) // half an alteration is none
	c.mu.Lock()
	old, r, removing := c.rec, c.run, c.removing
	c.mu.Unlock()
	if removing {
		return nil, conflict("container %s is marked for removal and can't be changed", c.id)
	}
	rec := old
	if err := alterPorts(&rec, &a); err != nil {
		return nil, err
	}
	gone, err := alterMounts(&rec, &a)
	if err != nil {
		return nil, err
	}
	fresh, err := e.takeMounts(ctx, c, &rec, a.AddMounts)
	if err != nil {
		return nil, err
	}
	drop := func(list []Mount) {
		for _, m := range list {
			if m.Type == "volume" {
				e.volumes.drop(m.Source, c.id)
			}
		}
	}
	rec.Mounts = slices.Concat(rec.Mounts, fresh)
	// What is to be is written down first: whoever finds a part of it done knows which.
	if err := c.replaceRecord(&rec); err != nil {
		drop(fresh)
		return nil, err
	}
	if r != nil {
		if warnings, gone, err = e.alterLive(ctx, c, r, &rec, gone, fresh); err != nil {
			drop(fresh)
			return nil, errors.Join(err, c.replaceRecord(&old), e.nets.Republish(ctx, c.id, e.publish(&old)))
		}
	}
	drop(gone) // what goes with the next start is held until then
	e.emit(c, "update")
	return warnings, nil
}

// replaceRecord makes ports and mounts those of a record, on disk too.
func (c *container) replaceRecord(from *record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.rec
	c.rec.Spec, c.rec.Mounts = from.Spec, from.Mounts
	err := c.save(c.keep())
	if err != nil {
		c.rec = old
	}
	return err
}

// matches says whether a published port is meant by another that may leave the host's side open.
func (p *Publish) matches(what *Publish) bool {
	last := max(p.HostPort, p.HostPortEnd)
	return orTCP(p.Port) == orTCP(what.Port) && (what.HostPort == 0 || p.HostPort <= what.HostPort && what.HostPort <= last) &&
		(!what.HostIP.IsValid() || what.HostIP == p.HostIP)
}

func orTCP(p Port) Port {
	if p.Protocol == "" {
		p.Protocol = "tcp"
	}
	return p
}

func alterPorts(rec *record, a *Alteration) error {
	if len(a.AddPorts)+len(a.RemovePorts) == 0 {
		return nil
	}
	n := &rec.Spec.Network
	if _, joins := isOwn(n.Mode); !joins {
		return invalid("a container with the network mode %s publishes no ports", n.Mode)
	}
	list := slices.Clone(n.Publish)
	for i := range a.RemovePorts {
		what := &a.RemovePorts[i]
		before := len(list)
		if list = slices.DeleteFunc(list, func(p Publish) bool { return p.matches(what) }); len(list) == before {
			at := ""
			if what.HostPort != 0 {
				at = fmt.Sprintf(" on the host's port %d", what.HostPort)
			}
			return notFound("container %s does not publish %d/%s%s", rec.Name, what.Number, orTCP(what.Port).Protocol, at)
		}
	}
	for _, p := range a.AddPorts {
		if slices.Contains(list, p) {
			return conflict("container %s publishes %d/%s so already", rec.Name, p.Number, orTCP(p.Port).Protocol)
		}
		list = append(list, p)
	}
	n.Publish = list
	return nil
}

// alterMounts takes away what is to go, and notes what is to come; gone is what was mounted.
func alterMounts(rec *record, a *Alteration) (gone []Mount, err error) {
	s := &rec.Spec
	s.Mounts, rec.Mounts = slices.Clone(s.Mounts), slices.Clone(rec.Mounts)
	for _, target := range a.RemoveMounts {
		target = path.Clean(target)
		at := func(m Mount) bool { return path.Clean(m.Target) == target }
		i := slices.IndexFunc(rec.Mounts, at)
		if i < 0 {
			options, ok := s.Tmpfs[target]
			if !ok {
				return nil, notFound("container %s has no mount on %s", rec.Name, target)
			}
			s.Tmpfs = maps.Clone(s.Tmpfs)
			delete(s.Tmpfs, target)
			gone = append(gone, Mount{Type: "tmpfs", Target: target, TmpfsOptions: []string{options}})
			continue
		}
		gone = append(gone, rec.Mounts[i])
		rec.Mounts = slices.Delete(rec.Mounts, i, i+1)
		s.Mounts = slices.DeleteFunc(s.Mounts, at)
		s.AnonymousVolumes = slices.DeleteFunc(slices.Clone(s.AnonymousVolumes), func(v string) bool { return path.Clean(v) == target })
	}
	for i := range a.AddMounts {
		m := &a.AddMounts[i]
		m.FromImage, m.Anonymous, m.Layers = false, false, nil // these are not the client's to say
		if err := checkMount(m); err != nil {
			return nil, err
		}
		_, taken := s.Tmpfs[m.Target]
		if taken || slices.ContainsFunc(rec.Mounts, func(o Mount) bool { return o.Target == m.Target }) ||
			slices.ContainsFunc(a.AddMounts[:i], func(o Mount) bool { return o.Target == m.Target }) {
			return nil, invalid("Duplicate mount point: %s", m.Target)
		}
		s.Mounts = append(s.Mounts, *m)
	}
	return gone, nil
}

// takeMounts settles new mounts as a new container's are.
func (e *Engine) takeMounts(ctx context.Context, c *container, rec *record, list []Mount) (out []Mount, err error) {
	defer func() {
		if err != nil {
			for _, m := range out {
				if m.Type == "volume" {
					e.volumes.drop(m.Source, c.id)
				}
			}
		}
	}()
	for _, m := range list {
		if err := e.shieldRoot(&m); err != nil {
			return out, err
		}
		switch m.Type {
		case "image":
			if err := e.takeImage(ctx, c, &m); err != nil {
				return out, err
			}
		case "volume":
			img, err := e.store.Image(image.Descriptor{Digest: rec.Manifest}, image.Platform{})
			if err != nil {
				return out, fmt.Errorf("container %s: its image: %w", c.id, err)
			}
			_, err = e.takeVolume(ctx, c, img, &m)
			if err != nil {
				return out, err
			}
		}
		out = append(out, m)
	}
	return out, nil
}

// alterLive brings a running container in line with its altered record; went is what of gone it has no more. After an
// error what it mounted is gone again.
func (e *Engine) alterLive(ctx context.Context, c *container, r *run, rec *record, gone, fresh []Mount) (warnings []string, went []Mount, err error) {
	if err := e.nets.Republish(ctx, c.id, e.publish(rec)); err != nil {
		return nil, nil, networkError(err)
	}
	delayed := func(err error, what, target string) error {
		var why later
		if !errors.As(err, &why) {
			return err
		}
		warnings = append(warnings, fmt.Sprintf("the mount on %s %s with the next start of container %s: %s", target, what, rec.Name, why))
		return nil
	}
	var undo []func()
	defer func() {
		if err != nil {
			for _, f := range slices.Backward(undo) {
				f()
			}
		}
	}()
	for _, m := range gone {
		err := e.unmountLive(c, r, &m)
		if err == nil {
			went = append(went, m)
			undo = append(undo, func() {
				if err := e.mountLive(c, r, &m); err != nil {
					e.cfg.Log("container %s: mount %s again: %v", c.id, m.Target, err)
				}
			})
		}
		if err := delayed(err, "goes", m.Target); err != nil {
			return nil, nil, err
		}
	}
	for _, m := range fresh {
		err := e.mountLive(c, r, &m)
		if err == nil {
			undo = append(undo, func() {
				if err := e.unmountLive(c, r, &m); err != nil {
					e.cfg.Log("container %s: unmount %s again: %v", c.id, m.Target, err)
				}
			})
		}
		if err := delayed(err, "comes", m.Target); err != nil {
			return nil, nil, err
		}
	}
	return warnings, went, nil
}
