package cri

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cale/engine"
)

func signalByNumber(n int) runtimeapi.Signal {
	return runtimeapi.Signal(runtimeapi.Signal_value["SIGNAL_"+unix.SignalName(unix.Signal(n))])
}

// userOf reads whose a process is, as its user namespace has it.
func userOf(pid int, ids *engine.IDMap) *runtimeapi.ContainerUser {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return nil
	}
	u := &runtimeapi.LinuxContainerUser{}
	id := func(text string, ranges func() []engine.IDRange) int64 {
		n, err := strconv.ParseUint(text, 10, 32) // the kernel writes numbers
		if err == nil && ids != nil {
			return int64(engine.ContainerID(ranges(), uint32(n)))
		}
		return int64(n)
	}
	users, groups := func() []engine.IDRange { return ids.UIDs }, func() []engine.IDRange { return ids.GIDs }
	for line := range strings.Lines(string(raw)) {
		name, rest, _ := strings.Cut(line, ":")
		f := strings.Fields(rest)
		switch {
		case name == "Uid" && len(f) > 0:
			u.Uid = id(f[0], users)
		case name == "Gid" && len(f) > 0:
			u.Gid = id(f[0], groups)
		case name == "Groups":
			for _, g := range f {
				u.SupplementalGroups = append(u.SupplementalGroups, id(g, groups))
			}
		}
	}
	return &runtimeapi.ContainerUser{Linux: u}
}
