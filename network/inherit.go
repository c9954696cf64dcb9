package network

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"cale/network/rtnl"
)

// inherit passes what a disconnected endpoint had for the whole container,
// the default route and the way to a name server, on to those that are left.
func (s *Store) inherit(gone *Endpoint) error {
	var route, names *Endpoint
	for _, e := range s.containers[gone.Container] {
		if route == nil && gone.Default && e.Gateway.IsValid() {
			route = e
		}
		if names == nil && gone.DNS.IsValid() && e.DNS.IsValid() {
			names = e
		}
	}
	if route == nil && names == nil {
		return nil
	}
	ns, err := openNamespace(gone.NetNS)
	if err != nil {
		return err
	}
	defer unix.Close(ns)
	inside, err := rtnl.OpenIn(ns)
	if err != nil {
		return err
	}
	defer inside.Close()
	inside.Do(rtnl.DelLink(gone.Interface)) // its routes would be in the way
	if route != nil {
		route.Default = true
		if err := writeFile(s.leaseFile(route), route, false); err != nil {
			return fmt.Errorf("write lease: %w", err)
		}
		if err := route.defaultRoutes(inside); err != nil {
			return err
		}
	}
	if names == nil {
		return nil
	}
	l, err := inside.Link(names.Interface)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", names.Interface, err)
	}
	return s.dns.redirect(s.nets[names.NetworkID], ns, inside, l.Index)
}

const linkPrefix = "vc"

// isEndpointLink recognises the host's end of a container's pair.
func isEndpointLink(name string) bool {
	return len(name) == len(linkPrefix)+12 && strings.HasPrefix(name, linkPrefix)
}

func (s *Store) freeInterface(id string) string {
	for i := 0; ; i++ {
		name := fmt.Sprintf("eth%d", i)
		taken := false
		for _, e := range s.containers[id] {
			taken = taken || e.Interface == name
		}
		if !taken {
			return name
		}
	}
}

func (s *Store) hasDefault(id string) bool {
	for _, e := range s.containers[id] {
		if e.Default {
			return true
		}
	}
	return false
}

// checkContainer keeps IDs from being anything but a part of a file's name.
func checkContainer(id string) error {
	ok := id != "" && len(id) <= 128 && id[0] != '.'
	for _, c := range []byte(id) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.')
	}
	if !ok {
		return fmt.Errorf("%w container ID %q", ErrInvalid, id)
	}
	return nil
}
