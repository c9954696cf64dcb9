package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"cale/image"
	"cale/image/pull"
	"cale/image/push"
	"cale/image/store"
	"cale/image/trust"
	"cale/registry/client"
)

// An image without a tag is kept by a name that is the digest of what it was: the name goes when a tag comes, and a
// prune takes it away.

// imageCache keeps parsed images: they are immutable, and each start asks for one.
type imageCache struct {
	mu    sync.Mutex
	byKey map[string]*store.Image
	inits map[image.Digest]bool // by id: whether the layer of mount points fits

	refused sync.Once // it was told that layers can't be as the settings want them
}

const maxImages = 64

func (e *Engine) loadImage(target image.Descriptor, p image.Platform) (*store.Image, error) {
	key := target.Digest.String() + " " + p.String()
	e.images.mu.Lock()
	img := e.images.byKey[key]
	e.images.mu.Unlock()
	if img != nil {
		if _, err := e.store.Stat(img.ManifestDescriptor.Digest); err == nil {
			return img, nil
		}
	}
	img, err := e.store.Image(target, p)
	if err != nil {
		return nil, err
	}
	e.images.mu.Lock()
	if len(e.images.byKey) >= maxImages || e.images.byKey == nil {
		e.images.byKey = map[string]*store.Image{}
	}
	e.images.byKey[key] = img
	e.images.mu.Unlock()
	return img, nil
}

// resolveImage finds an image by name, id or prefix of an id; ref is how to call it, in the short form.
func (e *Engine) resolveImage(name, platform string) (img *store.Image, ref string, err error) {
	var p image.Platform
	if platform != "" {
		if p, err = image.ParsePlatform(platform); err != nil {
			return nil, "", invalid("%v", err)
		}
	}
	target, ref, err := e.resolveTarget(name)
	if err != nil {
		return nil, "", err
	}
	img, err = e.loadImage(target, p)
	if errors.Is(err, image.ErrNoPlatform) || errors.Is(err, store.ErrNotFound) {
		return nil, "", &Error{Class: ErrNoSuchImage, Text: fmt.Sprintf("No such image: %s (for the platform %s)", ref, p), Cause: err}
	}
	// A name without an index has one platform: another one is as good as missing.
	if err == nil && platform != "" && img.Config.Platform.OS != "" && p.Score(img.Config.Platform) == 0 {
		return nil, "", fail(ErrNoSuchImage, "No such image: image with reference %s was found but does not match the specified platform: wanted %s, actual: %s", ref, p, img.Config.Platform)
	}
	return img, ref, err
}

func (e *Engine) resolveTarget(name string) (image.Descriptor, string, error) {
	var none image.Descriptor
	if name == "" {
		return none, "", invalid("no image given")
	}
	if strings.TrimSpace(name) == "" {
		return none, "", invalid("image name cannot be blank")
	}
	if d, err := image.ParseDigest(name); err == nil {
		return e.targetByID(d.String(), name)
	}
	if strings.HasPrefix(name, "sha256:") && len(name) > len("sha256:") && strings.Trim(name[7:], "0123456789abcdef") == "" {
		return e.targetByID(name, name)
	}
	parsed, err := e.parseName(name)
	if err != nil && !isReferenceError(err) {
		return none, "", err
	}
	if err == nil {
		target, err := e.store.Resolve(parsed.String())
		if err == nil {
			return target, e.familiar(parsed), nil
		}
		if !parsed.Digest.IsZero() {
			// name@digest of what was pulled by its tag
			if t, err := e.targetByDigest(parsed); err == nil {
				return t, e.familiar(parsed), nil
			}
		}
		if !errors.Is(err, store.ErrNotFound) {
			return none, "", err
		}
	}
	if len(name) >= 4 && len(name) <= 64 && strings.Trim(name, "0123456789abcdef") == "" {
		if t, r, err := e.targetByID("sha256:"+name, name); err == nil || !errors.Is(err, ErrNoSuchImage) {
			return t, r, err
		}
	}
	if err != nil {
		return none, "", err
	}
	return none, "", fail(ErrNoSuchImage, "No such image: %s", e.familiar(parsed))
}

