package main

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// sayReady is what a service in a container does.
func sayReady() {
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err == nil {
		_, err = c.Write([]byte("STATUS=up\nREADY=1"))
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	time.Sleep(time.Minute)
}

// bundle makes a bundle whose container is this test's own program, doing what CALE_OCI_TEST says.
func bundle(t *testing.T, do string, change func(*specs.Spec)) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("/dev/shm", "cale-oci-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.MkdirAll(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, code := oci(t, dir, "spec"); code != 0 {
		t.Fatal(out)
	}
	self, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "rootfs/test"), self, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s specs.Spec
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	s.Process.Args, s.Process.Terminal = []string{"/test"}, false
	s.Process.Env = append(s.Process.Env, "CALE_OCI_TEST="+do)
	s.Root.Readonly = false
	if change != nil {
		change(&s)
	}
	if raw, err = json.Marshal(s); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A service manager hears from the runtime, which it knows, that a container is ready (Podman's --sdnotify=container),
// and nothing else that the container may say.
func TestReady(t *testing.T) {
	dir := bundle(t, "ready", nil)
	socket := filepath.Join(dir, "manager")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	heard := make(chan string, 16)
	go func() {
		buf, oob := make([]byte, 256), make([]byte, 64)
		for {
			n, m, _, _, err := manager.ReadMsgUnix(buf, oob)
			if err != nil {
				return
			}
			heard <- string(buf[:n])
			if cs, err := syscall.ParseSocketControlMessage(oob[:m]); err == nil && len(cs) == 1 {
				if fds, err := syscall.ParseUnixRights(&cs[0]); err == nil {
					syscall.Close(fds[0])
				}
			}
		}
	}()
	id := "cale-oci-test-" + filepath.Base(dir)
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(os.Args[0], append([]string{"--root", filepath.Join(dir, "state")}, args...)...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "CALE_OCI_TEST=1", "NOTIFY_SOCKET="+socket)
		done := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		defer done.Stop()
		if err := cmd.Run(); err != nil { // to no pipe: the container would keep that open
			t.Fatalf("%v: %v", args, err)
		}
	}
	for _, way := range [][][]string{{{"run", "-d"}}, {{"create"}, {"start"}}} {
		pidFile := filepath.Join(dir, "pid")
		for i, args := range way {
			if i == 0 {
				args = append(args, "--pid-file", pidFile)
			}
			run(append(args, id)...)
		}
		pid, err := os.ReadFile(pidFile)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"READY=1", "MAINPID=" + string(pid), "BARRIER=1"} {
			select {
			case got := <-heard:
				if got != want {
					t.Errorf("%v: the service manager hears %q instead of %q", way, got, want)
				}
			case <-time.After(5 * time.Second):
				t.Errorf("%v: the service manager doesn't hear %q", way, want)
			}
		}
		run("delete", "--force", id)
	}
}

// crun's annotation, by which Podman's --group-add keep-groups works.
func TestKeepGroups(t *testing.T) {
	for _, test := range []struct {
		annotations map[string]string
		want        string
	}{{map[string]string{keepGroups: "1"}, "7 8"}, {map[string]string{keepGroups: "0"}, ""}, {nil, ""}} {
		dir := bundle(t, "groups", func(s *specs.Spec) { s.Annotations = test.annotations })
		cmd := exec.Command(os.Args[0], "--root", filepath.Join(dir, "state"), "run", "cale-oci-test-"+filepath.Base(dir))
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "CALE_OCI_TEST=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: []uint32{7, 8}}}
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != test.want {
			t.Errorf("%v: groups %q, %v", test.annotations, got, err)
		}
	}
}

func printGroups() {
	groups, err := os.Getgroups()
	if err != nil {
		os.Exit(1)
	}
	var words []string
	for _, g := range groups {
		words = append(words, strconv.Itoa(g))
	}
	os.Stdout.WriteString(strings.Join(words, " ") + "\n")
}

// The specification doesn't say what a user namespace without mappings is: as in crun, one with every ID of outside.
func TestUserNamespaceOfAllIDs(t *testing.T) {
	dir := bundle(t, "ids", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	})
	outside, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	out, code := oci(t, dir, "run", "cale-oci-test-"+filepath.Base(dir))
	if code != 0 || strings.Join(strings.Fields(out), " ") != strings.Join(strings.Fields(string(outside)), " ") {
		t.Errorf("exit status %d, mapped are %q, outside %q", code, out, outside)
	}
}
