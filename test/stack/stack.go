// Package stack starts a whole Cale of its own for a test: an engine with private trees, sockets, bridge and cgroup
// parent, a registry with a busybox image in it, and the command lines that talk to it. When the test ends so does
// all of it.
package stack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cale/test/images"
)

// Patience is how long anything may take before a test gives up on it: long, as the machine may be busy.
const Patience = 60 * time.Second

// Stack is one running Cale.
type Stack struct {
	t         testing.TB
	bin       string
	Root, Run string
	Config    string // folder of settings; it need not be there
	Registry  string // host:port; busybox:latest is in it
}

var build = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("CALE_BIN"); dir != "" {
		return dir, nil
	}
	dir, err := os.MkdirTemp("", "cale-bin")
	if err != nil {
		return "", err
	}
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", dir+"/", "./cmd/cale", "./cmd/caled", "./cmd/cale-shim", "./cmd/cale-oci", "./cmd/cale-build", "./cmd/cale-verify")
	cmd.Dir = strings.TrimSpace(string(root))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return dir, nil
})

// Programs is the folder with the programs, built if need be.
func Programs(t testing.TB) string {
	t.Helper()
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// New starts a Cale. It skips the test where that can't be done.
func New(t testing.TB) *Stack {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("containers on a real kernel need root")
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("no /bin/busybox: install busybox-static")
	}
	dir, err := os.MkdirTemp(shm(), "cale-stack")
	if err != nil {
		t.Fatal(err)
	}
	s := &Stack{t: t, bin: Programs(t), Root: filepath.Join(dir, "root"), Run: filepath.Join(dir, "run"), Config: filepath.Join(dir, "config")}
	t.Cleanup(func() { s.end(dir) })
	s.Registry = strings.TrimSpace(s.Cale("registry", "--listen", "127.0.0.1:0", "-q").OK(t))
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := images.Push(ctx, s.Registry, "busybox:latest"); err != nil {
		t.Fatal(err)
	}
	return s
}

func shm() string {
	if d := os.Getenv("TMPDIR"); d != "" {
		return d
	}
	if _, err := os.Stat("/dev/shm"); err == nil {
		return "/dev/shm"
	}
	return ""
}

// T is the test whose Cale this is.
func (s *Stack) T() testing.TB { return s.t }

// Busybox is the reference of the image in the registry.
func (s *Stack) Busybox() string { return s.Registry + "/busybox" }

