package engine

import (
	"fmt"
	"os"
	"strings"
)

// InHostNetwork gives a test for processes of containers, nil while no container has the host's network: then none can
// be at the other end of one of the host's connections.
func (e *Engine) InHostNetwork() func(pid int) bool {
	var ids []string
	shared := false
	for _, c := range e.all() {
		c.mu.Lock()
		if c.run != nil || c.rec.State.Status == Created {
			ids = append(ids, c.id)
			mode := c.rec.Spec.Network.Mode
			// A pod's members have its network, another's its own: both are taken for the host's here.
			shared = shared || mode == "host" || c.group != nil || strings.HasPrefix(mode, "container:")
		}
		c.mu.Unlock()
	}
	if !shared {
		return nil
	}
	return func(pid int) bool {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil {
			return true // it has ended: nobody to trust
		}
		for _, id := range ids {
			if strings.Contains(string(raw), id) {
				return true
			}
		}
		return false
	}
}
