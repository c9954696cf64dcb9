package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cale/test/stack"
)

// folder makes a folder of these files.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestBuildCacheMounts: what steps keep outlives --no-cache, and goes to another
// builder in a file.
func TestBuildCacheMounts(t *testing.T) {
	s := stack.New(t)
	dir := folder(t, map[string]string{"Dockerfile": "FROM " + s.Busybox() + `
RUN --mount=type=cache,target=/plain --mount=type=cache,id=own,target=/own,uid=1000,mode=0700 \
    echo x >> /plain/n; echo x >> /own/n; ln -f /plain/n /plain/linked; stat -c %u:%a /own > /count; cat /plain/linked /own/n | wc -l >> /count
`})
	file := filepath.Join(t.TempDir(), "mounts.tar")
	count := func(want string, args ...string) {
		t.Helper()
		s.Cale(append(append([]string{"build", "-t", "count"}, args...), dir)...).OK(t)
		if got := s.Cale("run", "--rm", "count", "cat", "/count").OK(t); got != "1000:700\n"+want+"\n" {
			t.Errorf("with %q: %q, want %s", args, got, want)
		}
	}
	count("2")
	count("2") // it is not run
	count("4", "--no-cache", "--cache-to", "type=mounts,dest="+file)
	count("6", "--no-cache", "--cache-from", "type=mounts,src="+file) // what is here stays
	count("2", "--no-cache", "--no-cache-mounts")
	s.Cale("builder", "prune", "-af").OK(t)
	count("6", "--cache-from", "type=mounts,src="+file)
	s.Cale("builder", "prune", "-af").OK(t)
	// One of them alone.
	count("6", "--no-cache", "--cache-from", "type=mounts,src="+file, "--cache-to", "type=mounts,dest="+file+"2,id=own")
	s.Cale("builder", "prune", "-af").OK(t)
	count("5", "--cache-from", "type=mounts,src="+file+"2")
	if r := s.Cale("build", "--cache-to", "type=mounts,dest="+file+"3,id=nothing", dir); r.Code == 0 || !strings.Contains(r.Stderr, `there is no cache mount "nothing"`) {
		t.Errorf("a mount that is not: %+v", r)
	}
	if r := s.Cale("build", "--cache-from", "type=mounts,src="+filepath.Join(dir, "Dockerfile"), dir); r.Code == 0 || !strings.Contains(r.Stderr, "archive of cache mounts") {
		t.Errorf("a file that is no archive: %+v", r)
	}
	// A damaged one is told of once, and leaves nothing half filled behind.
	s.Cale("builder", "prune", "-af").OK(t)
	cutShort(t, file+"2", file+"4")
	args := []string{"build", "--no-cache", "-t", "count"}
	if r := s.Cale(append(args, "--cache-from", "type=mounts,src="+file+"4", dir)...); r.Code == 0 || !strings.Contains(r.Stderr, `fill cache mount "own"`) {
		t.Errorf("a damaged archive: %+v", r)
	}
	s.Cale(append(args, dir)...).OK(t)
	if got := s.Cale("run", "--rm", "count", "tail", "-n", "1", "/count").OK(t); got != "2\n" {
		t.Errorf("after a damaged archive: %q", got)
	}
}