// PID is the engine's process, 0 when none runs.
func (s *Stack) PID() int {
	raw, err := os.ReadFile(filepath.Join(s.Run, "caled.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || !alive(pid) {
		return 0
	}
	return pid
}

// KillEngine ends the engine as a crash would, and waits until it is gone. The registry goes with it.
func (s *Stack) KillEngine() {
	s.t.Helper()
	pid := s.PID()
	if pid == 0 {
		s.t.Fatal("no engine runs")
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	s.gone(pid)
}

func (s *Stack) gone(pid int) {
	s.t.Helper()
	Until(s.t, fmt.Sprintf("caled %d has ended", pid), func() bool { return !alive(pid) })
}

// alive counts a zombie as dead: whoever started it may never ask for it.
func alive(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, ok := bytes.Cut(raw, []byte(") "))
	return ok && !bytes.HasPrefix(rest, []byte("Z"))
}

// end removes every container, then the engine, then the trees.
func (s *Stack) end(dir string) {
	if s.t.Failed() {
		if raw, err := os.ReadFile(filepath.Join(s.Run, "caled.log")); err == nil {
			s.t.Logf("caled.log:\n%s", tail(raw, 4000))
		}
	}
	for try := 0; try < 3; try++ {
		ids := strings.Fields(s.Cale("ps", "-aq").Stdout)
		if len(ids) == 0 {
			break
		}
		s.Cale(append([]string{"rm", "-f", "-v"}, ids...)...)
	}
	s.StopBuilder(syscall.SIGTERM)
	if pid := s.PID(); pid != 0 {
		_ = syscall.Kill(pid, syscall.SIGTERM)
		deadline := time.Now().Add(Patience)
		for alive(pid) && time.Now().Before(deadline) {
			time.Sleep(20 * time.Millisecond)
		}
		if alive(pid) {
			s.t.Errorf("caled %d does not end", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		s.t.Errorf("something is still mounted: %v", err)
	}
}

// Builder is the builder's process, 0 when none runs.
func (s *Stack) Builder() int {
	raw, err := os.ReadFile(filepath.Join(s.Run, "build", "lock"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || !alive(pid) {
		return 0
	}
	return pid
}

// StopBuilder ends the builder, if one runs, and waits until it is gone.
func (s *Stack) StopBuilder(sig syscall.Signal) {
	pid := s.Builder()
	if pid == 0 {
		return
	}
	_ = syscall.Kill(pid, sig)
	for deadline := time.Now().Add(Patience); alive(pid); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Errorf("cale-build %d does not end", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL)
			return
		}
	}
}

func tail(b []byte, n int) []byte {
	if len(b) > n {
		return b[len(b)-n:]
	}
	return b
}

// CgroupParent is where this Cale's containers have their control groups, below each hierarchy.
func (s *Stack) CgroupParent() string {
	sum := sha256.Sum256([]byte(s.Run))
	return "cale-" + hex.EncodeToString(sum[:])[:6]
}

// Result is how a command ended.
type Result struct {
	Args           []string
	Stdout, Stderr string
	Code           int
}

// OK fails the test unless the command ended with 0, and returns its standard output.
func (r Result) OK(t testing.TB) string {
	t.Helper()
	return r.Exit(t, 0).Stdout
}

// Exit fails the test unless the command ended with code.
func (r Result) Exit(t testing.TB, code int) Result {
	t.Helper()
	if r.Code != code {
		t.Fatalf("%s\nended with %d, not %d\nstdout: %s\nstderr: %s", strings.Join(r.Args, " "), r.Code, code, r.Stdout, r.Stderr)
	}
	return r
}

// Env is the environment in which cale and docker speak to this Cale.
func (s *Stack) Env() []string {
	return append(os.Environ(), "CALE_ROOT="+s.Root, "CALE_RUN="+s.Run, "CALE_CONFIG="+s.Config, "DOCKER_HOST=unix://"+filepath.Join(s.Run, "docker.sock"),
		"DOCKER_CONFIG="+filepath.Join(filepath.Dir(s.Root), "docker"), "PATH="+s.bin+":"+os.Getenv("PATH"))
}

// Command prepares a command in this Cale's environment; ctx ends it.
func (s *Stack) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if name == "cale" {
		name = filepath.Join(s.bin, "cale")
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = s.Env()
	cmd.WaitDelay = time.Second
	return cmd
}

// Do runs a command with input as its stdin.
func (s *Stack) Do(input, name string, args ...string) Result {
	return Run(s.Command(context.Background(), name, args...), input)
}

// Run runs a command with input as its stdin, for as long as patience lasts.
func Run(cmd *exec.Cmd, input string) Result {
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	cmd.WaitDelay = time.Second
	var late atomic.Bool
	err := cmd.Start()
	if err == nil {
		timer := time.AfterFunc(Patience, func() {
			late.Store(true)
			_ = cmd.Process.Kill()
		})
		err = cmd.Wait()
		timer.Stop()
	}
	r := Result{Args: cmd.Args, Stdout: stdout.String(), Stderr: stderr.String()}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		r.Code = exit.ExitCode()
	default:
		r.Code, r.Stderr = -1, r.Stderr+err.Error()
	}
	if late.Load() {
		r.Code, r.Stderr = -1, r.Stderr+"\n(took longer than "+Patience.String()+")"
	}
	return r
}

// Cale runs the cale command.
func (s *Stack) Cale(args ...string) Result { return s.Do("", "cale", args...) }

// Until waits for something to become true.
func Until(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", Patience, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// FreePort is a TCP port that was free on every address a moment ago.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
