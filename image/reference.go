package image

import (
	"errors"
	"fmt"
	"strings"
)

// Bounds of the distribution specification, in bytes.
const (
	maxNameLength = 255 // domain and path together
	maxTagLength  = 128
)

// DefaultDomain is the registry of names that name none, and DefaultTag the tag.
const (
	DefaultDomain = "docker.io"
	DefaultTag    = "latest"
)

// ErrReference is the class of names that are no image references.
var ErrReference = errors.New("invalid reference format")

// BadReference says why a name is no reference. It is an ErrReference.
type BadReference struct{ Name, Why string }

// Error implements error.
func (e *BadReference) Error() string { return fmt.Sprintf("%s (%q)", e.Reason(), clip(e.Name)) }

// Reason is the error without the name, in Docker's words.
func (e *BadReference) Reason() string {
	if e.Why == "" {
		return ErrReference.Error()
	}
	return ErrReference.Error() + ": " + e.Why
}

// Is implements errors.Is.
func (e *BadReference) Is(target error) bool { return target == ErrReference }

// Reference names an image in a registry. A parsed one is fully spelled out:
// Domain and Path are set, and Tag or Digest or both.
type Reference struct {
	Domain string // host, or host:port
	Path   string // repository, "library/busybox"
	Tag    string
	Digest Digest
}

// ParseReference reads a name as Docker does: "busybox" is
// docker.io/library/busybox:latest. The tag is defaulted only without a digest.
func ParseReference(s string) (Reference, error) {
	bad := func(why string) (Reference, error) { return Reference{}, &BadReference{s, why} }
	if s == "" {
		return bad("it is empty")
	}
	if len(s) > maxNameLength+1+maxTagLength+1+7+128 {
		return bad("it is too long")
	}
	var r Reference
	rest := s
	if name, digest, ok := strings.Cut(s, "@"); ok {
		d, err := ParseDigest(digest)
		if err != nil {
			return bad(err.Error())
		}
		r.Digest, rest = d, name
	}
	// A colon after the last slash starts the tag; one before it is a port.
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		r.Tag, rest = rest[i+1:], rest[:i]
		if !validTag(r.Tag) {
			return bad("the tag is not valid")
		}
	}
	if len(rest) == 64 && strings.Trim(rest, "0123456789abcdef") == "" {
		return bad("a repository name cannot be 64 hexadecimal digits")
	}
	r.Domain, r.Path = splitDomain(rest)
	if !validDomain(r.Domain) {
		return bad("the registry's host name is not valid")
	}
	if strings.ToLower(r.Path) != r.Path {
		return bad("repository name must be lowercase")
	}
	for part := range strings.SplitSeq(r.Path, "/") {
		if !validComponent(part) {
			return bad("")
		}
	}
	if len(r.Domain)+1+len(r.Path) > maxNameLength {
		return bad(fmt.Sprintf("repository name must not be more than %d characters", maxNameLength))
	}
	if r.Tag == "" && r.Digest.IsZero() {
		r.Tag = DefaultTag
	}
	return r, nil
}

// splitDomain tells a registry host from the first part of a repository: a
// host has a dot or a port, is "localhost", or is spelled with upper case.
func splitDomain(name string) (domain, path string) {
	first, rest, ok := strings.Cut(name, "/")
	if !ok || !strings.ContainsAny(first, ".:") && first != "localhost" && strings.ToLower(first) == first {
		domain, path = DefaultDomain, name
	} else {
		domain, path = first, rest
	}
	if domain == "index.docker.io" || domain == "registry-1.docker.io" {
		domain = DefaultDomain
	}
	if domain == DefaultDomain && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	return domain, path
}

// Name is domain and path, without tag and digest.
func (r Reference) Name() string { return r.Domain + "/" + r.Path }

// String is the full form, the one names are stored under.
func (r Reference) String() string { return r.Name() + r.suffix() }

// Familiar is the short form Docker shows: without docker.io and library.
func (r Reference) Familiar() string { return r.FamiliarName() + r.suffix() }

// FamiliarName is the short form without tag and digest.
func (r Reference) FamiliarName() string {
	if r.Domain != DefaultDomain {
		return r.Name()
	}
	if short, ok := strings.CutPrefix(r.Path, "library/"); ok && !strings.Contains(short, "/") {
		return short
	}
	return r.Path
}

func (r Reference) suffix() string {
	s := ""
	if r.Tag != "" {
		s = ":" + r.Tag
	}
	if !r.Digest.IsZero() {
		s += "@" + r.Digest.String()
	}
	return s
}

// IsZero tells a reference that names nothing.
func (r Reference) IsZero() bool { return r == Reference{} }

// WithTag is r with this tag and no digest. The tag is not checked; ValidTag does.
func (r Reference) WithTag(tag string) Reference {
	r.Tag, r.Digest = tag, Digest{}
	return r
}

// WithDigest is r with this digest and without a tag.
func (r Reference) WithDigest(d Digest) Reference {
	r.Tag, r.Digest = "", d
	return r
}

// ValidTag tells whether a tag can be written in a reference.
func ValidTag(tag string) bool { return validTag(tag) }

// ValidRepository tells whether a repository path (without domain) is one.
func ValidRepository(path string) bool {
	if path == "" || len(path) > maxNameLength {
		return false
	}
	for part := range strings.SplitSeq(path, "/") {
		if !validComponent(part) {
			return false
		}
	}
	return true
}

func validTag(s string) bool {
	if s == "" || len(s) > maxTagLength {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !alnum(c) && c != '_' && (i == 0 || c != '.' && c != '-') {
			return false
		}
	}
	return true
}

// validComponent checks [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*.
func validComponent(s string) bool {
	if s == "" {
		return false
	}
	for i := 0; i < len(s); {
		if c := s[i]; c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			i++
			continue
		}
		start := i
		for i < len(s) && (s[i] == '.' || s[i] == '_' || s[i] == '-') {
			i++
		}
		sep := s[start:i]
		if start == 0 || i == len(s) {
			return false
		}
		if sep != "." && sep != "_" && sep != "__" && strings.Trim(sep, "-") != "" || sep == "" {
			return false
		}
	}
	return true
}

// validDomain checks a host name, an IPv4 address or an IPv6 address in
// brackets, each with or without a port.
func validDomain(s string) bool {
	if s == "" {
		return false
	}
	host, port := s, ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 3 || strings.Trim(s[1:end], "0123456789abcdefABCDEF:") != "" {
			return false
		}
		if end+1 == len(s) {
			return true
		}
		if s[end+1] != ':' {
			return false
		}
		return validPort(s[end+2:])
	}
	if i := strings.IndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i+1:]
		if !validPort(port) {
			return false
		}
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if !alnum(label[i]) && label[i] != '-' {
				return false
			}
		}
	}
	return true
}

func validPort(s string) bool {
	return s != "" && len(s) <= 5 && strings.Trim(s, "0123456789") == ""
}

func alnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
