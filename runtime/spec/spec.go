// Package spec reads, checks and makes OCI runtime configurations.
package spec

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"cale/runtime/linux"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// File is the configuration's name in a bundle.
const File = "config.json"

// maxSize bounds a configuration.
const maxSize = 16 << 20

// Load reads a configuration, and returns its text too.
func Load(file string) (*specs.Spec, []byte, error) {
	f, err := os.Open(file)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil, fmt.Errorf("JSON specification file %s not found", file)
		}
		return nil, nil, err
	}
	defer f.Close()
	raw, err := readAll(f)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	s, err := Parse(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, raw, nil
}

// Annotations reads a configuration's annotations alone, which is much quicker.
func Annotations(file string) (a map[string]string, err error) {
	err = member(file, "annotations", func(r *reader) { a = r.stringMap() })
	return a, err
}

// Hooks reads a configuration's hooks alone, for the same reason; nil if it has none.
func Hooks(file string) (h *specs.Hooks, err error) {
	err = member(file, "hooks", func(r *reader) { r.rare(&h) })
	return h, err
}

// member has one member of a configuration read, if it is there.
func member(file, name string, read func(r *reader)) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	raw, err := readAll(f)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	r := newReader(raw)
	r.object(func(key string) {
		if key == name {
			read(r)
		} else {
			r.skip()
		}
	})
	if err := r.end(); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

func readAll(f *os.File) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 0, min(st.Size(), maxSize)+512)
	for {
		n, err := f.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
		if len(buf) > maxSize {
			return nil, fmt.Errorf("larger than %d bytes", maxSize)
		}
		if len(buf) == cap(buf) {
			buf = append(buf, make([]byte, 4096)...)[:len(buf)]
		}
	}
}

// Validate checks what would otherwise fail halfway, or be taken for something else. It doesn't look at the system.
func Validate(s *specs.Spec) error {
	if err := validateVersion(s.Version); err != nil {
		return err
	}
	if s.Root == nil {
		return errors.New("the configuration has no root")
	}
	if s.Linux == nil {
		s.Linux = &specs.Linux{}
	}
	seen := map[specs.LinuxNamespaceType]bool{}
	for _, ns := range s.Linux.Namespaces {
		if _, ok := NamespaceFlag(ns.Type); !ok {
			return fmt.Errorf("unknown namespace %q", ns.Type)
		}
		if seen[ns.Type] {
			return fmt.Errorf("malformed spec file: duplicated ns %q", ns.Type)
		}
		if ns.Path != "" && !strings.HasPrefix(ns.Path, "/") {
			return fmt.Errorf("namespace %s: path %q is not absolute", ns.Type, ns.Path)
		}
		seen[ns.Type] = true
	}
	if s.Hostname != "" && !seen[specs.UTSNamespace] {
		return errors.New("unable to set hostname without a private UTS namespace")
	}
	if s.Domainname != "" && !seen[specs.UTSNamespace] {
		return errors.New("unable to set domainname without a private UTS namespace")
	}
	if len(s.Linux.TimeOffsets) > 0 && !seen[specs.TimeNamespace] {
		return errors.New("time namespace offsets specified, but time namespace isn't enabled in the config")
	}
	if !seen[specs.MountNamespace] && (len(s.Linux.MaskedPaths) > 0 || len(s.Linux.ReadonlyPaths) > 0) {
		return errors.New("unable to restrict sys entries without a private MNT namespace")
	}
	mapped := len(s.Linux.UIDMappings) > 0 || len(s.Linux.GIDMappings) > 0
	if mapped && !seen[specs.UserNamespace] {
		return errors.New("user namespace mappings specified, but user namespace isn't enabled in the config")
	}
	if NewNamespace(s, specs.UserNamespace) && (len(s.Linux.UIDMappings) == 0 || len(s.Linux.GIDMappings) == 0) {
		return errors.New("a new user namespace needs uidMappings and gidMappings")
	}
	for _, m := range s.Mounts {
		if m.Destination == "" {
			return errors.New("mount without a destination")
		}
	}
	if err := validateSysctls(s, seen); err != nil {
		return err
	}
	switch s.Linux.RootfsPropagation {
	case "", "private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable":
	default:
		return fmt.Errorf("rootfsPropagation=%s is not supported", s.Linux.RootfsPropagation)
	}
	if s.Process != nil {
		return ValidateProcess(s.Process)
	}
	return nil
}

func validateVersion(v string) error {
	if v == "" {
		return errors.New("the configuration has no ociVersion")
	}
	major, rest, ok := strings.Cut(v, ".")
	minor, _, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || minor == "" {
		return fmt.Errorf("ociVersion %q is no version", v)
	}
	if major != "1" && major != "0" {
		return fmt.Errorf("unsupported ociVersion %q: this runtime knows 1.x", v)
	}
	return nil
}

// ValidateProcess checks a process, that of a container or of an exec.
func ValidateProcess(p *specs.Process) error {
	if p.Cwd == "" {
		return errors.New("Cwd property must not be empty") //nolint: the wording is runc's
	}
	if !strings.HasPrefix(p.Cwd, "/") {
		return errors.New("Cwd must be an absolute path")
	}
	if len(p.Args) == 0 {
		return errors.New("args must not be empty")
	}
	const noID = ^uint32(0) // setresuid's "leave it alone"
	if p.User.UID == noID || p.User.GID == noID {
		return fmt.Errorf("user %d:%d: not an ID", p.User.UID, p.User.GID)
	}
	for _, g := range p.User.AdditionalGids {
		if g == noID {
			return fmt.Errorf("additional group %d: not an ID", g)
		}
	}
	seen := map[string]bool{}
	for _, r := range p.Rlimits {
		if seen[r.Type] {
			return fmt.Errorf("duplicate rlimit %s", r.Type)
		}
		seen[r.Type] = true
	}
	return nil
}

