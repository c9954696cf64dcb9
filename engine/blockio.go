package engine

import (
	"fmt"
	"reflect"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// blockIO gives the limits of block devices as the OCI specification has them; nil if there are none.
func blockIO(r *Resources) (*specs.LinuxBlockIO, error) {
	out := &specs.LinuxBlockIO{}
	if r.BlkioWeight > 0 {
		out.Weight = &r.BlkioWeight
	}
	for _, d := range r.BlkioWeightDevice {
		node, err := blockDevice(d.Path)
		if err != nil {
			return nil, err
		}
		weight := uint16(d.Rate)
		out.WeightDevice = append(out.WeightDevice, specs.LinuxWeightDevice{LinuxBlockIODevice: node, Weight: &weight})
	}
	for _, l := range []struct {
		from []DeviceRate
		to   *[]specs.LinuxThrottleDevice
	}{
		{r.BlkioReadBps, &out.ThrottleReadBpsDevice}, {r.BlkioWriteBps, &out.ThrottleWriteBpsDevice},
		{r.BlkioReadIOps, &out.ThrottleReadIOPSDevice}, {r.BlkioWriteIOps, &out.ThrottleWriteIOPSDevice},
	} {
		for _, d := range l.from {
			node, err := blockDevice(d.Path)
			if err != nil {
				return nil, err
			}
			*l.to = append(*l.to, specs.LinuxThrottleDevice{LinuxBlockIODevice: node, Rate: d.Rate})
		}
	}
	if reflect.DeepEqual(out, &specs.LinuxBlockIO{}) {
		return nil, nil
	}
	return out, nil
}

func blockDevice(path string) (specs.LinuxBlockIODevice, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return specs.LinuxBlockIODevice{}, invalid("block device %s: %v", path, err)
	}
	return specs.LinuxBlockIODevice{Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev))}, nil
}

// checkBlockIO refuses devices without a name, and weights the kernel has not.
func checkBlockIO(r *Resources) error {
	for _, d := range r.BlkioWeightDevice {
		if d.Rate != 0 && (d.Rate < 10 || d.Rate > 1000) {
			return invalid("Range of blkio weight is from 10 to 1000")
		}
	}
	for _, list := range [][]DeviceRate{r.BlkioWeightDevice, r.BlkioReadBps, r.BlkioWriteBps, r.BlkioReadIOps, r.BlkioWriteIOps} {
		for _, d := range list {
			if d.Path == "" {
				return invalid("a limit of a block device names no device")
			}
		}
	}
	return nil
}

// lifted gives a list's limits, and 0 (none) for those devices that only the list before it had.
func lifted(before, now []DeviceRate) []DeviceRate {
	out := append([]DeviceRate(nil), now...)
	set := map[string]bool{}
	for _, d := range now {
		set[d.Path] = true
	}
	for _, d := range before {
		if !set[d.Path] {
			out = append(out, DeviceRate{Path: d.Path})
		}
	}
	return out
}

// replaceRates puts the lists of b that are not nil in the place of a's. It returns what the kernel has to be told: a,
// with the limits that are gone lifted.
func replaceRates(a, b *Resources) Resources {
	tell := *a
	for _, l := range []struct{ a, b, tell *[]DeviceRate }{
		{&a.BlkioWeightDevice, &b.BlkioWeightDevice, &tell.BlkioWeightDevice},
		{&a.BlkioReadBps, &b.BlkioReadBps, &tell.BlkioReadBps}, {&a.BlkioWriteBps, &b.BlkioWriteBps, &tell.BlkioWriteBps},
		{&a.BlkioReadIOps, &b.BlkioReadIOps, &tell.BlkioReadIOps}, {&a.BlkioWriteIOps, &b.BlkioWriteIOps, &tell.BlkioWriteIOps},
	} {
		if *l.b == nil {
			continue
		}
		*l.tell = lifted(*l.a, *l.b)
		*l.a = append([]DeviceRate(nil), *l.b...)
	}
	return tell
}

// limits gives a container's limits as the OCI specification has them, without devices.
func limits(r *Resources) (*specs.LinuxResources, error) {
	out := linuxResources(r)
	var err error
	if out.BlockIO, err = blockIO(r); err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	return out, nil
}
