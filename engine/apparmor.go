package engine

import (
	"fmt"

	"cale/apparmor"
)

// apparmorOf is the profile of a container's processes, "" for none. The default one is loaded if it isn't there; the
// name that Docker's has stands for it too.
func apparmorOf(s *Security) (string, error) {
	switch s.AppArmor {
	case "unconfined":
		return "", nil
	case "", "docker-default", apparmor.Profile:
		if !apparmor.Enabled() || s.Privileged {
			return "", nil
		}
		if err := apparmor.Load(); err != nil {
			return "", fmt.Errorf("%w (run with --security-opt apparmor=unconfined to do without)", err)
		}
		return apparmor.Profile, nil
	}
	return s.AppArmor, nil
}
