// Package trust decides whether an image may be used, by the policy that an
// administrator wrote (containers-policy.json(5)) and the signatures that an
// image has (simple signing payloads as cosign and skopeo write them).
//
// Whatever is not understood refuses: a policy that can't be parsed, a kind of
// signature that is not built, a key that can't be read.
package trust

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"cale/image"
)

// File is the name of the policy's file in the configuration's directory.
const File = "policy.json"

// maxPolicy bounds the policy's file and the files it names, in bytes.
const maxPolicy = 1 << 20

// The kinds of requirements, as they are written.
const (
	TypeAccept   = "insecureAcceptAnything"
	TypeReject   = "reject"
	TypeSignedBy = "signedBy"
	TypeSigstore = "sigstoreSigned"
)

// Policy says what is required of images. The zero value accepts anything.
type Policy struct {
	defaults []requirement
	docker   map[string][]requirement // by scope
	dir      string                   // that relative paths are from
}

// requirement is one condition. The fields that are set depend on kind.
type requirement struct {
	kind     string
	keys     []source // any of them may have signed
	fulcio   *fulcio
	rekor    []source // the log's keys; none means that no entry is needed
	identity identity
	missing  string // what is not built, for a requirement that can't be met
}

// source is something given in a file or as data.
type source struct {
	path string
	data []byte
}

// Folder has the policies of Kubernetes namespaces that have one of their own,
// as NAMESPACE.json, in the configuration's directory.
const Folder = "policies"

// Load reads the policy in dir. Without a directory (""), or a file there,
// anything is accepted.
func Load(dir string) (*Policy, error) {
	p, err := load(dir, File)
	if p == nil && err == nil {
		p = &Policy{}
	}
	return p, err
}

// LoadFor reads the policy for pods of a namespace: its own, or else that of
// all; own says which.
func LoadFor(dir, namespace string) (p *Policy, own bool, err error) {
	if filepath.Base(namespace) == namespace && filepath.IsLocal(namespace) {
		if p, err := load(dir, filepath.Join(Folder, namespace+".json")); p != nil || err != nil {
			return p, true, err
		}
	}
	p, err = Load(dir)
	return p, false, err
}

// load is nil where there is no such file.
func load(dir, name string) (*Policy, error) {
	if dir == "" {
		return nil, nil
	}
	raw, err := readFile(filepath.Join(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("policy of signatures: %w", err)
	}
	p, err := Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("policy of signatures: %s: %w", filepath.Join(dir, name), err)
	}
	p.dir = dir
	return p, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxPolicy+1))
	if err == nil && len(raw) > maxPolicy {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxPolicy)
	}
	return raw, err
}

// Parse reads a policy.
func Parse(raw []byte) (*Policy, error) {
	top, err := object(raw, "default", "transports")
	if err != nil {
		return nil, err
	}
	p := &Policy{docker: map[string][]requirement{}}
	if _, ok := top["default"]; !ok {
		return nil, errors.New("it has no default")
	}
	if p.defaults, err = requirements(top["default"]); err != nil {
		return nil, fmt.Errorf("default: %w", err)
	}
	if top["transports"] == nil {
		return p, nil
	}
	all := func(string) bool { return true }
	transports, err := fields(top["transports"], all)
	if err != nil {
		return nil, fmt.Errorf("transports: %w", err)
	}
	// Other transports are of other tools, but what is wrong there is wrong.
	for name, raw := range transports {
		scopes, err := fields(raw, all)
		if err != nil {
			return nil, fmt.Errorf("transport %s: %w", clip(name), err)
		}
		for scope, raw := range scopes {
			list, err := requirements(raw)
			if err == nil && name == "docker" {
				err = checkScope(scope)
			}
			if err != nil {
				return nil, fmt.Errorf("transport %s, scope %q: %w", clip(name), clip(scope), err)
			}
			if name == "docker" {
				p.docker[scope] = list
			}
		}
	}
	return p, nil
}

// checkScope refuses scopes that no image can be in. Typing errors beyond that
// can't be told from names.
func checkScope(scope string) error {
	if scope == "" {
		return nil
	}
	host, rest, more := strings.Cut(scope, "/")
	name := host
	if wild, ok := strings.CutPrefix(host, "*."); ok {
		if more {
			return errors.New("a scope with a wildcard has no path")
		}
		name = wild
	}
	if more {
		name += "/" + rest
	} else {
		name += "/a"
	}
	if _, err := image.ParseReference(name); err != nil {
		return errors.New("it is neither a registry nor a repository nor a reference")
	}
	return nil
}

func requirements(raw []byte) ([]requirement, error) {
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, errors.New("it is no list of requirements")
	}
	if len(list) == 0 {
		return nil, errors.New("the list of requirements is empty")
	}
	out := make([]requirement, len(list))
	for i, raw := range list {
		var err error
		if out[i], err = parseRequirement(raw); err != nil {
			return nil, fmt.Errorf("requirement %d: %w", i+1, err)
		}
	}
	return out, nil
}

