package restart_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	_ "cale/runtime/linux/restart"

	"golang.org/x/sys/unix"
)

// A program that gets one of the commands finds itself unwritable, with its name, arguments and environment as before.
func TestProgramStartsAgainUnwritable(t *testing.T) {
	if os.Getenv("RESTART_CHILD") != "" {
		comm, _ := os.ReadFile("/proc/self/comm")
		open, _ := os.ReadDir("/proc/self/fd")
		fmt.Printf("%v, comm %s, %q, %q, %d open\n", unix.Faccessat(unix.AT_FDCWD, "/proc/self/exe", unix.W_OK, unix.AT_EACCESS),
			strings.TrimSpace(string(comm)), os.Args[3:], os.Getenv("RESTART_CHILD"), len(open))
		os.Exit(0)
	}
	if os.Geteuid() != 0 {
		t.Skip("making mounts needs root")
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"state", "x"}, "<nil>"},
		{[]string{"runs"}, "<nil>"},
		{[]string{"--root", "a b", "run", "", "ü"}, "read-only file system"},
		{[]string{"create"}, "read-only file system"},
		{[]string{"exec"}, "read-only file system"},
	} {
		cmd := exec.Command(os.Args[0], append([]string{"-test.run=TestProgram", "--"}, test.args...)...)
		cmd.Env = append(os.Environ(), "RESTART_CHILD=a value with spaces")
		out, err := cmd.CombinedOutput()
		want := fmt.Sprintf("%s, comm %.15s, %q, %q, ", test.want, filepath.Base(os.Args[0]), test.args, "a value with spaces")
		if err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("%q: %v: got %s, want %s", test.args, err, out, want)
		}
		t.Logf("%s", out)
	}
}
