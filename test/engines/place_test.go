// Package engines runs our low-level runtime and our shim under the field's own engines: Podman, Docker, containerd.
package engines

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cale/test/images"
	"cale/test/stack"

	"golang.org/x/sys/unix"
)

// parent is where containers have their control groups, below each hierarchy.
const parent = "cale-engines"

// TestMain runs the tests in mount, network and process namespaces of their own: what the engines start ends with them,
// and what they mount and write below /run and beside the control groups goes away too.
func TestMain(m *testing.M) {
	if os.Getuid() != 0 {
		fmt.Println("skipped: engines need root")
		return
	}
	if os.Getpid() != 1 {
		os.Exit(outside())
	}
	if err := settle(); err != nil {
		fmt.Fprintln(os.Stderr, "engines:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func outside() int {
	// Built out here, where what go needs is there.
	if _, ok := os.LookupEnv("CALE_BIN"); !ok {
		dir, err := os.MkdirTemp("", "cale-engines-bin")
		if err != nil {
			fmt.Fprintln(os.Stderr, "engines:", err)
			return 1
		}
		defer os.RemoveAll(dir)
		build := exec.Command("go", "build", "-o", dir+"/", "cale/cmd/cale-oci", "cale/cmd/cale-shim")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "engines: go build: %v\n%s", err, out)
			return 1
		}
		os.Setenv("CALE_BIN", dir)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID,
		Pdeathsig:  unix.SIGKILL,
	}
	err := cmd.Run()
	removeGroups()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "engines:", err)
	return 1
}

// removeGroups removes the control groups that engines leave: nothing is in them any more.
func removeGroups() {
	for _, pattern := range []string{"/sys/fs/cgroup/" + parent, "/sys/fs/cgroup/*/" + parent} {
		dirs, _ := filepath.Glob(pattern)
		for _, dir := range dirs {
			_ = exec.Command("find", dir, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+").Run()
		}
	}
}

// settle makes the namespaces a place to live in.
func settle() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("set lo up: %w: %s", err, out)
	}
	return ownGroupFolder()
}

// ownGroupFolder puts the cgroup hierarchies of version 1 into a tmpfs of our own: Podman makes folders of hierarchies
// that aren't there.
func ownGroupFolder() error {
	const at = "/sys/fs/cgroup"
	var fs unix.Statfs_t
	if err := unix.Statfs(at, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		return err
	}
	entries, err := os.ReadDir(at)
	if err != nil {
		return err
	}
	const tmp = "/run/cgroup"
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", tmp, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", tmp, err)
	}
	for _, e := range entries {
		from, to := filepath.Join(at, e.Name()), filepath.Join(tmp, e.Name())
		if link, err := os.Readlink(from); err == nil {
			if err := os.Symlink(link, to); err != nil {
				return err
			}
			continue
		}
		if err := unix.Statfs(from, &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
			continue // another's folder of a hierarchy that isn't there
		}
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", from, err)
		}
	}
	if err := unix.Mount(tmp, at, "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the control groups: %w", err)
	}
	return nil
}

// need skips a test whose programs aren't installed.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range append(programs, "busybox") {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed (test/setup does it)", p)
		}
	}
}

// folder is a new folder on a tmpfs.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/run", "engines")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// daemon starts a daemon, and waits until a command that asks it succeeds.
func daemon(t *testing.T, e engine, log string, args ...string) {
	t.Helper()
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), e.env...), f, f
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(log)
			t.Logf("%s: %s", log, text[max(0, len(text)-3000):])
		}
	})
	stack.Until(t, args[0]+" answers", func() bool { return e.do("version").Code == 0 })
}

// engine is a command line that starts containers.
type engine struct {
	t       *testing.T
	command []string
	env     []string
	image   string
}

func (e engine) cmd(args ...string) *exec.Cmd {
	argv := append(e.command[:len(e.command):len(e.command)], args...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), e.env...)
	return cmd
}

func (e engine) do(args ...string) stack.Result { return stack.Run(e.cmd(args...), "") }

// ok runs a command that has to succeed, and returns what it says.
func (e engine) ok(args ...string) string {
	e.t.Helper()
	return strings.TrimSpace(e.do(args...).OK(e.t))
}

// says runs a command, wants an exit status, and text in what it writes.
func (e engine) says(code int, text string, args ...string) {
	e.t.Helper()
	r := e.do(args...)
	if r.Code != code || !strings.Contains(r.Stdout+r.Stderr, text) {
		e.t.Errorf("%s\nended with %d, not %d, or does not say %q\nstdout: %s\nstderr: %s",
			strings.Join(args, " "), r.Code, code, text, r.Stdout, r.Stderr)
	}
}

// busybox is the image that all containers are made of.
func busybox(t *testing.T) *images.Image {
	t.Helper()
	img, err := images.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// memoryLimit prints a container's memory limit from inside, by either version of control groups.
const memoryLimit = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"

// untilTerm runs until it is asked to end.
const untilTerm = `trap "echo got the signal; exit 3" TERM; echo started; while :; do sleep 0.05; done`
