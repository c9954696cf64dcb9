package docker

import (
	"slices"
	"testing"

	"cale/engine"
)

// What a container is given of the host by a vendor's description of a device is in the audit log like any other device.
func TestPowersOfDeviceRequests(t *testing.T) {
	var s engine.Spec
	s.Resources.DeviceRequests = []engine.DeviceRequest{
		{Driver: "cdi", IDs: []string{"vendor.com/class=a"}},
		{Count: -1, Capabilities: [][]string{{"gpu"}}},
	}
	if got, want := powers(&s), []string{"device-request=vendor.com/class=a", "device-request=-1 [[gpu]]"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
