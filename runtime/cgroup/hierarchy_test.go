package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The mount table has lines for every container of the machine, some of them long: what is read of it for one must not
// grow with their number.
func TestMountTable(t *testing.T) {
	table := func(containers int) string {
		var b strings.Builder
		b.WriteString(`25 1 0:24 / /sys/fs/cgroup/a\040b rw,nosuid - cgroup cgroup rw,cpu,cpuacct` + "\n")
		for i := range containers {
			fmt.Fprintf(&b, "%d 1 0:%d / /run/pods/%d/rootfs rw - overlay overlay rw,lowerdir=%s\n", 100+i, 100+i, i, strings.Repeat("/a/layer:", 300*(i%3)))
		}
		b.WriteString("26 1 0:25 /part /unified rw - cgroup2 cgroup2 rw\n")
		name := filepath.Join(t.TempDir(), "mountinfo")
		if err := os.WriteFile(name, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	few, many := table(3), table(1000)
	for _, name := range []string{few, many} {
		got, err := readMounts(name)
		if err != nil || len(got) != 2 || got[0].point != "/sys/fs/cgroup/a b" || !got[0].is("cpuacct") || got[1].root != "/part" || !got[1].is("") {
			t.Errorf("%+v, %v", got, err)
		}
	}
	allocated := func(name string) int64 {
		return testing.Benchmark(func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				if _, err := readMounts(name); err != nil {
					b.Fatal(err)
				}
			}
		}).AllocedBytesPerOp()
	}
	if a, b := allocated(few), allocated(many); b > a+1024 {
		t.Errorf("%d bytes for three containers, %d for a thousand", a, b)
	}
}
