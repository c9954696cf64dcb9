package restart_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// A program that gets one of the commands finds itself unwritable, with its name, arguments, environment and open files
// as before; as Go starts it, and as it starts itself.
func TestProgramStartsAgainUnwritable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making mounts needs root")
	}
	entries := []string{""}
	if runtime.GOARCH == "amd64" {
		entries = append(entries, "-E _cale_start")
	}
	for _, entry := range entries {
		program := filepath.Join(t.TempDir(), "a program of ü")
		if out, err := exec.Command("go", "build", "-ldflags", entry, "-o", program, "./testdata/show").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		open := 0 // where nothing is restarted
		for _, test := range []struct {
			args []string
			want string
		}{
			{nil, "<nil>"},
			{[]string{"state", "x"}, "<nil>"},
			{[]string{"runs", "executable", "creates", "r", ""}, "<nil>"},
			{[]string{"--root", "a b", "run", "", "ü"}, "read-only file system"},
			{[]string{"create"}, "read-only file system"},
			{[]string{"exec"}, "read-only file system"},
		} {
			cmd := exec.Command(program, test.args...)
			cmd.Env = append(os.Environ(), "SHOW=a value with spaces")
			out, err := cmd.CombinedOutput()
			args := test.args
			if args == nil {
				args = []string{}
			}
			if at := bytes.LastIndex(out, []byte(", ")); test.args == nil && at > 0 {
				fmt.Sscanf(string(out[at:]), ", %d open", &open)
			}
			want := fmt.Sprintf("%s, comm %.15s, %q, %q, %d open\n", test.want, filepath.Base(program), args, "a value with spaces", open)
			if err != nil || string(out) != want {
				t.Errorf("linked with %q, %q: %v: got %s, want %s", entry, test.args, err, out, want)
			}
		}
	}
}
