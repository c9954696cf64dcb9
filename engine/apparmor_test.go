package engine

import (
	"strings"
	"testing"

	"cale/apparmor"
)

// Containers are confined where the kernel has AppArmor, unless they are not to be; root in one with the right to
// mount may not, and what the kernel shows of the machine can't be written even where it is not mounted read-only.
func TestApparmor(t *testing.T) {
	if !apparmor.Enabled() {
		t.Skip("the kernel confines nothing by AppArmor")
	}
	b := newBench(t)
	for _, test := range []struct {
		name, profile string
		privileged    bool
		want          string
	}{
		{"by default", "", false, apparmor.Profile + " (enforce)"},
		{"by Docker's name", "docker-default", false, apparmor.Profile + " (enforce)"},
		{"not", "unconfined", false, "unconfined"},
		{"privileged", "", true, "unconfined"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := sh("cat /proc/self/attr/current")
			s.Security.AppArmor, s.Security.Privileged = test.profile, test.privileged
			if out, code := b.run(s); code != 0 || strings.TrimSpace(out) != test.want {
				t.Errorf("exit status %d, %q", code, out)
			}
		})
	}
	s := sh("mount -t tmpfs none /tmp; echo mounted $?; echo x >/proc/sys/vm/swappiness; echo written $?; echo x >/tmp/file && echo fine")
	s.Security.CapAdd, s.Security.SystemPaths = []string{"SYS_ADMIN"}, "unconfined"
	s.Security.Seccomp = "unconfined"
	out, _ := b.run(s)
	for _, want := range []string{"none on /tmp failed: Permission denied", "/proc/sys/vm/swappiness: Permission denied", "fine"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	id := b.start(sh("exec sleep 1000"))
	if out, code := b.exec(id, ExecSpec{Cmd: []string{"cat", "/proc/self/attr/current"}}); code != 0 || !strings.Contains(out, apparmor.Profile) {
		t.Errorf("exec: exit status %d, %q", code, out)
	}
	s = sh("true")
	s.Security.AppArmor = "no-such-profile"
	if err := b.Start(t.Context(), b.create(s), StartOptions{}); err == nil || !strings.Contains(err.Error(), "AppArmor profile no-such-profile") {
		t.Errorf("a profile that isn't there: %v", err)
	}
}