// cutShort copies an archive with half of what its files hold.
func cutShort(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	tr := tar.NewReader(in)
	var out bytes.Buffer
	tw := tar.NewWriter(&out)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		h.Size /= 2
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(tw, tr, h.Size); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), os.WriteFile(to, out.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// TestBuildShell: a shell where the step failed, with its files and variables.
func TestBuildShell(t *testing.T) {
	s := stack.New(t)
	dir := folder(t, map[string]string{"Dockerfile": "FROM " + s.Busybox() + `
ENV SET=value
WORKDIR /work
RUN --mount=type=secret,id=token echo left > file; exit 3
`, "token": "s3cret"})
	args := []string{"build", "--on-error", "shell", "--secret", "id=token,src=" + filepath.Join(dir, "token"), "-t", "never", dir}
	r := s.Do("cat file; echo $SET; pwd; cat /run/secrets/token; exit 9\n", "cale", args...)
	if r.Code != 1 || r.Stdout != "left\nvalue\n/work\ns3cret" || !strings.Contains(r.Stderr, "exit code: 3") {
		t.Errorf("a shell: %+v", r)
	}
	if r := s.Cale("inspect", "never"); r.Code == 0 {
		t.Error("the build made an image")
	}
	// A build that ends well asks nothing.
	s.Do("exit 9\n", "cale", "build", "--on-error", "shell", "--build-arg", "x=1", folder(t, map[string]string{"Dockerfile": "FROM " + s.Busybox()})).OK(t)
}

// TestBuildInclude: several Dockerfiles share what is written once.
func TestBuildInclude(t *testing.T) {
	s := stack.New(t)
	files := map[string]string{
		"app/Dockerfile":      "# syntax=docker/dockerfile:1\nARG FROM\nINCLUDE parts/first parts/second\nCOPY parts/first /copied\nRUN <<X\nINCLUDE is text here > /dev/null || true\nX\nCMD cat /first /second\n",
		"app/parts/first":     "FROM $FROM\nRUN echo first > /first",
		"app/parts/second":    "include sub/third\n",
		"app/parts/sub/third": "RUN echo \\\n third > /second\n",
		"app/loop":            "FROM scratch\nINCLUDE loop\n",
		"app/none":            "FROM scratch\n\nINCLUDE ./missing\n",
		"app/out":             "FROM scratch\nINCLUDE ../../etc/passwd\n",
	}
	dir := filepath.Join(folder(t, files), "app")
	if err := os.MkdirAll(s.Config, 0o755); err != nil {
		t.Fatal(err)
	}
	// The machine has no way to Docker's registry.
	if err := os.WriteFile(filepath.Join(s.Config, "build.toml"), []byte("syntax = \"builtin\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, client := range clients(t) {
		s.Do("", client, "build", "--build-arg", "FROM="+s.Busybox(), "-t", "parts", dir).OK(t)
		if got := s.Cale("run", "--rm", "parts").OK(t); got != "first\nthird\n" {
			t.Errorf("%s: %q", client, got)
		}
	}
	// Of an archive, as clients without BuildKit's protocol send one.
	packed, err := exec.Command("tar", "-C", dir, "-c", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	s.Do(string(packed), "cale", "build", "--build-arg", "FROM="+s.Busybox(), "-t", "packed", "-").OK(t)
	if got := s.Cale("run", "--rm", "packed").OK(t); got != "first\nthird\n" {
		t.Errorf("of an archive: %q", got)
	}
	for name, says := range map[string]string{
		"loop": "more than 8 files include one another", "none": "none:3: INCLUDE ./missing: there is no missing beside the Dockerfile", "out": "it leads out of the folder",
	} {
		if r := s.Cale("build", "-f", filepath.Join(dir, name), dir); r.Code == 0 || !strings.Contains(r.Stderr, says) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestBuildReproducible: with SOURCE_DATE_EPOCH the same inputs make the same
// bytes: in whatever order steps end, with a cache and without, and on another
// day.
func TestBuildReproducible(t *testing.T) {
	s := stack.New(t)
	dir := folder(t, map[string]string{"Dockerfile": "FROM " + s.Busybox() + ` AS base
FROM base AS one
RUN --mount=type=secret,id=one sleep $(cat /run/secrets/one); mkdir -p /out/d; for i in c a b; do echo $i > /out/d/$i; done; ln /out/d/a /out/d/hard; ln -s a /out/d/soft
FROM base AS two
RUN --mount=type=secret,id=two sleep $(cat /run/secrets/two); echo two > /two; date > /now; rm /now; chown 1000:1000 /two
FROM base
COPY --from=one /out /out
COPY --from=two /two /two
COPY file /file
RUN rm /etc/group; touch /etc/passwd
LABEL z=1 a=2
`, "file": "of the context\n"})
	secret := t.TempDir()
	out := filepath.Join(secret, "image.tar")
	build := func(one, two string, args ...string) (digest string, tar [32]byte) {
		t.Helper()
		for name, text := range map[string]string{"one": one, "two": two} {
			if err := os.WriteFile(filepath.Join(secret, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(filepath.Join(dir, "file"), time.Now(), time.Now()); err != nil {
			t.Fatal(err)
		}
		meta := filepath.Join(secret, "meta")
		cmd := s.Command(t.Context(), "cale", append([]string{"build", "--secret", "id=one,src=" + filepath.Join(secret, "one"),
			"--secret", "id=two,src=" + filepath.Join(secret, "two"), "--metadata-file", meta, "-o", "type=oci,rewrite-timestamp=true,name=repro,dest=" + out}, append(args, dir)...)...)
		cmd.Env = append(cmd.Env, "SOURCE_DATE_EPOCH=1700000000")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		raw, err := os.ReadFile(meta)
		if err != nil {
			t.Fatal(err)
		}
		var m struct {
			Digest string `json:"containerimage.digest"`
		}
		if err := json.Unmarshal(raw, &m); err != nil || m.Digest == "" {
			t.Fatalf("%v in %s", err, raw)
		}
		if raw, err = os.ReadFile(out); err != nil {
			t.Fatal(err)
		}
		return m.Digest, sha256.Sum256(raw)
	}
	first, tar := build("0", "1")
	for what, again := range map[string]func() (string, [32]byte){
		"from the cache":      func() (string, [32]byte) { return build("0", "0") },
		"in another order":    func() (string, [32]byte) { return build("1.2", "0", "--no-cache") },
		"with an empty cache": func() (string, [32]byte) { s.Cale("builder", "prune", "-af").OK(t); return build("0", "0") },
	} {
		if d, sum := again(); d != first || sum != tar {
			t.Errorf("%s: %s, the first was %s; archives equal: %t", what, d, first, sum == tar)
		}
	}
}

// TestBuildsAtOnce: builds that share steps share their work, and all get it.
func TestBuildsAtOnce(t *testing.T) {
	s := stack.New(t)
	s.Cale("pull", s.Busybox()).OK(t)
	text := "FROM " + s.Busybox() + "\nRUN head -c 16 /dev/urandom | od -An -tx1 > /shared; sleep 1\nARG N\nRUN echo $N > /own\nCMD cat /shared /own\n"
	dir := folder(t, map[string]string{"Dockerfile": text})
	const n = 10
	var wait sync.WaitGroup
	results := make([]stack.Result, n)
	for i := range n {
		wait.Go(func() {
			results[i] = s.Cale("build", "--build-arg", fmt.Sprint("N=", i), "-t", fmt.Sprint("once", i), dir)
		})
	}
	wait.Wait()
	shared := map[string]bool{}
	for i, r := range results {
		r.OK(t)
		random, own, _ := strings.Cut(s.Cale("run", "--rm", fmt.Sprint("once", i)).OK(t), "\n")
		shared[random] = true
		if own != fmt.Sprint(i, "\n") {
			t.Errorf("build %d made %q", i, own)
		}
	}
	if len(shared) != 1 {
		t.Errorf("the shared step was run %d times", len(shared))
	}
	s.Cale("system", "check").OK(t)
}

// TestBuildDiskFull: a build that fills the disk ends with a word about it, and
// leaves a store that is whole and a cache that works.
func TestBuildDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a small file system needs root")
	}
	bin := stack.Programs(t)
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=160m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	run := t.TempDir()
	cale := func(args ...string) stack.Result {
		cmd := exec.Command(filepath.Join(bin, "cale"), args...)
		cmd.Env = append(os.Environ(), "CALE_ROOT="+root, "CALE_RUN="+run, "CALE_CONFIG="+run, "PATH="+bin+":"+os.Getenv("PATH"))
		return stack.Run(cmd, "")
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("no /bin/busybox: install busybox-static")
	}
	dir := folder(t, map[string]string{"busybox": string(busybox), "Dockerfile": "FROM scratch AS small\nCOPY --chmod=755 busybox /bin/sh\nRUN echo small > /small\n" +
		"FROM small AS large\nRUN head -c 400000000 /dev/zero > /large || true; sleep 100\n"})
	for _, last := range []string{"--progress=plain", "--no-cache"} {
		r := cale("build", "--daemonless", "--target", "large", last, "-t", "large", dir)
		if r.Code == 0 || !strings.Contains(r.Stderr, "the disk is nearly full") {
			t.Fatalf("a build that fills the disk: %+v", r)
		}
	}
	cale("build", "--daemonless", "--target", "small", "-t", "small", dir).OK(t)
	// An engine that starts on it finds it whole.
	cale("system", "check").OK(t)
	if pid, err := os.ReadFile(filepath.Join(run, "caled.pid")); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(pid))); err == nil {
			_ = syscall.Kill(n, syscall.SIGTERM)
			stack.Until(t, "the engine has ended", func() bool { return syscall.Kill(n, 0) != nil })
		}
	}
}

// TestBuildAfterEngineKilled: a builder that is at work outlives the engine. The next build starts one, and its base
// image is the one that is here: it is never looked for at the registry of its name.
func TestBuildAfterEngineKilled(t *testing.T) {
	s := stack.New(t)
	s.Cale("pull", s.Busybox()).OK(t)
	s.Cale("tag", s.Busybox(), "base").OK(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM base\nRUN echo next > /next\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	ended := make(chan stack.Result, 1)
	go func() { ended <- s.Do("FROM base\nRUN sleep 5\n", "cale", "build", "-") }()
	stack.Until(t, "a step to run", func() bool {
		list, _ := os.ReadDir(filepath.Join(s.Run, "build", "steps", "states"))
		return len(list) > 0
	})
	builder := s.Builder()
	s.KillEngine()
	s.Cale("build", "-t", "next", dir).OK(t)
	if s.Builder() != builder {
		t.Error("the builder that was at work is another one now")
	}
	if got := s.Cale("run", "--rm", "next", "cat", "/next").OK(t); got != "next\n" {
		t.Errorf("it prints %q", got)
	}
	<-ended // it may have come through
}
