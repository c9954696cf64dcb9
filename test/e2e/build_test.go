package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cale/test/stack"
)

// dockerfile asserts what it can while it is being built: what is wrong fails there, with its line.
const dockerfile = `# check=skip=InvalidDefaultArgInFrom,UndefinedVar;error=true
ARG BASE
FROM $BASE AS base
ENV PLAIN=1
ENV DEFAULTED=${NOTHING:-fallback} CUT=${PLAIN:+set}
RUN [ "$PLAIN$DEFAULTED$CUT" = 1fallbackset ] && [ ! -e /run/secrets/token ] && [ ! -e /.dockerenv ]
ONBUILD RUN echo built on > /onbuild

FROM base AS tool
SHELL ["/bin/sh", "-e", "-c"]
RUN <<EOF
mkdir /out
echo tool > /out/tool
ln -s tool /out/link
EOF
COPY <<-"END" /out/here
	not $PLAIN
	END
RUN [ "$(cat /out/here)" = 'not $PLAIN' ] && grep -q "built on" /onbuild

FROM base AS final
ARG GREETING=none
ARG TARGETARCH
LABEL by="the test" arch=$TARGETARCH
WORKDIR /srv/app
RUN [ "$PWD" = /srv/app ] && [ "$GREETING" = hello ]
COPY --from=tool --chown=12:34 --chmod=640 /out/tool ./owned
RUN [ "$(stat -c '%u:%g %a' owned)" = "12:34 640" ]
COPY --from=tool /out/link linked
RUN [ ! -L linked ] && [ "$(cat linked)" = tool ]
COPY --link --from=tool /out /linked
RUN [ "$(readlink /linked/link)" = tool ]
COPY --parents --exclude=**/*.md tree/./deep/ /parents/
RUN [ -e /parents/deep/file ] && [ ! -e /parents/deep/read.md ]
COPY . /all/
RUN [ ! -e /all/ignored ] && [ -e /all/kept ] && [ -L /all/dead ]
ADD archive.tar /added/
RUN [ "$(cat /added/in/archive)" = packed ]
ARG FROM_WEB
ADD --chmod=600 $FROM_WEB /web/
RUN [ "$(cat /web/file)" = "from the web" ] && [ "$(stat -c %a /web/file)" = 600 ]
RUN --mount=type=cache,target=/cache echo kept > /cache/file
RUN --mount=type=cache,target=/cache [ "$(cat /cache/file)" = kept ]
RUN [ ! -e /cache/file ]
RUN --mount=type=tmpfs,target=/t --mount=type=bind,from=tool,source=/out,target=/b,rw echo x > /t/x && echo x > /b/x && [ -e /b/tool ]
RUN --network=none [ "$(ls /sys/class/net)" = lo ]
RUN ls /sys/class/net | grep -q eth0 && [ "$(cat /proc/1/comm)" != cale-build ]
EXPOSE 80/tcp
VOLUME /data
USER 1000:1000
RUN [ "$(id -u):$(id -g)" = 1000:1000 ]
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s CMD true
ENTRYPOINT ["/bin/sh", "-c", "echo $0 $GREETED $PWD"]
ENV GREETED=$GREETING
CMD ["cmd"]
`

