package runtime

import (
	"errors"
	"fmt"
	"os"

	"cale/runtime/criu"
	"cale/runtime/linux"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// keepNames remembers what a UTS namespace to be joined calls the machine: CRIU gives it the names it has saved.
func (r *restoring) keepNames() (err error) {
	path := namespacePath(r.c.spec, specs.UTSNamespace)
	if path == "" {
		return nil
	}
	if r.uts, err = os.Open(path); err != nil {
		return fmt.Errorf("namespace uts: %w", err)
	}
	return linux.InNamespace(r.uts, unix.CLONE_NEWUTS, func() error { return unix.Uname(&r.names) })
}

// putNamesBack is for when all is restored and nothing runs yet.
func (r *restoring) putNamesBack() error {
	if r.uts == nil {
		return nil
	}
	return linux.InNamespace(r.uts, unix.CLONE_NEWUTS, func() error {
		if err := unix.Sethostname([]byte(unix.ByteSliceToString(r.names.Nodename[:]))); err != nil {
			return fmt.Errorf("set the hostname: %w", err)
		}
		if err := unix.Setdomainname([]byte(unix.ByteSliceToString(r.names.Domainname[:]))); err != nil {
			return fmt.Errorf("set the domainname: %w", err)
		}
		return nil
	})
}

// namespaces says which namespaces are to be joined, and opens those that CRIU gets by descriptor.
func (r *restoring) namespaces(opts *criu.Options) (files []*os.File, err error) {
	for _, ns := range r.c.spec.Linux.Namespaces {
		if ns.Path == "" {
			continue
		}
		switch ns.Type {
		case specs.CgroupNamespace:
			return files, errors.New("criu cannot restore into a cgroup namespace that is there")
		case specs.NetworkNamespace, specs.PIDNamespace:
		default:
			opts.JoinNamespaces = append(opts.JoinNamespaces, criu.Namespace{Type: procNamespaces[ns.Type], File: ns.Path})
		}
	}
	for _, ns := range outerNamespaces {
		name := namespacePath(r.c.spec, ns.kind)
		if name == "" {
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return files, fmt.Errorf("namespace %s: %w", ns.kind, err)
		}
		opts.InheritFDs = append(opts.InheritFDs, criu.InheritFD{Key: ns.key, FD: criu.Descriptor(len(files))})
		files = append(files, f)
	}
	return files, nil
}