func parseRequirement(raw []byte) (r requirement, err error) {
	var kind struct{ Type string }
	if err := json.Unmarshal(raw, &kind); err != nil {
		return r, errors.New("it is no requirement")
	}
	r.kind = kind.Type
	var o map[string]json.RawMessage
	switch r.kind {
	case TypeAccept, TypeReject:
		_, err = object(raw, "type")
		return r, err
	case TypeSignedBy:
		o, err = object(raw, "type", "keyType", "keyPath", "keyPaths", "keyData", "signedIdentity")
	case TypeSigstore:
		o, err = object(raw, "type", "keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "pki",
			"rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas", "signedIdentity")
	default:
		return r, fmt.Errorf("unknown type %q", clip(r.kind))
	}
	if err != nil {
		return r, err
	}
	if s, err := text(o, "type"); err != nil || s != r.kind {
		return r, errors.New("its type is ambiguous")
	}
	if r.kind == TypeSignedBy {
		if s, err := text(o, "keyType"); err != nil || s != "GPGKeys" && s != "signedByGPGKeys" && s != "X509Certificates" && s != "signedByX509CAs" {
			return r, fmt.Errorf("unknown keyType %q", clip(s))
		} else if s != "GPGKeys" {
			r.missing = "signatures by " + s
		}
	}
	if r.identity, err = parseIdentity(o["signedIdentity"]); err != nil {
		return r, fmt.Errorf("signedIdentity: %w", err)
	}
	if r.keys, err = sources(o, "key"); err != nil {
		return r, err
	}
	if r.rekor, err = sources(o, "rekorPublicKey"); err != nil {
		return r, err
	}
	ways := 0
	if len(r.keys) > 0 {
		ways++
	}
	if o["fulcio"] != nil {
		ways++
		if r.fulcio, err = parseFulcio(o["fulcio"]); err != nil {
			return r, fmt.Errorf("fulcio: %w", err)
		}
		if len(r.rekor) == 0 {
			return r, errors.New("fulcio needs the log's key (rekorPublicKeyPath): certificates live for minutes, and only the log tells when a signature was made")
		}
	}
	if o["pki"] != nil {
		ways++
		r.missing = "certificates of a PKI of one's own (pki)"
	}
	if ways != 1 {
		return r, errors.New("exactly one of keyPath, keyPaths, keyData, keyDatas, fulcio and pki says who must have signed")
	}
	return r, nil
}

// sources reads NAMEPath, NAMEPaths, NAMEData and NAMEDatas, of which one may
// be there.
func sources(o map[string]json.RawMessage, name string) ([]source, error) {
	var out []source
	set := 0
	for _, suffix := range []string{"Path", "Paths", "Data", "Datas"} {
		key := name + suffix
		if _, ok := o[key]; !ok {
			continue
		}
		if set++; set > 1 {
			return nil, fmt.Errorf("%s and another field both say what %s is", key, name)
		}
		var list []string
		var err error
		if strings.HasSuffix(suffix, "s") {
			list, err = texts(o, key)
		} else {
			var s string
			s, err = text(o, key)
			list = []string{s}
		}
		if err != nil {
			return nil, err
		}
		for _, s := range list {
			if strings.HasPrefix(suffix, "Path") {
				out = append(out, source{path: s})
				continue
			}
			data, err := base64.StdEncoding.DecodeString(s)
			if err != nil {
				return nil, fmt.Errorf("%s is no base64", key)
			}
			out = append(out, source{data: data})
		}
	}
	return out, nil
}

// read gets a source's bytes; relative paths are from the policy's directory.
func (p *Policy) read(s source) ([]byte, error) {
	if s.path == "" {
		return s.data, nil
	}
	path := s.path
	if !filepath.IsAbs(path) {
		path = filepath.Join(p.dir, path)
	}
	return readFile(path)
}

// required is what a reference must meet, and the scope that says so: the
// reference itself, its repository, the namespaces above that, its registry,
// the wildcards that it is in, "" for all registries; "default" if none is
// written down.
func (p *Policy) required(ref image.Reference) (scope string, list []requirement) {
	for _, scope := range Scopes(ref) {
		if list, ok := p.docker[scope]; ok {
			return scope, list
		}
	}
	if p.defaults == nil {
		return "default", []requirement{{kind: TypeAccept}}
	}
	return "default", p.defaults
}

// Scopes are what settings may name a reference by, the most specific first: itself, its repository, the namespaces
// above that, its registry, the wildcards that it is in, "" for all registries.
func Scopes(ref image.Reference) []string {
	var out []string
	name := ref.Name()
	if !ref.Digest.IsZero() {
		out = append(out, name+"@"+ref.Digest.String())
	}
	if ref.Tag != "" {
		out = append(out, name+":"+ref.Tag)
	}
	for name != ref.Domain {
		out = append(out, name)
		name = name[:strings.LastIndexByte(name, '/')]
	}
	out = append(out, ref.Domain)
	host := ref.Domain
	for {
		_, rest, ok := strings.Cut(host, ".")
		if !ok {
			return append(out, "")
		}
		out = append(out, "*."+rest)
		host = rest
	}
}
