package trust

import (
	"errors"
	"fmt"
	"strings"

	"cale/image"
)

// identity is the rule by which the reference in a signature is compared with
// the one that was asked for.
type identity struct {
	kind         string // "" is matchRepoDigestOrExact
	value        string // of exactReference and exactRepository
	prefix       string // of remapIdentity
	signedPrefix string
}

const (
	matchExact             = "matchExact"
	matchRepoDigestOrExact = "matchRepoDigestOrExact"
	matchRepository        = "matchRepository"
	exactReference         = "exactReference"
	exactRepository        = "exactRepository"
	remapIdentity          = "remapIdentity"
	identityKinds          = "matchExact, matchRepoDigestOrExact, matchRepository, exactReference, exactRepository and remapIdentity"
)

func parseIdentity(raw []byte) (identity, error) {
	if raw == nil {
		return identity{}, nil
	}
	o, err := object(raw, "type", "dockerReference", "dockerRepository", "prefix", "signedPrefix")
	if err != nil {
		return identity{}, err
	}
	var id identity
	if id.kind, err = text(o, "type"); err != nil {
		return id, err
	}
	need := []string{"type"}
	switch id.kind {
	case matchExact, matchRepoDigestOrExact, matchRepository:
	case exactReference:
		need = append(need, "dockerReference")
	case exactRepository:
		need = append(need, "dockerRepository")
	case remapIdentity:
		need = append(need, "prefix", "signedPrefix")
	default:
		return id, fmt.Errorf("unknown type %q: there are %s", clip(id.kind), identityKinds)
	}
	if o, err = object(raw, need...); err != nil {
		return id, err
	}
	if len(o) != len(need) {
		return id, fmt.Errorf("%s needs %s", id.kind, strings.Join(need[1:], " and "))
	}
	switch id.kind {
	case exactReference:
		id.value, err = text(o, "dockerReference")
		if n, perr := parseSigned(id.value); err == nil && (perr != nil || n.bare) {
			err = fmt.Errorf("%q is no reference with its tag or digest", clip(id.value))
		}
	case exactRepository:
		id.value, err = text(o, "dockerRepository")
		if n, perr := parseSigned(id.value); err == nil && (perr != nil || !n.bare) {
			err = fmt.Errorf("%q is no repository", clip(id.value))
		}
	case remapIdentity:
		if id.prefix, err = text(o, "prefix"); err == nil {
			id.signedPrefix, err = text(o, "signedPrefix")
		}
		for _, s := range []string{id.prefix, id.signedPrefix} {
			if err == nil && (s == "" || checkScope(s) != nil || strings.HasPrefix(s, "*")) {
				err = fmt.Errorf("%q is neither a registry nor a repository nor a reference", clip(s))
			}
		}
	}
	return id, err
}

// signedName is a reference in a signature, in which a missing tag is no
// "latest".
type signedName struct {
	name string // with the registry
	full string // with tag and digest, as far as they are there
	bare bool   // neither is
}

func parseSigned(s string) (signedName, error) {
	r, err := image.ParseReference(s)
	if err != nil {
		return signedName{}, err
	}
	n := signedName{name: r.Name(), full: r.String()}
	if !strings.Contains(s, "@") && strings.LastIndexByte(s, ':') <= strings.LastIndexByte(s, '/') {
		n.full, n.bare = n.name, true
	}
	return n, nil
}

// match tells whether a signature for signed is one for ref.
func (id identity) match(ref image.Reference, signed string) error {
	n, err := parseSigned(signed)
	if err != nil {
		return fmt.Errorf("it is a signature for %q, which is no reference", clip(signed))
	}
	ok := false
	switch id.kind {
	case matchExact:
		ok = n.full == ref.String()
	case "", matchRepoDigestOrExact:
		ok = matchDefault(ref, n)
	case matchRepository:
		ok = n.name == ref.Name()
	case exactReference:
		want, _ := parseSigned(id.value)
		ok = n.full == want.full
	case exactRepository:
		want, _ := parseSigned(id.value)
		ok = n.name == want.name
	case remapIdentity:
		mapped, err := id.remap(ref)
		if err != nil {
			return err
		}
		ok = matchDefault(mapped, n)
	}
	if !ok {
		hint := ""
		if (id.kind == "" || id.kind == matchRepoDigestOrExact) && n.bare && n.name == ref.Name() {
			hint = ": it names no tag, as cosign's do; a signedIdentity of matchRepository accepts that"
		}
		return fmt.Errorf("it is a signature for %s%s", clip(signed), hint)
	}
	return nil
}

// matchDefault: who asks by digest knows what comes and needs to know only that
// the repository is right.
func matchDefault(ref image.Reference, n signedName) bool {
	if !ref.Digest.IsZero() {
		return n.name == ref.Name()
	}
	return n.full == ref.String()
}

// remap gives ref the name under which it was signed.
func (id identity) remap(ref image.Reference) (image.Reference, error) {
	full := ref.String()
	rest, ok := strings.CutPrefix(full, id.prefix)
	if !ok || rest != "" && !strings.ContainsRune("/:@", rune(rest[0])) {
		return ref, nil
	}
	// After the registry alone, what follows a colon would be another port.
	if !strings.Contains(id.prefix, "/") && strings.HasPrefix(rest, ":") {
		return ref, nil
	}
	mapped, err := image.ParseReference(id.signedPrefix + rest)
	if err != nil {
		return ref, errors.New("remapIdentity makes no reference of " + full)
	}
	return mapped, nil
}