// TestBuild: each instruction of a Dockerfile, by our command line and by Docker's.
func TestBuild(t *testing.T) {
	web := serveFile(t, "from the web")
	each(t, func(t *testing.T, s *stack.Stack, client string) {
		if r := s.Do("", client, "build", "--help"); !strings.Contains(r.Stdout, "--build-arg") {
			t.Fatalf("no help: %+v", r)
		}
		s.Do("", client, "pull", s.Busybox()).OK(t)
		dir := buildContext(t)
		args := []string{"build", "-t", "built", "--build-arg", "BASE=" + s.Busybox(), "--build-arg", "GREETING=hello",
			"--build-arg", "FROM_WEB=" + web, "--label", "more=yes", dir}
		s.Do("", client, args...).OK(t)
		if got := s.Do("", client, "run", "--rm", "built").OK(t); got != "cmd hello /srv/app\n" {
			t.Errorf("run prints %q", got)
		}
		format := "{{.Config.User}} {{.Config.StopSignal}} {{.Config.Labels.by}} {{.Config.Labels.more}} {{json .Config.Healthcheck.Interval}} {{json .Config.ExposedPorts}} {{json .Config.Volumes}}"
		if got := s.Do("", client, "inspect", "-f", format, "built").OK(t); got != `1000:1000 SIGINT the test yes 5000000000 {"80/tcp":{}} {"/data":{}}`+"\n" {
			t.Errorf("inspect prints %q", got)
		}
		// Once more: all from the cache, and so the same image.
		id := s.Do("", client, "inspect", "-f", "{{.Id}}", "built").OK(t)
		s.Do("", client, args...).OK(t)
		if again := s.Do("", client, "inspect", "-f", "{{.Id}}", "built").OK(t); again != id {
			t.Errorf("the second build made %s, the first %s", again, id)
		}
		// From the standard input, without a context.
		s.Do("FROM "+s.Busybox()+"\nRUN echo one > /one\n", client, "build", "-t", "stdin", "-").OK(t)
		if got := s.Do("", client, "run", "--rm", "stdin", "cat", "/one").OK(t); got != "one\n" {
			t.Errorf("built from the standard input, it prints %q", got)
		}
		// A step that fails.
		if r := s.Do("FROM "+s.Busybox()+"\nRUN exit 7\n", client, "build", "-"); r.Code == 0 || !strings.Contains(r.Stdout+r.Stderr, "7") {
			t.Errorf("a step that fails: %+v", r)
		}
		if got := s.Do("", client, "system", "df", "--format", "{{.Type}} {{.Size}}").OK(t); !strings.Contains(got, "Build Cache ") || strings.Contains(got, "Build Cache 0B") {
			t.Errorf("system df prints %q", got)
		}
	})
}

// TestBuildOnce: what is built is stored once, stays when it is needed, and goes when it is not.
func TestBuildOnce(t *testing.T) {
	s := stack.New(t)
	text := "FROM " + s.Busybox() + "\nRUN head -c 3000000 /dev/urandom > /big\n"
	s.Do(text, "cale", "build", "-t", "big", "-").OK(t)
	if n := copies(t, s.Root, "big"); n != 1 {
		t.Errorf("the file is there %d times, not once", n)
	}
	s.Cale("run", "--rm", "big", "ls", "/big").OK(t)
	if n := copies(t, s.Root, "big"); n != 1 {
		t.Errorf("after run the file is there %d times, not once", n)
	}
	s.Cale("system", "check").OK(t)
	// The cache keeps what it holds when the image goes, and gives it back.
	s.Cale("rmi", "big").OK(t)
	s.Cale("image", "prune", "-f").OK(t)
	r := s.Do(text, "cale", "build", "--progress", "plain", "-t", "big", "-")
	r.OK(t)
	if !strings.Contains(r.Stderr, "CACHED") {
		t.Errorf("the cache is gone with the image:\n%s", r.Stderr)
	}
	s.Cale("run", "--rm", "big", "ls", "/big").OK(t)
	s.Cale("rmi", "big").OK(t)
	s.Cale("builder", "prune", "-af").OK(t)
	s.Cale("image", "prune", "-f").OK(t)
	if n := copies(t, s.Root, "big"); n != 0 {
		t.Errorf("when nothing needs the file it is there %d times", n)
	}
}

