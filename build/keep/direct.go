package keep

import (
	"context"
	"strings"

	"cale/image"
	"cale/image/signature"
	"cale/image/store"
	"cale/image/trust"
	"cale/registry/client"
	"cale/registry/hosts"
)

const (
	leaseBlob  = store.Only + "build/blob/"
	leaseLayer = store.Only + "build/layer/"
)

// Direct is a Keeper for a store that this process has open itself.
type Direct struct {
	Store    *store.Store
	Config   string     // the administrator's folder, with the policy
	HostDirs hosts.Dirs // of registries' settings
}

// Held implements Keeper.
func (d Direct) Held(context.Context) (c Content, err error) {
	for id := range d.Store.Leases() {
		if x, err := image.ParseDigest(strings.TrimPrefix(id, leaseBlob)); err == nil {
			c.Blobs = append(c.Blobs, x)
		} else if x, err := image.ParseDigest(strings.TrimPrefix(id, leaseLayer)); err == nil {
			c.Layers = append(c.Layers, x)
		}
	}
	return c, nil
}

// Hold implements Keeper.
func (d Direct) Hold(_ context.Context, c Content) error {
	return c.each(func(id string, x image.Digest) error { return d.Store.AddLease(id, x) })
}

// Release implements Keeper.
func (d Direct) Release(_ context.Context, c Content) error {
	return c.each(func(id string, _ image.Digest) error { return d.Store.RemoveLease(id) })
}

func (c Content) each(do func(id string, x image.Digest) error) error {
	for _, x := range c.Blobs {
		if err := do(leaseBlob+x.String(), x); err != nil {
			return err
		}
	}
	for _, x := range c.Layers {
		if err := do(leaseLayer+x.String(), x); err != nil {
			return err
		}
	}
	return nil
}

// Added implements Keeper.
func (d Direct) Added(_ context.Context, c Content, sync bool) error {
	if err := d.Store.Refresh(c.Blobs, c.Layers); err != nil {
		return err
	}
	if sync {
		return d.Store.Sync()
	}
	return nil
}

// Judge implements Keeper.
func (d Direct) Judge(ctx context.Context, name string, x image.Digest) error {
	ref, err := image.ParseReference(name)
	if err != nil {
		return err
	}
	tag := ref
	tag.Digest = image.Digest{}
	if now, err := d.Store.Resolve(tag.String()); err == nil && now.Digest == x {
		return nil
	}
	p, err := trust.Load(d.Config)
	if err != nil {
		return err
	}
	reg := client.New(client.Options{HostDirs: d.HostDirs})
	_, err = p.Check(ctx, trust.Image{Ref: ref, Digests: []image.Digest{x},
		Signatures: func(ctx context.Context, x image.Digest) ([]trust.Signature, error) {
			return signature.Fetch(ctx, reg, ref, x)
		}})
	return err
}

// Names implements Keeper.
func (d Direct) Names(context.Context) ([]Name, error) {
	all, err := d.Store.Names()
	if err != nil {
		return nil, err
	}
	out := make([]Name, 0, len(all))
	for _, n := range all {
		out = append(out, Name{Name: n.Name, Target: n.Target, Updated: n.Updated})
	}
	return out, nil
}

// SetName implements Keeper. What the name meant before, and an image without
// a tag, is kept under its digest, as the engine does.
func (d Direct) SetName(_ context.Context, name string, target image.Descriptor) error {
	ref := image.Reference{}
	if name != "" {
		var err error
		if ref, err = image.ParseReference(name); err != nil {
			return err
		}
	}
	if ref.IsZero() || !ref.Digest.IsZero() {
		return d.untagged(target)
	}
	before, err := d.Store.Resolve(ref.String())
	if err == nil && before.Digest != target.Digest {
		pin := d.Store.Pin()
		defer pin.Release()
		pin.Add(before.Digest)
	}
	if err2 := d.Store.SetName(ref.String(), target); err2 != nil {
		return err2
	}
	if err == nil && before.Digest != target.Digest {
		return d.untagged(before)
	}
	return nil
}

// untagged keeps an image that has no name by its digest.
func (d Direct) untagged(target image.Descriptor) error {
	names, err := d.Store.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if n.Target.Digest == target.Digest {
			return nil
		}
	}
	return d.Store.SetName(target.Digest.String(), target)
}
