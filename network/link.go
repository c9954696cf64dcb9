package network

import (
	"fmt"
	"strings"
)

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
