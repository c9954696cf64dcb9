package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"cale/atomicfile"
	"cale/image"
	"cale/image/signature"
	"cale/image/trust"
	"cale/registry/client"
)

// judge is what a pull asks before it unpacks anything: whether the policy, as it is now, lets the image in, for pods of
// a namespace of Kubernetes or for anybody ("").
func (e *Engine) judge(reg *client.Client, ref image.Reference, namespace string) func(context.Context, []image.Digest) error {
	return func(ctx context.Context, digests []image.Digest) error {
		p, _, err := trust.LoadFor(e.cfg.ConfigDir, namespace)
		if err != nil {
			return err
		}
		_, err = p.Check(ctx, e.signedImage(reg, ref, digests))
		return err
	}
}

func (e *Engine) signedImage(reg *client.Client, ref image.Reference, digests []image.Digest) trust.Image {
	return trust.Image{
		Ref: ref, Digests: digests,
		Signatures: func(ctx context.Context, d image.Digest) ([]trust.Signature, error) {
			return signature.Fetch(ctx, reg, ref, d)
		},
		Simple: func(ctx context.Context, d image.Digest, keys [][]byte) ([]trust.Opened, error) {
			return e.openSimple(ctx, trust.SimpleRequest{Reference: ref.String(), Digest: d, Keys: keys})
		},
	}
}

// maxOpened bounds what cale-verify answers, in bytes.
const maxOpened = 64 << 20

// openSimple has the simple signing signatures of an image opened, by a program of its own: what that takes would make
// this one larger, and reads what strangers wrote.
func (e *Engine) openSimple(ctx context.Context, r trust.SimpleRequest) ([]trust.Opened, error) {
	path, err := program("cale-verify")
	if err != nil {
		return nil, fmt.Errorf("OpenPGP signatures can't be checked: %w", err)
	}
	r.Folders = []string{"/etc/containers/registries.d"}
	if e.cfg.ConfigDir != "" {
		r.Folders = append([]string{filepath.Join(e.cfg.ConfigDir, "registries.d")}, r.Folders...)
	}
	in, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path)
	cmd.Stdin = bytes.NewReader(in)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("OpenPGP signatures can't be checked: %w", err)
	}
	raw, rerr := io.ReadAll(io.LimitReader(out, maxOpened))
	out.Close() // nobody waits for one that writes more
	if err := cmd.Wait(); err != nil {
		text, _, _ := strings.Cut(strings.TrimSpace(errs.String()), "\n")
		return nil, fmt.Errorf("cale-verify: %w: %.500s", err, text)
	}
	if rerr != nil {
		return nil, fmt.Errorf("cale-verify: %w", rerr)
	}
	var list []trust.Opened
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("cale-verify: %w", err)
	}
	return list, nil
}

// VerifyOptions says what an image must be signed with: a key in PEM and a kind of signedIdentity, or, without a key,
// what the policy requires.
type VerifyOptions struct{ Key, Identity string }

// Verified is an image that was found good.
type Verified struct {
	Ref    string
	Digest string // of what its name stands for in the registry
	trust.Verdict
}

// VerifyImage tells whether an image in its registry may be used. Nothing is pulled.
func (e *Engine) VerifyImage(ctx context.Context, ref string, o VerifyOptions, c *Credentials) (Verified, error) {
	defer e.begin()()
	var v Verified
	parsed, err := e.parseName(ref)
	if err != nil {
		return v, err
	}
	if o.Key == "" && o.Identity != "" {
		return v, invalid("an identity goes with a key; without one the policy says what must match")
	}
	policy, err := trust.Load(e.cfg.ConfigDir)
	if err != nil {
		return v, err
	}
	reg := e.clientFor(c, parsed.Domain)
	digests, err := digestsOf(ctx, reg, parsed)
	if err != nil {
		return v, registryError(err)
	}
	v.Ref, v.Digest = e.familiar(parsed), digests[0].String()
	img := e.signedImage(reg, parsed, digests)
	if o.Key != "" {
		v.Verdict, err = trust.CheckKey(ctx, img, []byte(o.Key), o.Identity)
	} else {
		v.Verdict, err = policy.Check(ctx, img)
	}
	return v, registryError(err)
}

