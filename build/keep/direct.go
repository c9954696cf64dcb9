package keep

import (
	"context"
	"strings"

	"cale/image"
	"cale/image/pull"
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

// IsLease tells the leases of builds, by their ids.
func IsLease(id string) bool {
	return strings.HasPrefix(id, leaseBlob) || strings.HasPrefix(id, leaseLayer)
}

// Direct is a Keeper for a store that this process has open itself.
type Direct struct {
	Store    *store.Store
	Config   string         // the administrator's folder, with the policy
	HostDirs hosts.Dirs     // of registries' settings
	Client   *client.Client // nil for one with HostDirs and no logins
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

// Restore implements Keeper.
func (d Direct) Restore(ctx context.Context, x image.Digest) error {
	pin := d.Store.Pin("build")
	defer pin.Release()
	pin.Add(x)
	reg := d.Client
	if reg == nil {
		reg = client.New(client.Options{HostDirs: d.HostDirs})
	}
	return pull.Restore(ctx, d.Store, reg, x)
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
func (d Direct) Names(context.Context) ([]store.Name, error) { return d.Store.Names() }

// SetName implements Keeper.
func (d Direct) SetName(_ context.Context, name string, target image.Descriptor) error {
	ref := image.Reference{}
	if name != "" {
		var err error
		if ref, err = image.ParseReference(name); err != nil {
			return err
		}
	}
	if ref.IsZero() || !ref.Digest.IsZero() {
		return d.Store.KeepUntagged(target)
	}
	return d.Store.Tag(ref.String(), target)
}
