package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The test binary is the program too, so that it can be tried as callers use it.
func TestMain(m *testing.M) {
	switch os.Getenv("CALE_OCI_TEST") {
	case "1":
		os.Exit((&app{}).main(os.Args[1:]))
	case "ready":
		sayReady()
		return
	case "groups":
		printGroups()
		return
	case "ids":
		ids, _ := os.ReadFile("/proc/self/uid_map")
		os.Stdout.Write(ids)
		return
	}
	os.Exit(m.Run())
}

func oci(t *testing.T, dir string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"--root", filepath.Join(dir, "state")}, args...)...)
	cmd.Env = append(os.Environ(), "CALE_OCI_TEST=1")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestFlags(t *testing.T) {
	for _, test := range []struct {
		args     string
		anywhere bool
		rest     string
		err      string
	}{
		{"--str a --flag x y", false, "x y", ""},
		{"-s=a x --flag", false, "x --flag", ""},
		{"x --str a y -f", true, "x y", ""},
		{"--flag=false -- --str", true, "--str", ""},
		{"--nosuch", true, "", "flag provided but not defined: -nosuch"},
		{"--str", true, "", "flag needs an argument: -str"},
		{"--int x", true, "", `invalid value "x" for flag -int`},
		{"--count -1", true, "", `invalid value "-1" for flag -count`},
		{"--count 2 x", true, "x", ""},
		{"--help", true, "", "help"},
		{"- x", false, "- x", ""},
	} {
		var f flags
		var s string
		var b bool
		var n int
		var c uint
		f.str(&s, "str", "s")
		f.bool(&b, "flag", "f")
		f.int(&n, "int")
		f.count(&c, "count")
		rest, err := f.parse(strings.Fields(test.args), test.anywhere)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != test.err || err == nil && strings.Join(rest, " ") != test.rest {
			t.Errorf("%s: %q, %q", test.args, rest, text)
		}
	}
}

