package engine

import (
	"fmt"
	"testing"
	"time"
)

// TestMergeBounds: an image's configuration holds some megabytes, and what it says in them takes no long time.
func TestMergeBounds(t *testing.T) {
	begin := time.Now()
	var ports, volumes []string
	for i := range 200_000 {
		ports = append(ports, fmt.Sprintf("1-%d/tcp", 65535-i%1000))
		volumes = append(volumes, fmt.Sprint("/v", i))
	}
	if n := len(mergePorts(ports, &Spec{Exposed: []Port{{Number: 1, Protocol: "udp"}}})); n > maxImagePorts+1 || n < 65536 {
		t.Errorf("%d ports", n)
	}
	if n := len(mergeVolumes(volumes, volumes)); n != len(volumes) {
		t.Errorf("%d volumes", n)
	}
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("it took %v", d)
	}
}