// validateSysctls lets through only what belongs to a namespace of the container.
func validateSysctls(s *specs.Spec, seen map[specs.LinuxNamespaceType]bool) error {
	for key := range s.Linux.Sysctl {
		name := SysctlPath(key)
		if name == "" {
			return fmt.Errorf("sysctl %q is no sysctl", key)
		}
		dotted := strings.ReplaceAll(name, "/", ".")
		switch {
		case strings.HasPrefix(dotted, "fs.mqueue."), strings.HasPrefix(dotted, "kernel.sem"),
			strings.HasPrefix(dotted, "kernel.shm"), strings.HasPrefix(dotted, "kernel.msg"):
			if !seen[specs.IPCNamespace] {
				return fmt.Errorf("sysctl %q is not allowed in the hosts ipc namespace", key)
			}
		case strings.HasPrefix(dotted, "net."):
			if !seen[specs.NetworkNamespace] {
				return fmt.Errorf("sysctl %q not allowed in host network namespace", key)
			}
			if p := NamespacePath(s, specs.NetworkNamespace); p != "" && sameFile(p, "/proc/self/ns/net") {
				return fmt.Errorf("sysctl %q not allowed in host network namespace", key)
			}
		case dotted == "kernel.domainname":
			if !seen[specs.UTSNamespace] {
				return fmt.Errorf("sysctl %q is not allowed without a private UTS namespace", key)
			}
			if s.Domainname != "" && s.Domainname != s.Linux.Sysctl[key] {
				return fmt.Errorf("sysctl %q is not allowed as it conflicts with the OCI %q field", key, "domainname")
			}
		case dotted == "kernel.hostname":
			return fmt.Errorf("sysctl %q is not allowed as it conflicts with the OCI %q field", key, "hostname")
		case strings.HasPrefix(dotted, "user."):
			if !seen[specs.UserNamespace] {
				return fmt.Errorf("sysctl %q is not allowed without a private user namespace", key)
			}
		default:
			return fmt.Errorf("sysctl %q is not in a separate kernel namespace", key)
		}
	}
	return nil
}

func sameFile(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Stat(a, &x) == nil && unix.Stat(b, &y) == nil && x.Ino == y.Ino && x.Dev == y.Dev
}

// SysctlPath is a sysctl's path below /proc/sys; "" if the key is none. Where a key has slashes before its first
// dot, dots are part of names (sysctl.d(5)).
func SysctlPath(key string) string {
	p := key
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		p = strings.NewReplacer(".", "/", "/", ".").Replace(key)
	}
	if p == "" || strings.HasPrefix(p, "/") || path.Clean(p) != p || strings.HasPrefix(p, "..") || strings.ContainsRune(p, 0) {
		return ""
	}
	return p
}

// NamespaceFlag is the CLONE_NEW* of a namespace type.
func NamespaceFlag(t specs.LinuxNamespaceType) (uint64, bool) {
	switch t {
	case specs.PIDNamespace:
		return unix.CLONE_NEWPID, true
	case specs.NetworkNamespace:
		return unix.CLONE_NEWNET, true
	case specs.MountNamespace:
		return unix.CLONE_NEWNS, true
	case specs.IPCNamespace:
		return unix.CLONE_NEWIPC, true
	case specs.UTSNamespace:
		return unix.CLONE_NEWUTS, true
	case specs.UserNamespace:
		return unix.CLONE_NEWUSER, true
	case specs.CgroupNamespace:
		return unix.CLONE_NEWCGROUP, true
	case specs.TimeNamespace:
		return unix.CLONE_NEWTIME, true
	}
	return 0, false
}

// NewNamespace reports whether the configuration asks for a new namespace of a type.
func NewNamespace(s *specs.Spec, t specs.LinuxNamespaceType) bool {
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == t {
			return ns.Path == ""
		}
	}
	return false
}

// HasNamespace reports whether the configuration names a type at all.
func HasNamespace(s *specs.Spec, t specs.LinuxNamespaceType) bool {
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == t {
			return true
		}
	}
	return false
}

// NamespacePath is the path of the namespace to join, or "".
func NamespacePath(s *specs.Spec, t specs.LinuxNamespaceType) string {
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == t {
			return ns.Path
		}
	}
	return ""
}

// Rootfs is the absolute path of the bundle's root.
func Rootfs(s *specs.Spec, bundle string) string {
	if s.Root == nil {
		return ""
	}
	if filepath.IsAbs(s.Root.Path) {
		return filepath.Clean(s.Root.Path)
	}
	return filepath.Join(bundle, s.Root.Path)
}

// Capabilities turns names into a set. Names this kernel doesn't have are given to unknown.
func Capabilities(names []string, unknown func(string)) uint64 {
	var set uint64
	for _, n := range names {
		c, ok := linux.Capability(n)
		if !ok || c > linux.LastCapability() {
			unknown(n)
			continue
		}
		set |= 1 << c
	}
	return set
}
