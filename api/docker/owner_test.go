package docker

import (
	"testing"

	"cale/engine"
)

// Whose a container is, is told to who asks for all owners': see cale ps --all-owners.
func TestOwners(t *testing.T) {
	if got := ownerOf(&engine.Info{}); got != "docker" {
		t.Errorf("%q", got)
	}
	if got := ownerOf(&engine.Info{Spec: engine.Spec{Member: &engine.Member{Owner: "ns/pod/c"}}}); got != "kubernetes ns/pod/c" {
		t.Errorf("%q", got)
	}
}