// targetByID finds what is called by the digest (or a prefix of it) of its configuration or of itself.
func (e *Engine) targetByID(prefix, asked string) (image.Descriptor, string, error) {
	names, err := e.store.Names()
	if err != nil {
		return image.Descriptor{}, "", err
	}
	var found image.Descriptor
	foundID := ""
	for _, n := range names {
		img, err := e.loadImage(n.Target, image.Platform{})
		if err != nil {
			continue // an index of things that are no images, or incomplete
		}
		id := img.ID.String()
		if !strings.HasPrefix(id, prefix) && !strings.HasPrefix(n.Target.Digest.String(), prefix) && !strings.HasPrefix(img.ManifestDescriptor.Digest.String(), prefix) {
			continue
		}
		if foundID != "" && foundID != id {
			return found, "", invalid("image id prefix %s is not unique", asked)
		}
		found, foundID = n.Target, id
	}
	if foundID == "" {
		return found, "", fail(ErrNoSuchImage, "No such image: %s", asked)
	}
	return found, asked, nil
}

// targetByDigest finds repository@digest among the repository's tags.
func (e *Engine) targetByDigest(ref image.Reference) (image.Descriptor, error) {
	names, err := e.store.Names()
	if err != nil {
		return image.Descriptor{}, err
	}
	for _, n := range names {
		r, err := image.ParseReference(n.Name)
		if err == nil && r.Name() == ref.Name() && n.Target.Digest == ref.Digest {
			return n.Target, nil
		}
	}
	return image.Descriptor{}, store.ErrNotFound
}

// leaseImage keeps an image while its container exists.
func (e *Engine) leaseImage(id string, img *store.Image) error {
	return e.store.AddLease(id, img.ManifestDescriptor.Digest, img.ID)
}

// PullOptions say how an image is to be pulled.
type PullOptions struct {
	Platform    string       // "" is this machine's; "all" keeps every part of an image of several
	Credentials *Credentials // nil are those that are kept for the registry
	Progress    func(pull.Event)
	// Pods has the name be theirs, if nobody else has it already; Namespace is the one of Kubernetes that they are in,
	// whose policy of signatures counts.
	Pods      bool
	Namespace string
}

// podsOwner has the names that were set for pods.
const podsOwner = "pods"

// Pull brings an image. digest is what its name stands for, "sha256:…", fresh says whether anything new came.
func (e *Engine) Pull(ctx context.Context, ref string, opts PullOptions) (digest string, fresh bool, err error) {
	defer e.begin()()
	parsed, err := e.parseName(ref)
	if err != nil {
		return "", false, err
	}
	reg := e.clientFor(opts.Credentials, parsed.Domain)
	settings, err := e.imageSettings()
	if err != nil {
		return "", false, err
	}
	o := pull.Options{Store: e.store, Client: reg, Drop: settings.Compressed == "drop", Ref: parsed, Progress: opts.Progress, Verify: e.judge(reg, parsed, opts.Namespace)}
	if opts.Pods {
		o.Owner = podsOwner
	}
	switch opts.Platform {
	case "":
	case "all":
		o.Whole = true
	default:
		if o.Platform, err = image.ParsePlatform(opts.Platform); err != nil {
			return "", false, invalid("%v", err)
		}
	}
	name := pull.Name(parsed)
	before, beforeErr := e.store.Resolve(name)
	release := e.keepOld(before)
	defer release()
	target, err := pull.Pull(ctx, o)
	if err != nil {
		return "", false, registryError(err)
	}
	if beforeErr == nil && before.Digest != target.Digest {
		if err := e.store.KeepUntagged(before); err != nil {
			return "", false, err
		}
	}
	e.dropUntagged(target)
	e.emitOther("image", "pull", e.familiar(parsed), "name", e.familiarName(parsed))
	return target.Digest.String(), beforeErr != nil || before.Digest != target.Digest, nil
}

// keepOld pins what a name meant, while the name is being moved.
func (e *Engine) keepOld(d image.Descriptor) (release func()) {
	if d.Digest.IsZero() {
		return func() {}
	}
	pin := e.store.Pin("pull that moves its name")
	pin.Add(d.Digest)
	return pin.Release
}

// dropUntagged takes that name away when the image has a tag (again).
func (e *Engine) dropUntagged(d image.Descriptor) {
	if err := e.store.DropUntagged(d); err != nil {
		e.cfg.Log("image %s: %v", d.Digest, err)
	}
}

func registryError(err error) error {
	switch {
	case errors.Is(err, client.ErrNotFound), errors.Is(err, client.ErrDenied), errors.Is(err, image.ErrNoPlatform):
		return &Error{Class: ErrNotFound, Text: err.Error(), Cause: err}
	case errors.Is(err, trust.ErrRejected):
		return &Error{Class: ErrForbidden, Text: err.Error(), Cause: err}
	}
	return err
}

