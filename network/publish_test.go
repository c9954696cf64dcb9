package network

import (
	"testing"
)

// A port that is taken back is closed, also where another of the host's, which nobody named, leads to the same one of
// the container's, and that one stays open.
func TestRepublishOneOfTwo(t *testing.T) {
	s := openStore(t, Config{})
	box := newBox(t)
	fixed, any := PortMapping{HostPort: 8080, ContainerPort: 80}, PortMapping{ContainerPort: 80}
	attach(t, s, box, Attach{ID: "two", Ports: []PortMapping{any, fixed}})
	ports := func() (named, others []uint16) {
		for _, e := range s.containers["two"] {
			for _, p := range e.Ports {
				if p.HostPort == 8080 {
					named = append(named, p.HostPort)
				} else {
					others = append(others, p.HostPort)
				}
			}
		}
		return named, others
	}
	_, chosen := ports()
	if len(chosen) == 0 {
		t.Fatal("no port was chosen")
	}
	if err := s.Republish(t.Context(), "two", []PortMapping{any}); err != nil {
		t.Fatal(err)
	}
	if named, others := ports(); len(named) != 0 || len(others) != len(chosen) || others[0] != chosen[0] {
		t.Errorf("the port that was taken back is %v, the others %v, which were %v", named, others, chosen)
	}
	if err := s.Republish(t.Context(), "two", []PortMapping{fixed}); err != nil {
		t.Fatal(err)
	}
	if named, others := ports(); len(named) == 0 || len(others) != 0 {
		t.Errorf("the port that was asked for is %v, others %v", named, others)
	}
}
