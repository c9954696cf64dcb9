package seccomp

//go:generate go run gen.go

import (
	"fmt"
	"runtime"
	"sort"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// call is one row of the table of system calls.
type call struct {
	name    string
	numbers [5]int32 // by column
}

// The table's columns.
const (
	amd64 = iota
	x32
	i386
	arm64
	arm
)

// x32Bit is set in the numbers of x32 calls, which share amd64's AUDIT_ARCH value.
const x32Bit = 0x40000000

// arch is how the kernel tells a filter which kind of call is made.
type arch struct {
	column int
	audit  uint32
	wide   bool // arguments have 64 bits
	// mux are calls made through one call that tells them apart by its first argument.
	mux map[string]muxed
}

type muxed struct {
	through string
	op      uint32
}

func archOf(column int) arch {
	switch column {
	case amd64, x32:
		return arch{column, unix.AUDIT_ARCH_X86_64, true, nil}
	case i386:
		return arch{column, unix.AUDIT_ARCH_I386, false, muxCalls()}
	case arm64:
		return arch{column, unix.AUDIT_ARCH_AARCH64, true, nil}
	default:
		return arch{column, unix.AUDIT_ARCH_ARM, false, nil}
	}
}

// muxCalls are 32-bit x86's: linux/net.h and linux/ipc.h.
func muxCalls() map[string]muxed {
	m := make(map[string]muxed, 32)
	for i, name := range []string{"socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername",
		"socketpair", "send", "recv", "sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg",
		"recvmsg", "accept4", "recvmmsg", "sendmmsg"} {
		m[name] = muxed{"socketcall", uint32(i + 1)}
	}
	for _, ipc := range []call{
		{name: "semop", numbers: [5]int32{1}}, {name: "semget", numbers: [5]int32{2}},
		{name: "semctl", numbers: [5]int32{3}}, {name: "semtimedop", numbers: [5]int32{4}},
		{name: "msgsnd", numbers: [5]int32{11}}, {name: "msgrcv", numbers: [5]int32{12}},
		{name: "msgget", numbers: [5]int32{13}}, {name: "msgctl", numbers: [5]int32{14}},
		{name: "shmat", numbers: [5]int32{21}}, {name: "shmdt", numbers: [5]int32{22}},
		{name: "shmget", numbers: [5]int32{23}}, {name: "shmctl", numbers: [5]int32{24}},
	} {
		m[ipc.name] = muxed{"ipc", uint32(ipc.numbers[0])}
	}
	return m
}

// lookup finds a system call's row.
func lookup(name string) *call {
	i := sort.Search(len(calls), func(i int) bool { return calls[i].name >= name })
	if i == len(calls) || calls[i].name != name {
		return nil
	}
	return &calls[i]
}

// columnsFor returns the table's columns for the machine's own architecture and the further ones of the
// configuration, in the order they are to be tested. Architectures this kernel never reports need no code.
func columnsFor(machine string, list []specs.Arch) ([]int, error) {
	var columns []int
	foreign := map[specs.Arch]int{}
	switch machine {
	case "amd64":
		columns = []int{amd64}
		foreign[specs.ArchX86], foreign[specs.ArchX32] = i386, x32
	case "arm64":
		columns = []int{arm64}
		foreign[specs.ArchARM] = arm
	case "arm":
		columns = []int{arm}
	case "386":
		// A 32-bit program on a 64-bit kernel is as likely: either way the calls are i386's.
		columns = []int{i386}
	default:
		return nil, fmt.Errorf("seccomp: no table of system calls for %s", machine)
	}
	seen := map[int]bool{}
	for _, a := range list {
		if !known(a) {
			return nil, fmt.Errorf("seccomp: unknown architecture %q", a)
		}
		if column, ok := foreign[a]; ok && !seen[column] {
			seen[column] = true
			columns = append(columns, column)
		}
	}
	return columns, nil
}

func known(a specs.Arch) bool {
	switch a {
	case specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64, specs.ArchMIPS,
		specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
		specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC,
		specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB:
		return true
	}
	return false
}

func machine() string { return runtime.GOARCH }