func TestParseSignal(t *testing.T) {
	for s, want := range map[string]unix.Signal{"9": 9, "KILL": 9, "sigterm": 15, "SIGRTMIN+3": 37, "0": 0} {
		if got, err := parseSignal(s); err != nil || got != want {
			t.Errorf("%s: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "65", "-1", "SIGNOSUCH", "9x"} {
		if _, err := parseSignal(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func TestParseBytes(t *testing.T) {
	for s, want := range map[string]int64{"512": 512, "1k": 1024, "1.5KiB": 1536, "2g": 2 << 30, "10MB": 10 << 20, "3b": 3} {
		if got, err := parseBytes(s); err != nil || got != want {
			t.Errorf("%s: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "k", "1x", "-1", "1kk", "9999999p"} {
		if _, err := parseBytes(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

// CVE-2026-30892: a user that only starts with a number is none.
func TestParseID(t *testing.T) {
	for s, want := range map[string]uint32{"0": 0, "1000": 1000, "4294967294": 4294967294} {
		if got, err := parseID("uid", s); err != nil || got != want {
			t.Errorf("%s: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "1000x", "-1", "4294967295", "4294967296", "0x10", " 1", "root", "+1"} {
		if _, err := parseID("uid", s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func TestAddCaps(t *testing.T) {
	c := addCaps(&specs.LinuxCapabilities{Bounding: []string{"A"}}, []string{"B"})
	if len(c.Bounding) != 2 || len(c.Effective) != 1 || len(c.Inheritable) != 0 || len(c.Ambient) != 0 {
		t.Errorf("%+v", c)
	}
}

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct {
		args string
		code int
		out  string
	}{
		{"--version", 0, "spec: 1."},
		{"--help", 0, "COMMANDS"},
		{"run --help", 0, "--pid-file value\n"},
		// Of runc's help the first lines are known, of crun's the usage.
		{"start --help", 0, " start - start a created container\n\nUsage: "},
		{"delete --help", 0, " [OPTION...] delete CONTAINER\n"},
		{"exec -h", 0, " [OPTION...] exec CONTAINER cmd"},
		{"nosuch", 3, "nosuch"},
		{"state nosuch", 1, "container does not exist"},
		{"--log-format json state nosuch", 1, `"level":"error","msg":"container does not exist"`},
		{"delete nosuch", 1, "container does not exist"},
		{"delete --force nosuch", 0, ""},
		{"exec nosuch true", 255, "container does not exist"},
		{"state", 1, "requires exactly 1 argument"},
		{"create ../x", 1, " create failed: JSON specification file "},
		{"features", 0, `"ociVersionMax"`},
		{"spec", 0, ""},
		{"spec", 1, "Remove it first"},
	} {
		out, code := oci(t, dir, strings.Fields(test.args)...)
		if code != test.code || !strings.Contains(out, test.out) {
			t.Errorf("%s: exit status %d, %s", test.args, code, out)
		}
	}
	// Options come after the container too; the log gets what stderr gets.
	log := filepath.Join(dir, "log")
	if out, code := oci(t, dir, "--log", log, "--log-format", "json", "delete", "nosuch", "--force=false"); code != 1 || !strings.Contains(out, "does not exist") {
		t.Errorf("exit status %d, %s", code, out)
	}
	if text, _ := os.ReadFile(log); !strings.Contains(string(text), `"msg":"container does not exist"`) {
		t.Errorf("log: %s", text)
	}
}

func TestRunContainer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("needs a static /bin/busybox (Debian: busybox-static)")
	}
	dir, err := os.MkdirTemp("/dev/shm", "cale-oci-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "rootfs/bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"sh", "sleep", "cat"} {
		if err := os.WriteFile(filepath.Join(bin, n), busybox, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if out, code := oci(t, dir, "spec"); code != 0 {
		t.Fatal(out)
	}
	config := filepath.Join(dir, "config.json")
	raw, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	set := func(script string) {
		s := strings.Replace(string(raw), `"terminal": true,`, "", 1)
		s = strings.Replace(s, "\"sh\"\n", `"sh", "-c", "`+script+"\"\n", 1)
		s = strings.Replace(s, `"readonly": true`, `"readonly": false`, 1)
		if err := os.WriteFile(config, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	id := "cale-oci-test-" + filepath.Base(dir)
	set("echo hello; exit 5")
	if out, code := oci(t, dir, "run", id); code != 5 || out != "hello\n" {
		t.Errorf("run: exit status %d, %q", code, out)
	}
	broken := strings.Replace(strings.Replace(string(raw), `"nosuid"`, `"nosuch"`, 1), `"terminal": true,`, "", 1)
	if err := os.WriteFile(config, []byte(broken), 0o644); err != nil {
		t.Fatal(err)
	}
	words := ` run failed: unable to start container process: error during container init: error mounting `
	if out, code := oci(t, dir, "run", id); code != 1 || !strings.Contains(out, words) {
		t.Errorf("run with a bad mount: exit status %d, %q", code, out)
	}
	// A terminal of the process's needs one of the caller's.
	if err := os.WriteFile(config, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "--root", filepath.Join(dir, "state"), "run", id)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = dir, append(os.Environ(), "CALE_OCI_TEST=1"), &syscall.SysProcAttr{Setsid: true}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "open /dev/tty: no such device or address") {
		t.Errorf("run without a terminal: %v, %q", err, out)
	}
	set("exec sleep 1000")
	defer oci(t, dir, "delete", "--force", id)
	cmd = exec.Command(os.Args[0], "--root", filepath.Join(dir, "state"), "create", "--pid-file", filepath.Join(dir, "pid"), id)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CALE_OCI_TEST=1")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		args string
		code int
		out  string
	}{
		{"state ID", 0, `"status": "created"`},
		{"pause ID", 0, ""},
		{"state ID", 0, `"status": "paused"`},
		{"start ID", 1, "cannot start a container in the paused state"},
		{"resume ID", 0, ""},
		{"state ID", 0, `"status": "created"`},
		{"start ID", 0, ""},
		{"list -q", 0, id},
		{"list --format json", 0, `"status":"running"`},
		{"exec ID sh -c exit\t7", 7, ""},
		{"exec --user 1000x ID sh", 255, "not an ID"},
		{"exec --env A=b --cwd /bin ID sh -c echo\t$A\t$PWD", 0, "b /bin\n"},
		{"exec ID nosuch", 255, `exec: \"nosuch\": executable file not found in $PATH`},
		{"ps --format json ID", 0, "["},
		{"pause ID", 0, ""},
		{"state ID", 0, `"status": "paused"`},
		{"resume ID", 0, ""},
		{"events --stats ID", 0, `"type":"stats"`},
		{"events --stats ID", 0, `"mems":[0`},
		{"create --preserve-fds -1 ID2", 1, `invalid value \"-1\" for flag -preserve-fds`},
		{"delete ID", 1, "not stopped"},
		{"delete --force --regex ^nosuch", 0, ""},
		{"delete --regex (", 1, "regular expression"},
		{"delete --regex ID$", 1, "not stopped"},
		{"kill ID KILL", 0, ""},
		{"delete --force -r ^cale-oci-[tx]est-", 0, ""},
		{"state ID", 1, "container does not exist"},
	}
	for _, s := range steps {
		args := strings.Fields(strings.ReplaceAll(s.args, "\t", "\x01"))
		for i := range args {
			args[i] = strings.ReplaceAll(strings.ReplaceAll(args[i], "\x01", " "), "ID", id)
		}
		if out, code := oci(t, dir, args...); code != s.code || !strings.Contains(out, s.out) {
			t.Errorf("%s: exit status %d, %s", s.args, code, out)
		}
	}
}

func TestNumbers(t *testing.T) {
	for list, want := range map[string][]uint16{"": nil, "\n": nil, "0\n": {0}, "0-2,7": {0, 1, 2, 7}, "3,x": {3}, "5-4": nil} {
		if got := numbers(list); !slices.Equal(got, want) {
			t.Errorf("%q: %v", list, got)
		}
	}
}
