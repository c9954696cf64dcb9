package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cale/runtime/dbus"
	"cale/runtime/linux"
)

const (
	someUser  = 1 // Debian's daemon: dbus-daemon wants to be a user that there is
	insideEnv = "CALE_TEST_USER_NAMESPACE"
)

// TestInsideUserNamespace is what TestUserSystemd runs as root of a user namespace.
func TestInsideUserNamespace(t *testing.T) {
	if os.Getenv(insideEnv) == "" {
		t.Skip("only for TestUserSystemd")
	}
	if os.Geteuid() != 0 || linux.User() != someUser {
		t.Errorf("user %d is %d outside, not %d", os.Geteuid(), linux.User(), someUser)
	}
	u, err := ParseUnit(":pre:one", "id", linux.User())
	if err != nil {
		t.Fatal(err)
	}
	group, err := u.Path()
	if want := "/user.slice/of-1/user.slice/pre-one.scope"; err != nil || group != want {
		t.Errorf("group %q, %v, not %q", group, err, want)
	}
	if err := u.Start("id", os.Getpid(), nil, nil); err != nil {
		t.Error(err)
	}
	if err := u.Stop(); err != nil {
		t.Error(err)
	}
}

// TestUserSystemd: root of a user namespace, as a rootless engine runs us, has the systemd of who made the namespace. The
// bus takes us for nobody else.
func TestUserSystemd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	if b, err := os.ReadFile("/proc/sys/user/max_user_namespaces"); err != nil || strings.TrimSpace(string(b)) == "0" {
		t.Skip("user namespaces are off")
	}
	dir, err := os.MkdirTemp("/dev/shm", "cale-cgroup-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(dir+"/program", program, 0o755)
	}
	if err == nil {
		err = os.Chown(dir, someUser, someUser)
	}
	if err != nil {
		t.Fatal(err)
	}
	userBus(t, dir)
	for name, address := range map[string]string{
		"its address":       "unix:path=" + dir + "/bus,guid=0",
		"the folder's":      "",
		"an address of old": "unix:path=" + dir + "/nosuch",
	} {
		cmd := exec.Command(dir+"/program", "-test.run=^TestInsideUserNamespace$", "-test.v")
		cmd.Env = []string{insideEnv + "=1", "DBUS_SESSION_BUS_ADDRESS=" + address}
		if name != "its address" {
			cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+dir)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: someUser, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: someUser, Size: 1}},
			Credential:  &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true},
		}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestInsideUserNamespace") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// userBus is a user's bus, with what stands for the user's systemd on it.
func userBus(t *testing.T, dir string) {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("needs dbus-daemon (Debian: dbus-daemon)")
	}
	socket := filepath.Join(dir, "bus")
	config := `<busconfig><type>session</type><listen>unix:path=` + socket + `</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy></busconfig>`
	if err := os.WriteFile(dir+"/config", []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--config-file", dir+"/config", "--nofork", "--nopidfile", "--print-address")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: someUser, Gid: someUser}}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	out.Read(make([]byte, 200)) // its address: it listens
	c, err := dbus.Serve(socket, systemdName, time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		for job := uint32(1); ; job++ {
			m, err := c.Next()
			if err != nil {
				return
			}
			switch m.Member {
			case "Get":
				c.Reply(m, "v", dbus.Variant{Signature: "s", Value: fmt.Sprintf("/user.slice/of-%d", someUser)})
			case "StartTransientUnit", "StopUnit":
				name := fmt.Sprintf("%s/job/%d", systemdPath, job)
				c.Reply(m, "o", name)
				c.Emit("", systemdPath, managerName, "JobRemoved", "uoss", job, name, m.Body[0], "done")
			default:
				c.Reply(m, "")
			}
		}
	}()
}