// AllowIn tells whether an image that is here, under a name or as its id, may be used by pods of a namespace. Only for a
// namespace with a policy of its own there is something to ask: it may have been pulled for others. ref is the name by
// which its signatures are found.
func (e *Engine) AllowIn(ctx context.Context, namespace, ref, img string) error {
	p, own, err := trust.LoadFor(e.cfg.ConfigDir, namespace)
	if err != nil || !own {
		return err
	}
	parsed, err := e.parseName(ref)
	if err != nil {
		return err
	}
	have, _, err := e.resolveImage(img, "")
	if err != nil {
		return err
	}
	digests := []image.Digest{have.Target.Digest}
	if d := have.ManifestDescriptor.Digest; d != have.Target.Digest {
		digests = append(digests, d)
	}
	_, err = p.Check(ctx, e.signedImage(e.clientFor(nil, parsed.Domain), parsed, digests))
	return registryError(err)
}

// digestsOf are those that a signature may be of: what a name stands for and, if that is an index, the manifest for
// this machine.
func digestsOf(ctx context.Context, reg *client.Client, ref image.Reference) ([]image.Digest, error) {
	d, err := reg.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	raw, mt, err := reg.Manifest(ctx, ref, d)
	if err != nil {
		return nil, err
	}
	digests := []image.Digest{d.Digest}
	if image.IsIndex(mt) {
		ix, err := image.ParseIndex(mt, raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ref.Familiar(), err)
		}
		if m, err := ix.Choose(image.Host()); err == nil {
			digests = append(digests, m.Digest)
		}
	}
	return digests, nil
}

// SignImage adds a signature, made by the client, to those of the image in its registry.
func (e *Engine) SignImage(ctx context.Context, ref, digest string, payload, sig []byte, c *Credentials) error {
	defer e.begin()()
	parsed, err := e.parseName(ref)
	if err != nil {
		return err
	}
	d, err := image.ParseDigest(digest)
	if err != nil {
		return invalid("%v", err)
	}
	if len(sig) == 0 || len(payload) == 0 || len(payload) > trust.MaxPayload || !json.Valid(payload) {
		return invalid("that is no signature with its payload")
	}
	err = signature.Attach(ctx, e.clientFor(c, parsed.Domain), parsed, d, trust.Signature{Payload: payload, Signature: sig})
	return registryError(err)
}

// TrustPolicy gives the file of the policy and what is in it, nil if there is no file: then anything is accepted.
func (e *Engine) TrustPolicy() (path string, raw []byte, err error) {
	if e.cfg.ConfigDir == "" {
		return "", nil, nil
	}
	path = filepath.Join(e.cfg.ConfigDir, trust.File)
	if _, err := trust.Load(e.cfg.ConfigDir); err != nil {
		return path, nil, err
	}
	raw, err = os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return path, nil, nil
	}
	return path, raw, err
}

// policyMu keeps two changes of the policy from losing one.
var policyMu sync.Mutex

// SetTrust writes what the policy requires in a scope ("default", or one of the docker transport's), nil to require
// nothing of its own there any more.
func (e *Engine) SetTrust(scope string, requirements json.RawMessage) error {
	policyMu.Lock()
	defer policyMu.Unlock()
	path, raw, err := e.TrustPolicy()
	if err != nil {
		return err
	}
	if path == "" {
		return conflict("this engine has no directory of settings to keep a policy in")
	}
	if raw, err = trust.Edit(raw, scope, requirements); err != nil {
		return &Error{Class: ErrInvalid, Text: strings.TrimSpace(err.Error()), Cause: err}
	}
	if err := os.MkdirAll(e.cfg.ConfigDir, 0o755); err != nil {
		return fmt.Errorf("policy of signatures: %w", err)
	}
	return atomicfile.Write(path, raw, 0o644, true)
}
