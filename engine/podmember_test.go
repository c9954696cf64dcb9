package engine

import (
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Huge pages are limited as asked where the kernel can, and left alone where it can't.
func TestHugepages(t *testing.T) {
	was := hugepageLimits
	defer func() { hugepageLimits = was }()
	for can, want := range map[bool][]specs.LinuxHugepageLimit{
		true:  {{Pagesize: "1GB", Limit: 0}, {Pagesize: "2MB", Limit: 4 << 20}},
		false: nil,
	} {
		hugepageLimits = func() bool { return can }
		p := &pod{rec: podRecord{Spec: PodSpec{HostNetwork: true, HostIPC: true}}}
		rec := &record{Spec: Spec{Member: &Member{HugepageLimits: map[string]uint64{"2MB": 4 << 20, "1GB": 0}}}}
		spec := &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}
		new(Engine).ociMember(spec, p, rec)
		if got := spec.Linux.Resources.HugepageLimits; !slices.Equal(got, want) {
			t.Errorf("can %v: %v", can, got)
		}
	}
}
