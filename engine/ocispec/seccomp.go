package ocispec

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	profile "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The default profile depends on the capabilities only; nearly all containers have the same ones, so each set's
// rules are made once. The number of sets kept is bounded since clients choose them.
var defaultProfiles struct {
	sync.Mutex
	bySet map[string]*specs.LinuxSeccomp
}

const maxProfiles = 64

// Seccomp gives the system call rules for a container with the bounding set caps. custom is "" for the default
// profile, "unconfined", or a profile's JSON. The result is shared: it must not be changed.
func Seccomp(custom string, caps []string, privileged bool) (*specs.LinuxSeccomp, error) {
	spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}}
	switch {
	case custom == "unconfined", custom == "" && privileged:
		return nil, nil
	case custom != "" && custom != "builtin" && custom != "default":
		// A profile the client gave holds for privileged containers too (moby#47499).
		s, err := profile.LoadProfile(custom, spec)
		if err != nil {
			return nil, fmt.Errorf("seccomp profile: %w", err)
		}
		return s, nil
	}
	sorted := slices.Clone(caps)
	slices.Sort(sorted)
	key := strings.Join(sorted, " ")
	defaultProfiles.Lock()
	defer defaultProfiles.Unlock()
	if s := defaultProfiles.bySet[key]; s != nil {
		return s, nil
	}
	s, err := profile.GetDefaultProfile(spec)
	if err != nil {
		return nil, fmt.Errorf("default seccomp profile: %w", err)
	}
	if len(defaultProfiles.bySet) >= maxProfiles || defaultProfiles.bySet == nil {
		defaultProfiles.bySet = map[string]*specs.LinuxSeccomp{}
	}
	defaultProfiles.bySet[key] = s
	return s, nil
}
