package seccomp

import (
	"encoding/json"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// FuzzCompile: rules of anyone become a program that the kernel would take and that ends with an answer, or an error.
func FuzzCompile(f *testing.F) {
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"syscalls":[
		{"names":["read","socketcall"],"action":"SCMP_ACT_ALLOW"},
		{"names":["personality"],"action":"SCMP_ACT_TRACE","args":[{"index":0,"value":8,"op":"SCMP_CMP_MASKED_EQ","valueTwo":8}]}]}`), uint32(0), uint64(8))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["clone"],"action":"SCMP_ACT_KILL","args":[{"index":5,"value":18446744073709551615,"op":"SCMP_CMP_GE"}]}]}`), uint32(56), uint64(1<<63))
	f.Fuzz(func(t *testing.T, raw []byte, nr uint32, arg uint64) {
		var s specs.LinuxSeccomp
		if json.Unmarshal(raw, &s) != nil {
			return
		}
		out, err := Compile(&s)
		if err != nil || len(out.Program) == 0 {
			return
		}
		if len(out.Program) > 4096 { // BPF_MAXINSNS
			t.Fatalf("%d instructions", len(out.Program))
		}
		for _, arch := range []uint32{0xc000003e, 0x40000003, 0xc00000b7, nr} {
			run(t, out.Program, data{number: nr, arch: arch, args: [6]uint64{arg, arg, arg, arg, arg, arg}})
		}
	})
}