// Push sends an image; size is of what its name stands for.
func (e *Engine) Push(ctx context.Context, ref, platform string, c *Credentials, progress func(pull.Event)) (digest string, size int64, err error) {
	defer e.begin()()
	parsed, err := e.parseName(ref)
	if err != nil {
		return "", 0, err
	}
	if _, err := e.store.Resolve(parsed.String()); errors.Is(err, store.ErrNotFound) {
		return "", 0, notFound("An image does not exist locally with the tag: %s", e.familiarName(parsed))
	}
	o := push.Options{Store: e.store, Client: e.clientFor(c, parsed.Domain), Ref: parsed, Progress: progress}
	if platform != "" {
		if o.Platform, err = image.ParsePlatform(platform); err != nil {
			return "", 0, invalid("%v", err)
		}
	}
	defer e.collectSpare()
	d, err := push.Push(ctx, o)
	if err != nil {
		return "", 0, registryError(err)
	}
	e.emitOther("image", "push", e.familiar(parsed), "name", e.familiarName(parsed))
	return d.Digest.String(), d.Size, nil
}

// unpack unpacks what is missing of an image's layers.
func (e *Engine) unpack(ctx context.Context, img *store.Image) error {
	if _, err := e.imageSettings(); err != nil {
		return err
	}
	return pull.Unpack(ctx, e.store, e.registry, img)
}

// RestoreBlob brings a blob that is not kept beside its unpacked layer back from where it came, for as long as it is
// pinned.
func (e *Engine) RestoreBlob(ctx context.Context, d image.Digest) error {
	return pull.Restore(ctx, e.store, e.registry, d)
}

// LendBlob is RestoreBlob for a registry of this engine's, which tells when it does not need the blob any more. One that
// somebody else is bringing back, who may be asking for it, is pass; see pull.Lend. One that is always kept is
// store.ErrNotFound.
func (e *Engine) LendBlob(ctx context.Context, d image.Digest, own func(domain string) bool) (pass io.ReadCloser, done func(), err error) {
	if _, err := e.store.Origin(d); err != nil {
		return nil, nil, err
	}
	if pass, err = pull.Lend(ctx, e.store, e.registry, d, own); err != nil {
		return nil, nil, err
	}
	return pass, e.collectSoon, nil
}