// TestBuildKilled: neither the builder's end nor the engine's harms the cache.
func TestBuildKilled(t *testing.T) {
	s := stack.New(t)
	text := func(i int) string {
		return fmt.Sprintf("FROM %s\nRUN echo same > /same\nRUN echo %d > /n && sleep 0.3 && head -c 100000 /dev/urandom > /r\nRUN cat /n\n", s.Busybox(), i)
	}
	for i := range 6 {
		done := make(chan stack.Result, 1)
		go func() { done <- s.Do(text(i), "cale", "build", "-t", "killed", "-") }()
		stack.Until(t, "a step to run", func() bool {
			list, _ := os.ReadDir(filepath.Join(s.Run, "build", "steps", "states"))
			return len(list) > 0 || len(done) > 0
		})
		if i%3 == 2 {
			s.KillEngine()
		} else {
			s.StopBuilder(syscall.SIGKILL)
		}
		<-done // it may have come through
		s.Do(text(i), "cale", "build", "-t", "killed", "-").OK(t)
		if got := s.Cale("run", "--rm", "killed", "cat", "/n").OK(t); got != fmt.Sprintf("%d\n", i) {
			t.Fatalf("round %d: it prints %q", i, got)
		}
	}
	s.Cale("system", "check").OK(t)
}

