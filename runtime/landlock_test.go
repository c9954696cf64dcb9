package runtime

import (
	"strings"
	"testing"

	"cale/runtime/landlock"
)

// TestLandlock: what the annotation allows goes on, all else is refused, for init and for processes of exec, with and
// without no_new_privs.
func TestLandlock(t *testing.T) {
	abi, err := landlock.ABI()
	if err != nil {
		w := newWorld(t)
		w.spec.Annotations = map[string]string{landlock.Annotation: "read=/"}
		if _, _, err := w.run("true"); err == nil || !strings.Contains(err.Error(), "landlock") {
			t.Errorf("without Landlock: %v", err)
		}
		return
	}
	const script = `cat /etc/secret; echo x >/data/f && cat /data/f; echo x >/bin/f; mkdir /data/d && echo made; mkdir /new; echo x >/dev/null && echo null; cat /etc/hostname; true`
	for _, nnp := range []bool{true, false} {
		w := newWorld(t)
		w.file("etc/secret", "secret\n")
		w.file("etc/hostname", "name\n")
		w.spec.Process.NoNewPrivileges = nnp
		w.spec.Annotations = map[string]string{landlock.Annotation: "read=/bin read=/proc write=/data write=/dev read=/etc/hostname"}
		check := func(what, out string) {
			t.Helper()
			for _, want := range []string{"/etc/secret': Permission denied", "x\n", "made\n", "can't create /bin/f: Permission denied", "'/new': Permission denied", "null\n", "name\n"} {
				if !strings.Contains(out, want) {
					t.Errorf("%s, no_new_privs %v: no %q in %s", what, nnp, want, out)
				}
			}
		}
		check("run", w.must(script+" 2>&1"))
		c := w.start()
		out, code, err := w.exec(c, w.process("rmdir /data/d; "+script+" 2>&1"))
		if err != nil || code != 0 {
			t.Errorf("exec: %d, %v", code, err)
		}
		out = strings.Replace(out, "mkdir: can't create directory '/data/d': File exists", "made\n", 1)
		check("exec", out)
	}
	w := newWorld(t)
	for rules, want := range map[string]string{
		"read=/nosuch": "landlock: rule for /nosuch: no such file or directory",
		"read=here":    "not an absolute path",
		"read=/data":   "permission denied", // its own program may not be run
	} {
		w.spec.Annotations = map[string]string{landlock.Annotation: rules}
		if _, _, err := w.run("true"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", rules, err)
		}
	}
	if abi < 4 {
		return
	}
	w.link("busybox", "bin/nc")
	w.spec.Annotations = map[string]string{landlock.Annotation: "connect=7"}
	if out, _, _ := w.run("nc 127.0.0.1 9; nc 127.0.0.1 7"); !strings.Contains(out, "127.0.0.1): Permission denied\n") || !strings.HasSuffix(out, "127.0.0.1): Connection refused\n") {
		t.Errorf("ports: %s", out)
	}
}