// restoreImage brings all blobs of an image, of the platforms that are here.
func (e *Engine) restoreImage(ctx context.Context, target image.Descriptor) error {
	manifests, err := e.store.Manifests(target)
	if err != nil {
		return err
	}
	for _, d := range manifests {
		img, err := e.store.Image(d, image.Platform{})
		if err != nil {
			continue // no image, or not here whole
		}
		for _, l := range img.Manifest.Layers {
			if err := e.RestoreBlob(ctx, l.Digest); err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
	}
	return nil
}

// collectSpare removes the blobs that were brought back for something that has ended.
func (e *Engine) collectSpare() {
	if e.store.HasOrigins() {
		e.collect()
	}
}

// TagImage gives an image one more name, or moves the name to it.
func (e *Engine) TagImage(ctx context.Context, src, dst string) error {
	defer e.begin()()
	target, _, err := e.resolveTarget(src)
	if err != nil {
		return err
	}
	to, err := e.parseName(dst)
	if err != nil {
		return err
	}
	if !to.Digest.IsZero() {
		return invalid("refusing to create a tag with a digest reference")
	}
	if name, _, _ := strings.Cut(strings.TrimPrefix(dst, "docker.io/library/"), ":"); name == "sha256" || name == "sha512" {
		return invalid("refusing to create an ambiguous tag using digest algorithm as name")
	}
	return e.setName(to, target)
}

// setName points a tag at an image; what it pointed at before is kept untagged.
func (e *Engine) setName(to image.Reference, target image.Descriptor) error {
	if err := e.store.Tag(to.String(), target); err != nil {
		return err
	}
	e.emitImage("tag", target, e.familiar(to))
	return nil
}

// Images lists the images, newest first. There are no intermediate ones, so all makes no difference.
func (e *Engine) Images(ctx context.Context, all bool) ([]Image, error) {
	names, err := e.store.Names()
	if err != nil {
		return nil, err
	}
	byID := map[string]*Image{}
	var order []*Image
	used := e.imageUsers()
	for _, n := range names {
		img, err := e.loadImage(n.Target, image.Platform{})
		if err != nil {
			continue // incomplete, or no image: attestations alone, artifacts
		}
		key := img.ID.String()
		info := byID[key]
		if info == nil {
			made := e.describe(img, n)
			made.Containers, made.Others = used[key].all, used[key].others
			info = &made
			byID[key] = info
			order = append(order, info)
		}
		e.addName(info, n)
		info.Others = info.Others || othersName(n)
	}
	slices.SortStableFunc(order, func(a, b *Image) int { return b.Created.Compare(a.Created) })
	out := make([]Image, len(order))
	for i, p := range order {
		out[i] = *p
	}
	return out, nil
}

// imageUse says what containers an image has.
type imageUse struct {
	all    int
	others bool // some are not of pods
}

func (e *Engine) imageUsers() map[string]imageUse {
	used := map[string]imageUse{}
	for _, c := range e.all() {
		id := c.imageID()
		u := used[id]
		used[id] = imageUse{u.all + 1, u.others || c.group == nil}
	}
	return used
}

// othersName says whether a name was not set for pods alone.
func othersName(n store.Name) bool { return n.Owner != podsOwner && !isUntagged(n) }

func (e *Engine) addName(info *Image, n store.Name) {
	r, err := image.ParseReference(n.Name)
	if err != nil || strings.HasPrefix(n.Name, "sha256:") || strings.HasPrefix(n.Name, "sha512:") {
		return // an untagged image's
	}
	if name := e.familiar(r); r.Digest.IsZero() && !slices.Contains(info.Names, name) {
		info.Names = append(info.Names, name)
	}
	digest := e.familiarName(r) + "@" + n.Target.Digest.String()
	if !slices.Contains(info.Digests, digest) {
		info.Digests = append(info.Digests, digest)
	}
}

// describe gives an image's facts, but its names.
func (e *Engine) describe(img *store.Image, n store.Name) Image {
	run := &img.Config.Run
	info := Image{ID: img.ID.String(), Target: img.Target.Digest.String(), MediaType: img.Target.MediaType, TargetSize: img.Target.Size, Manifest: img.ManifestDescriptor,
		Labels: run.Labels, Architecture: img.Config.Platform.Architecture, OS: img.Config.Platform.OS, Variant: img.Config.Platform.Variant,
		Author: img.Config.Author, RawConfig: img.Config.Raw}
	if h := img.Config.History; len(h) > 0 {
		info.Comment = h[len(h)-1].Comment
	}
	if img.Config.Created != nil {
		info.Created = *img.Config.Created
	}
	for _, d := range img.Config.DiffIDs {
		info.Layers = append(info.Layers, d.String())
	}
	for _, n := range e.content(img) {
		info.Size += n
	}
	info.Config = Effective{Entrypoint: run.Entrypoint, Cmd: run.Cmd, Env: run.Env, User: run.User, WorkingDir: run.WorkingDir,
		Labels: run.Labels, StopSignal: run.StopSignal, Volumes: run.Volumes, Exposed: mergePorts(run.ExposedPorts, &Spec{}),
		Health: mergeHealth(nil, run.Healthcheck), Shell: run.Shell, OnBuild: run.OnBuild}
	return info
}

// layerSize is what a layer's files take, known since it was unpacked; of one that nobody wanted yet, what is stored.
func (e *Engine) layerSize(img *store.Image, i int) int64 {
	if i < len(img.Config.DiffIDs) {
		if n, err := e.store.Layers.Size(img.Config.DiffIDs[i]); err == nil {
			return n
		}
	}
	return img.Manifest.Layers[i].Size
}

// Image gives one image.
func (e *Engine) Image(ctx context.Context, ref string) (Image, error) {
	return e.ImageFor(ctx, ref, "")
}

// ImageFor gives one image as it is for a platform; "" is this machine's, or the one that is here.
func (e *Engine) ImageFor(ctx context.Context, ref, platform string) (Image, error) {
	img, _, err := e.resolveImage(ref, platform)
	if err != nil {
		return Image{}, err
	}
	info := e.describe(img, store.Name{Target: img.Target})
	names, err := e.store.Names()
	if err != nil {
		return Image{}, err
	}
	for _, n := range names {
		other, err := e.loadImage(n.Target, image.Platform{})
		if n.Target.Digest == img.Target.Digest || err == nil && other.ID == img.ID {
			e.addName(&info, n)
			info.Others = info.Others || othersName(n)
		}
	}
	used := e.imageUsers()[info.ID]
	info.Containers, info.Others = used.all, info.Others || used.others
	return info, nil
}

// imageFitsInit is fitsInit, asked once for each image.
func (e *Engine) imageFitsInit(img *store.Image) (bool, error) {
	e.images.mu.Lock()
	fits, known := e.images.inits[img.ID]
	e.images.mu.Unlock()
	if known {
		return fits, nil
	}
	fits, err := e.fitsInit(img.Config.DiffIDs)
	if err != nil {
		return false, err
	}
	e.images.mu.Lock()
	if len(e.images.inits) >= maxImages || e.images.inits == nil {
		e.images.inits = map[image.Digest]bool{}
	}
	e.images.inits[img.ID] = fits
	e.images.mu.Unlock()
	return fits, nil
}
