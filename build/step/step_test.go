package step

import (
	"testing"

	"github.com/moby/buildkit/solver/pb"

	"cale/apparmor"
)

// TestConfinement: a step is confined as a container is, unless it was granted
// not to be.
func TestConfinement(t *testing.T) {
	if p, err := confinement(pb.SecurityMode_INSECURE); p != "" || err != nil {
		t.Errorf("insecure: %q, %v", p, err)
	}
	p, err := confinement(pb.SecurityMode_SANDBOX)
	if err != nil || (p == apparmor.Profile) != apparmor.Enabled() {
		t.Errorf("in the sandbox: %q, %v", p, err)
	}
}
