package startlimit_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"cale/runtime/linux/startlimit"
)

// The child is started with a low soft limit, which its Go runtime raises before anything of ours could look.
func TestSeesTheLimitBeforeGoRaisesIt(t *testing.T) {
	if os.Getenv("STARTLIMIT_CHILD") != "" {
		var now syscall.Rlimit
		syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now)
		fmt.Printf("started with %d, now %d\n", startlimit.Soft, now.Cur)
		return
	}
	cmd := exec.Command("/bin/sh", "-c", `ulimit -S -n 333; exec "$0" -test.run=TestSees`, os.Args[0])
	cmd.Env = append(os.Environ(), "STARTLIMIT_CHILD=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "started with 333,") {
		t.Errorf("%v: %s", err, out)
	}
	t.Logf("%s", out)
}