// TestBuildFlags: what only our own command line and buildx have.
func TestBuildFlags(t *testing.T) {
	s := stack.New(t)
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(in(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(in(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("token", "s3cr3t-value")
	write("named/file", "from the named context\n")
	write("Dockerfile", "FROM "+s.Busybox()+` AS one
RUN --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=token [ "$TOKEN" = "$(cat /run/secrets/token)" ] && grep -q ^s3cr3t-v....$ /run/secrets/token
COPY --from=other file /file
RUN grep -q "10.9.8.7.*far" /etc/hosts && [ "$(ulimit -n)" = 123 ]
FROM scratch AS files
COPY --from=one /file /
FROM one
RUN false
`)
	common := []string{"--secret", "id=token,src=" + in("token"), "--build-context", "other=" + in("named"), "--add-host", "far:10.9.8.7", "--ulimit", "nofile=123"}
	build := func(args ...string) stack.Result {
		return s.Cale(append(append([]string{"build"}, common...), append(args, dir)...)...)
	}
	build("--target", "one", "-t", "one", "--iidfile", in("iid"), "--metadata-file", in("meta")).OK(t)
	id := strings.TrimSpace(s.Cale("inspect", "-f", "{{.Id}}", "one").OK(t))
	if raw, _ := os.ReadFile(in("iid")); string(raw) != id {
		t.Errorf("--iidfile holds %q, the image is %s", raw, id)
	}
	if raw, _ := os.ReadFile(in("meta")); !strings.Contains(string(raw), "containerimage.config.digest") {
		t.Errorf("--metadata-file holds %s", raw)
	}
	if n := containing(t, s.Root, "s3cr3t-value"); len(n) > 0 {
		t.Errorf("the secret is in %v", n)
	}
	build("--target", "files", "-o", in("out")).OK(t)
	if raw, _ := os.ReadFile(in("out/file")); string(raw) != "from the named context\n" {
		t.Errorf("--output holds %q", raw)
	}
	build("--target", "files", "-o", "type=oci,dest="+in("oci.tar")).OK(t)
	s.Cale("load", "-i", in("oci.tar")).OK(t)
	// The cache in a folder is enough for another store.
	build("--target", "files", "--cache-to", "type=local,dest="+in("cache")).OK(t)
	s.Cale("builder", "prune", "-af").OK(t)
	if r := build("--target", "files", "--progress", "plain", "--cache-from", "type=local,src="+in("cache")); r.Code != 0 || !strings.Contains(r.Stderr, "CACHED") {
		t.Errorf("--cache-from: %+v", r)
	}
	build("--target", "one", "-q", "-t", s.Registry+"/pushed", "--push").OK(t)
	s.Cale("pull", s.Registry+"/pushed").OK(t)
	if r := s.Do("FROM "+s.Busybox()+"\nMAINTAINER me\n", "cale", "build", "--check", "-"); r.Code != 1 || !strings.Contains(r.Stdout, "MaintainerDeprecated") {
		t.Errorf("--check: %+v", r)
	}
	if r := build(); r.Code == 0 || !strings.Contains(r.Stderr, "exit code: 1") || !strings.Contains(r.Stderr, ">>> RUN false") {
		t.Errorf("a step that fails: %+v", r)
	}
	if r := build("-o", "type=bogus"); r.Code != 1 || r.Stderr != "cale: failed to solve: exporter \"bogus\" could not be found\n" {
		t.Errorf("an output that nobody knows: %+v", r)
	}
	for _, c := range []struct{ args, says string }{
		{"build", "requires 1 argument"}, {"build /nonexistent-folder", "not found"}, {"build --nonsense .", "unknown flag"},
	} {
		if r := s.Cale(strings.Fields(c.args)...); r.Code == 0 || !strings.Contains(r.Stderr, c.says) {
			t.Errorf("%s: %d, %q", c.args, r.Code, r.Stderr)
		}
	}
}

// TestBuildDaemonless: a build with nothing running before or after.
func TestBuildDaemonless(t *testing.T) {
	s := stack.New(t)
	s.Cale("pull", s.Busybox()).OK(t)
	s.Cale("tag", s.Busybox(), "base").OK(t)
	s.KillEngine()
	s.Do("FROM base\nRUN echo alone > /alone\n", "cale", "build", "--daemonless", "-t", "alone", "-").OK(t)
	if s.PID() != 0 || s.Builder() != 0 {
		t.Errorf("something was started, and goes on: engine %d, builder %d", s.PID(), s.Builder())
	}
	if got := s.Cale("run", "--rm", "alone", "cat", "/alone").OK(t); got != "alone\n" {
		t.Errorf("it prints %q", got)
	}
	s.Cale("system", "check").OK(t)
}

// TestBuildPlatform: an image that is here is not taken for another platform's
// while a registry has that.
func TestBuildPlatform(t *testing.T) {
	s := stack.New(t)
	name := s.Registry + "/platforms"
	for _, arch := range []string{"amd64", "arm64"} {
		s.Do("FROM scratch\nLABEL for="+arch+"\n", "cale", "build", "--provenance=false", "--platform", "linux/"+arch, "-t", name+":"+arch, "--push", "-").OK(t)
	}
	s.Cale("manifest", "create", name, name+":amd64", name+":arm64").OK(t)
	s.Cale("manifest", "push", name).OK(t)
	// By a name that is not the registry's own, which serves this image store.
	local := strings.Replace(name, "127.0.0.1", "localhost", 1)
	s.Cale("tag", name+":amd64", local).OK(t)
	for _, arch := range []string{"arm64", "amd64"} {
		s.Do("FROM "+local+"\nLABEL more=1\n", "cale", "build", "--platform", "linux/"+arch, "-t", "on-"+arch, "-").OK(t)
		if got := s.Cale("inspect", "-f", "{{.Architecture}} {{.Config.Labels.for}}", "on-"+arch).OK(t); got != arch+" "+arch+"\n" {
			t.Errorf("for %s: %s", arch, got)
		}
	}
}

// TestBuildPruned: nothing is left of builds whose images and cache are
// removed, and what was told of it before is true.
func TestBuildPruned(t *testing.T) {
	s := stack.New(t)
	s.Do("FROM "+s.Busybox()+"\nRUN echo kept > /kept\n", "cale", "build", "-t", "one", "-").OK(t)
	if got := s.Cale("builder", "du").OK(t); !strings.Contains(got, "CACHE ID") || !strings.Contains(got, "Total: ") {
		t.Errorf("builder du prints %q", got)
	}
	s.Cale("rmi", "one").OK(t)
	s.Cale("system", "prune", "-af").OK(t)
	if got := s.Cale("system", "df", "--format", "{{.Type}} {{.Size}}").OK(t); !strings.Contains(got, "Images 0B\n") || !strings.Contains(got, "Build Cache 0B\n") {
		t.Errorf("system df prints %q", got)
	}
	for _, dir := range []string{"blobs/sha256", "layers"} {
		if left, _ := os.ReadDir(filepath.Join(s.Root, dir)); len(left) > 0 {
			t.Errorf("left in %s: %v", dir, left)
		}
	}
}

// TestBuildPowers: what a build is granted of the host is in the audit log, and
// its control groups are not the machine's.
func TestBuildPowers(t *testing.T) {
	s := stack.New(t)
	file := "FROM " + s.Busybox() + "\nRUN --network=host true\n"
	s.Do(file, "cale", "build", "--allow", "network.host", "-t", "powers", "-").OK(t)
	raw, err := os.ReadFile(filepath.Join(s.Root, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"action":"build"`, `"powers":["network.host"]`, `"peer":{"uid":0`, `powers:latest"`, `"outcome":"done"`} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("no %s in %s", want, raw)
		}
	}
	// Docker's client is served through the engine, and is the one that is named.
	cmd := s.Command(t.Context(), "docker", "build", "--network", "host", "-t", "dockers", "-")
	cmd.Env = append(cmd.Env, "DOCKER_BUILDKIT=0")
	cmd.Stdin = strings.NewReader(file)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if want := "Step 1/2 : FROM " + s.Busybox() + "\n"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in %s", want, &out)
	}
	if raw, err = os.ReadFile(filepath.Join(s.Root, "audit.log")); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf(`"pid":%d},"api":"build","action":"build","request":"/moby.buildkit.v1.Control/Solve","object":"docker.io/library/dockers:latest"`, cmd.Process.Pid); !strings.Contains(string(raw), want) {
		t.Errorf("no %s in %s", want, raw)
	}
	file = "FROM " + s.Busybox() + "\nRUN echo in a group\n"
	if r := s.Do(file, "cale", "build", "--cgroup-parent", "/", "-"); r.Code == 0 || !strings.Contains(r.Stderr, "a build's groups are below /cale-build-") {
		t.Errorf("the root's group: %+v", r)
	}
	s.Do(file, "cale", "build", "--cgroup-parent", "below", "-").OK(t)
}

// TestBuilderKilled: a step has nobody to supervise it any more, and ends too,
// long before another build is asked for.
func TestBuilderKilled(t *testing.T) {
	s := stack.New(t)
	seconds := fmt.Sprintf("%d.25", 1_000_000+os.Getpid())
	ended := make(chan stack.Result, 1)
	go func() {
		ended <- s.Do("FROM "+s.Busybox()+"\nRUN sleep "+seconds+"\n", "cale", "build", "-")
	}()
	running := func() bool {
		files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && string(b) == "sleep\x00"+seconds+"\x00" {
				return true
			}
		}
		return false
	}
	wait := func(what string, is bool) {
		t.Helper()
		for deadline := time.Now().Add(stack.Patience); running() != is; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
		}
	}
	wait("the step does not start", true)
	s.StopBuilder(syscall.SIGKILL)
	wait("the step goes on without its builder", false)
	if r := <-ended; r.Code == 0 {
		t.Errorf("the build: %+v", r)
	}
	s.Do("FROM "+s.Busybox()+"\nRUN true\n", "cale", "build", "-").OK(t)
}

// buildContext is a folder with a context for dockerfile.
func buildContext(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	if err := w.WriteHeader(&tar.Header{Name: "in/archive", Mode: 0o644, Size: 6}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("packed")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"Dockerfile": dockerfile, ".dockerignore": "# comment\n**/ignored\n!kept\n", "ignored": "x", "kept": "x", "archive.tar": packed.String(),
		"tree/deep/file": "x", "tree/deep/read.md": "x",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/nowhere", filepath.Join(dir, "dead")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func serveFile(t *testing.T, text string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) })}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return "http://" + l.Addr().String() + "/file"
}

// copies counts the files of a name below a folder.
func copies(t *testing.T, dir, name string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == name && d.Type().IsRegular() {
			t.Log(path)
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// containing lists the files below a folder that hold a text.
func containing(t *testing.T, dir, text string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if raw, err := os.ReadFile(path); err == nil && bytes.Contains(raw, []byte(text)) {
			out = append(out, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
