package seccomp

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestMain doubles as the child that takes a filter upon itself.
func TestMain(m *testing.M) {
	if config := os.Getenv("CALE_TEST_SECCOMP"); config != "" {
		child(config)
		return
	}
	os.Exit(m.Run())
}

// child loads the filter into its thread, then makes one call and prints the errno, or executes a program.
func child(config string) {
	runtime.LockOSThread()
	var s specs.LinuxSeccomp
	if err := json.Unmarshal([]byte(config), &s); err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	f, err := Compile(&s)
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	path, _ := unix.BytePtrFromString(os.Args[1])
	argv := []*byte{path, nil}
	prog := unix.SockFprog{Len: uint16(len(f.Program)), Filter: &f.Program[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(f.Flags), uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		fmt.Println("load:", errno)
		os.Exit(3)
	}
	if os.Args[1] != "call" {
		_, _, errno = unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&argv[0])), 0)
		fmt.Println("execve:", errno)
		os.Exit(3)
	}
	var nr, a0 uintptr
	fmt.Sscan(os.Args[2], &nr)
	fmt.Sscan(os.Args[3], &a0)
	_, _, errno = unix.RawSyscall(nr, a0, 0, 0)
	fmt.Println("errno", int(errno))
	os.Exit(0)
}

func inChild(t *testing.T, s *specs.LinuxSeccomp, args ...string) (string, error) {
	t.Helper()
	config, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "CALE_TEST_SECCOMP="+string(config))
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func TestKernelTakesMobyProfile(t *testing.T) {
	s := mobyProfile(t)
	for _, c := range []struct {
		nr, a0 uintptr
		want   string
	}{
		{unix.SYS_GETPID, 0, "errno 0"},
		{unix.SYS_KEYCTL, 0, "errno 1"},
		{unix.SYS_CLONE3, 0, "errno 38"},
		{unix.SYS_SOCKET, unix.AF_VSOCK, "errno 1"},
		{5000, 0, "errno 38"},
	} {
		out, err := inChild(t, s, "call", fmt.Sprint(c.nr), fmt.Sprint(c.a0))
		if err != nil || out != c.want {
			t.Errorf("call %d(%d): %s, %v, want %s", c.nr, c.a0, out, err, c.want)
		}
	}
}

func TestKernelActions(t *testing.T) {
	eno := uint(77)
	for _, c := range []struct {
		action specs.LinuxSeccompAction
		want   string
		signal unix.Signal
	}{
		{specs.ActErrno, "errno 77", 0}, {specs.ActLog, "errno 0", 0}, {specs.ActTrace, "errno 38", 0},
		{specs.ActKillProcess, "", unix.SIGSYS},
	} {
		s := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow,
			Syscalls: []specs.LinuxSyscall{{Names: []string{"getppid", "no_such_call"}, Action: c.action, ErrnoRet: &eno}}}
		out, err := inChild(t, s, "call", fmt.Sprint(unix.SYS_GETPPID), "0")
		if c.signal != 0 {
			exit, ok := err.(*exec.ExitError)
			if !ok || exit.Sys().(interface{ Signal() unix.Signal }).Signal() != c.signal {
				t.Errorf("%s: %q, %v", c.action, out, err)
			}
			continue
		}
		if err != nil || out != c.want {
			t.Errorf("%s: %q, %v, want %q", c.action, out, err, c.want)
		}
	}
}

// A 32-bit program gets the rules for its own numbers.
func TestKernel32Bit(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("needs an x86-64 machine")
	}
	eno := uint(42)
	deny := specs.LinuxSyscall{Names: []string{"getppid"}, Action: specs.ActErrno, ErrnoRet: &eno}
	program := write32(t)
	if err := exec.Command(program).Run(); err != nil && strings.Contains(err.Error(), "exec format error") {
		t.Skip("the kernel runs no 32-bit programs")
	}
	s := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86}, Syscalls: []specs.LinuxSyscall{deny}}
	if out, err := inChild(t, s, program); exitCode(err) != 42 {
		t.Errorf("with the architecture: %q, %v, want exit status 42", out, err)
	}
	s.Architectures = nil
	if out, err := inChild(t, s, program); err == nil || exitCode(err) != -1 {
		t.Errorf("without the architecture: %q, %v, want death by signal", out, err)
	}
}

func exitCode(err error) int {
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode()
	}
	return 0
}

// write32 makes an i386 program: exit(-getppid()).
func write32(t *testing.T) string {
	code := []byte{
		0xb8, 64, 0, 0, 0, // mov eax, getppid
		0xcd, 0x80, // int 0x80
		0xf7, 0xd8, // neg eax
		0x89, 0xc3, // mov ebx, eax
		0xb8, 1, 0, 0, 0, // mov eax, exit
		0xcd, 0x80,
	}
	const base, header = 0x08048000, 52 + 32
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x01\x01\x01"), make([]byte, 9)...)
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, 3) // EM_386
	for _, v := range []uint32{1, base + header, 52, 0, 0} {
		b = le.AppendUint32(b, v)
	}
	for _, v := range []uint16{52, 32, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	size := uint32(header + len(code))
	for _, v := range []uint32{1, 0, base, base, size, size, 5, 0x1000} {
		b = le.AppendUint32(b, v)
	}
	file := filepath.Join(t.TempDir(), "getppid32")
	if err := os.WriteFile(file, append(b, code...), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}
