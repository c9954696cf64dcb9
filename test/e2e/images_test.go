package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cale/image/store"
	"cale/registry/server"
	"cale/test/images"
	"cale/test/stack"
)

// newest is each, but for the older of two docker command lines: these tests go through many commands.
func newest(t *testing.T, do func(t *testing.T, s *stack.Stack, client string)) {
	s := stack.New(t)
	all := clients(t)
	for _, c := range slices.Compact([]string{all[0], all[len(all)-1]}) {
		t.Run(filepath.Base(c), func(t *testing.T) { do(t, s, c) })
	}
}

// otherRegistry is a registry with a store of its own, in this process, that wants one user and password unless the
// user is empty; at is its address.
func otherRegistry(t *testing.T, user, password string) (at string) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "cale-registry")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	blobs, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { blobs.Close() })
	h := server.New(blobs, server.Options{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); user != "" && (u != user || p != password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// TestLogin: a registry that wants a login, and every way to have one.
func TestLogin(t *testing.T) {
	const user, password = "jo", "secret:1 ü"
	newest(t, func(t *testing.T, s *stack.Stack, client string) {
		do := func(input string, args ...string) stack.Result { return s.Do(input, client, args...) }
		at := otherRegistry(t, user, password)
		name := at + "/private:1"
		s.Cale("pull", "-q", s.Busybox()).OK(t)
		s.Cale("tag", s.Busybox(), name).OK(t)
		refused := func(args ...string) {
			t.Helper()
			if r := do("", args...).Exit(t, 1); !strings.Contains(r.Stderr, "denied") && !strings.Contains(r.Stderr, "authentication required") {
				t.Errorf("%v: %s", args, r.Stderr)
			}
		}
		refused("push", name)
		if r := do("wrong", "login", "-u", user, "--password-stdin", at).Exit(t, 1); !strings.Contains(r.Stderr, "authentication required") {
			t.Errorf("a wrong password: %s", r.Stderr)
		}
		refused("push", name)
		if out := do(password+"\n", "login", "-u", user, "--password-stdin", at).OK(t); !strings.Contains(out, "Login Succeeded") {
			t.Errorf("login says %q", out)
		}
		path := filepath.Join(filepath.Dir(s.Root), "docker", "config.json")
		var cfg struct {
			Auths map[string]struct{ Auth string }
		}
		raw, err := os.ReadFile(path)
		if err != nil || json.Unmarshal(raw, &cfg) != nil || cfg.Auths[at].Auth != base64.StdEncoding.EncodeToString([]byte(user+":"+password)) {
			t.Errorf("%s holds %s (%v)", path, raw, err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, st, err)
		}
		do("", "logout", at).OK(t)
		term := s.Terminal(client, "login", at)
		term.Expect("Username: ")
		term.Type(user + "\r")
		term.Expect("Password: ")
		term.Type(password + "\r")
		term.Expect("Login Succeeded")
		if code := term.Exit(); code != 0 || strings.Contains(term.Screen(), password) {
			t.Errorf("login at a terminal ended with %d: %q", code, term.Screen())
		}
		// What is kept is tried again when nothing else is said.
		if out := do("", "login", at).OK(t); !strings.Contains(out, "Login Succeeded") {
			t.Errorf("login again says %q", out)
		}
		do("", "push", name).OK(t)
		do("", "rmi", name).OK(t)
		do("", "pull", name).OK(t)
		distribution(t, s, name, user, password)
		if out := do("", "logout", at).OK(t); !strings.Contains(out, "Removing login credentials for "+at) {
			t.Errorf("logout says %q", out)
		}
		refused("pull", name)

		// A credential helper, as Docker calls them.
		helpers := t.TempDir()
		script := fmt.Sprintf("#!/bin/sh\nread -r key\n[ \"$1 $key\" = 'get %s' ] && echo '{\"Username\":\"%s\",\"Secret\":\"%s\"}' && exit\necho credentials not found in native keychain; exit 1\n", at, user, password)
		if err := os.WriteFile(filepath.Join(helpers, "docker-credential-e2e"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", helpers+":"+os.Getenv("PATH"))
		if err := os.WriteFile(path, []byte(fmt.Sprintf(`{"credHelpers":{%q:"e2e"}}`, at)), 0o600); err != nil {
			t.Fatal(err)
		}
		do("", "pull", name).OK(t)
		os.Remove(path)
		s.Cale("rmi", "-f", name).OK(t)
	})
}

// distribution asks the engine what a registry has under a name, which no verb of the command lines does.
func distribution(t *testing.T, s *stack.Stack, name, user, password string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(s.Run, "docker.sock"))
	}}}
	for _, pass := range []string{password, "wrong"} {
		req, err := http.NewRequest(http.MethodGet, "http://cale/v1.48/distribution/"+name+"/json", nil)
		if err != nil {
			t.Fatal(err)
		}
		auth, _ := json.Marshal(map[string]string{"username": user, "password": pass})
		req.Header.Set("X-Registry-Auth", base64.URLEncoding.EncodeToString(auth))
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := io.ReadAll(res.Body)
		res.Body.Close()
		var d struct {
			Descriptor struct{ MediaType, Digest string }
			Platforms  []struct{ OS, Architecture string }
		}
		switch {
		case pass != password:
			if res.StatusCode == http.StatusOK {
				t.Errorf("with a wrong password: %s", raw)
			}
		case res.StatusCode != http.StatusOK || json.Unmarshal(raw, &d) != nil || d.Descriptor.MediaType != images.TypeManifest ||
			!strings.HasPrefix(d.Descriptor.Digest, "sha256:") || len(d.Platforms) != 1 || d.Platforms[0].OS != "linux":
			t.Errorf("%s: %s", res.Status, raw)
		}
	}
}

// TestCommit: an image of what a container changed.
func TestCommit(t *testing.T) {
	newest(t, func(t *testing.T, s *stack.Stack, client string) {
		do := func(args ...string) stack.Result { return s.Do("", client, args...) }
		do("run", "--name", "c1", "-e", "A=1", "-l", "x=y", s.Busybox(), "sh", "-c",
			"echo hi > /etc/new; rm /etc/passwd; mkdir -p /d; ln -s x /d/l; ln /etc/new /d/hard; rm -rf /tmp; mkdir -m 700 /tmp").OK(t)
		id := strings.TrimSpace(do("commit", "-a", "Jo <jo@example.org>", "-m", "a message", "-c", `CMD ["cat", "/etc/new"]`, "-c", "ENV B=$A-2 C='c d'",
			"-c", "LABEL q=r", "-c", "WORKDIR /d", "-c", "EXPOSE 80", "-c", "USER 0:0", "-c", "STOPSIGNAL SIGUSR1", "-c", "ONBUILD RUN x",
			"-c", "HEALTHCHECK --interval=5s CMD true", "c1", "committed:1").OK(t))
		if !strings.HasPrefix(id, "sha256:") || len(id) != 71 {
			t.Errorf("commit printed %q", id)
		}
		if out := do("run", "--rm", "committed:1").OK(t); out != "hi\n" {
			t.Errorf("the image prints %q", out)
		}
		out := do("run", "--rm", "committed:1", "sh", "-c", "echo $A $B $C; pwd; ls /etc/passwd 2>/dev/null; readlink l; stat -c %h-%a hard /tmp").OK(t)
		if want := "1 1-2 c d\n/d\nx\n2-644\n2-700\n"; out != want {
			t.Errorf("in the image: %q, not %q", out, want)
		}
		out = do("inspect", "-f", `{{.Author}} {{.Config.Labels.x}} {{.Config.Labels.q}} {{.Config.StopSignal}} {{.Config.OnBuild}} {{json .Config.Healthcheck.Interval}} {{len .Config.ExposedPorts}} {{len .RootFS.Layers}}`, "committed:1").OK(t)
		if want := "Jo <jo@example.org> y r SIGUSR1 [RUN x] 5000000000 1 2\n"; out != want {
			t.Errorf("inspect: %q, not %q", out, want)
		}
		if out := do("history", "--format", "{{.Comment}}", "committed:1").OK(t); !strings.HasPrefix(out, "a message\n") {
			t.Errorf("history: %q", out)
		}
		// A running one, frozen meanwhile or not; what changed nothing adds no layer.
		do("run", "-d", "--name", "c2", s.Busybox(), "sleep", "1000").OK(t)
		do("commit", "c2", "running").OK(t)
		do("commit", "--pause=false", "c2", "running:2").OK(t)
		if out := do("inspect", "-f", "{{.State.Status}}", "c2").OK(t); out != "running\n" {
			t.Errorf("after commit it is %s", out)
		}
		if out := do("inspect", "-f", "{{len .RootFS.Layers}}", "running").OK(t); out != "1\n" {
			t.Errorf("%s layers", out)
		}
		untagged := strings.TrimSpace(do("commit", "c1").OK(t))
		if out := do("images", "-q", "--no-trunc", "-f", "dangling=true").OK(t); strings.TrimSpace(out) != untagged {
			t.Errorf("untagged: %q, not %q", out, untagged)
		}
		for _, c := range [][]string{{"c1", "Bad/Name"}, {"-c", "RUN x", "c1"}, {"-c", "STOPSIGNAL nosuch", "c1"}, {"-c", "EXPOSE x", "c1"}, {"nosuch"}} {
			if r := do(append([]string{"commit"}, c...)...); r.Code != 1 || r.Stderr == "" {
				t.Errorf("commit %v: %+v", c, r)
			}
		}
		// Its image outlives the container, and what it stands on the base image's name.
		do("rm", "-f", "c1", "c2").OK(t)
		do("push", retag(t, s, "committed:1", s.Registry+"/committed:1")).OK(t)
		s.Cale("rmi", "-f", "committed:1", s.Registry+"/committed:1", "running", "running:2", untagged).OK(t)
	})
}

func retag(t *testing.T, s *stack.Stack, from, to string) string {
	s.Cale("tag", from, to).OK(t)
	return to
}

// TestImport: an image of a tar of files.
func TestImport(t *testing.T) {
	newest(t, func(t *testing.T, s *stack.Stack, client string) {
		dir := t.TempDir()
		do := func(args ...string) stack.Result { return s.Do("", client, args...) }
		plain := filepath.Join(dir, "e.tar")
		do("run", "--name", "c1", s.Busybox(), "sh", "-c", "echo hi > /new; rm /etc/passwd").OK(t)
		do("export", "-o", plain, "c1").OK(t)
		do("rm", "c1").OK(t)
		id := strings.TrimSpace(do("import", "-m", "a message", "-c", "CMD cat /new", "-c", "ENV X=y", plain, "imported:2").OK(t))
		if out := do("run", "--rm", "imported:2").OK(t); out != "hi\n" {
			t.Errorf("the image prints %q", out)
		}
		if out := do("inspect", "-f", "{{.Id}} {{.Config.Env}} {{len .RootFS.Layers}}", "imported:2").OK(t); out != id+" [X=y] 1\n" {
			t.Errorf("inspect: %q, not %s", out, id)
		}
		if out := do("history", "--format", "{{.Comment}}", "imported:2").OK(t); out != "a message\n" {
			t.Errorf("history: %q", out)
		}
		for _, tool := range []string{"gzip", "zstd", "bzip2"} {
			path, err := exec.LookPath(tool)
			if err != nil || client != "cale" && tool != "gzip" {
				continue
			}
			packed, err := exec.Command(path, "-c", plain).Output()
			if err != nil {
				t.Fatal(err)
			}
			s.Do(string(packed), client, "import", "-", "imported:"+tool).OK(t)
			if out := do("run", "--rm", "imported:"+tool, "cat", "/new").OK(t); out != "hi\n" {
				t.Errorf("%s: %q", tool, out)
			}
			s.Cale("rmi", "imported:"+tool).OK(t)
		}
		web := httptest.NewServer(http.FileServer(http.Dir(dir)))
		defer web.Close()
		do("import", web.URL+"/e.tar", "imported:web").OK(t)
		raw, err := os.ReadFile(plain)
		if err != nil {
			t.Fatal(err)
		}
		before := s.Cale("images", "-aq", "--no-trunc").OK(t)
		for name, r := range map[string]stack.Result{
			"no tar":    s.Do(strings.Repeat("no tar", 1000), client, "import", "-", "bad"),
			"truncated": s.Do(string(raw[:len(raw)/2]), client, "import", "-", "bad"),
			"bad name":  do("import", plain, "Bad:1"),
			"bad URL":   do("import", web.URL+"/nosuch", "bad"),
			"bad CMD":   do("import", "-c", "RUN x", plain, "bad"),
		} {
			if r.Code != 1 || r.Stderr == "" {
				t.Errorf("%s: %+v", name, r)
			}
		}
		if after := s.Cale("images", "-aq", "--no-trunc").OK(t); after != before {
			t.Errorf("failed imports left %q, before %q", after, before)
		}
		s.Cale("rmi", "imported:2", "imported:web").OK(t)
	})
}

// TestSaveLoad: images through tar files, also those that others write.
func TestSaveLoad(t *testing.T) {
	newest(t, func(t *testing.T, s *stack.Stack, client string) {
		// The engine's own registry has the same store, and nothing after a prune.
		base := otherRegistry(t, "", "") + "/busybox"
		if err := images.Push(t.Context(), strings.TrimSuffix(base, "/busybox"), "busybox:latest"); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		file := func(name string) string { return filepath.Join(dir, name) }
		do := func(args ...string) stack.Result { return s.Do("", client, args...) }
		clear := func() { s.Cale("image", "prune", "-af").OK(t) }
		clear()
		do("run", "--name", "c1", base, "touch", "/one").OK(t)
		retag(t, s, base, "bb:latest")
		retag(t, s, base, "two:2")
		do("commit", "c1", "two:3").OK(t)
		do("run", "--name", "c2", base, "touch", "/two").OK(t)
		untagged := strings.TrimSpace(do("commit", "c2").OK(t))
		s.Cale("rm", "c1", "c2").OK(t)
		list := func() string {
			return s.Cale("images", "-a", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").OK(t)
		}
		before := list()

		do("save", "-o", file("multi.tar"), "bb", "two", untagged).OK(t)
		one := do("save", "bb:latest").OK(t)
		clear()
		if out := s.Do(one, client, "load").OK(t); out != "Loaded image: bb:latest\n" {
			t.Errorf("load says %q", out)
		}
		out := do("load", "-i", file("multi.tar")).OK(t)
		for _, want := range []string{"Loaded image: bb:latest\n", "Loaded image: two:2\n", "Loaded image: two:3\n", "Loaded image ID: " + untagged + "\n"} {
			if !strings.Contains(out, want) {
				t.Errorf("load says %q, without %q", out, want)
			}
		}
		s.Cale("pull", "-q", base).OK(t)
		if got := list(); sorted(got) != sorted(before) {
			t.Errorf("images are\n%s, not\n%s", got, before)
		}
		do("run", "--rm", "two:3", "ls", "/one").OK(t)
		do("run", "--rm", untagged, "ls", "/two").OK(t)

		// An OCI layout's folder, as a tar with dots before its names.
		clear()
		s.Do(retar(t, one, func(name string) string {
			if name == "manifest.json" {
				return ""
			}
			return "./" + name
		}), client, "load").OK(t)
		do("run", "--rm", "bb", "true").OK(t)
		for name, input := range map[string]string{"nothing": "", "garbage": strings.Repeat("garbage", 1000), "truncated": one[:len(one)/2]} {
			if r := s.Do(input, client, "load"); r.Code != 1 || r.Stderr == "" {
				t.Errorf("%s: %+v", name, r)
			}
		}
		do("save", "-o", file("none.tar"), "nosuch").Exit(t, 1)
		if _, err := os.Stat(file("none.tar")); err == nil {
			t.Error("a failed save left a file")
		}
		arch := strings.TrimSpace(s.Cale("inspect", "-f", "{{.Os}}/{{.Architecture}}", "bb").OK(t))
		do("save", "--platform", arch, "-o", file("platform.tar"), "bb").OK(t)
		do("load", "--platform", arch, "-i", file("platform.tar")).OK(t)
		do("save", "--platform", "linux/none", "-o", file("none.tar"), "bb").Exit(t, 1)
		do("load", "--platform", "linux/none", "-i", file("platform.tar")).Exit(t, 1)
		do("history", "--platform", arch, "bb").OK(t)
		clear()
		if err := os.WriteFile(file("one.tar"), []byte(one), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Run("skopeo", func(t *testing.T) { skopeo(t, s, client, file("one.tar")) })
		clear()
	})
}

// skopeo copies an archive into each form and loads what comes out.
func skopeo(t *testing.T, s *stack.Stack, client, one string) {
	path, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	dir := t.TempDir()
	for from, to := range map[string]string{"docker-archive": "oci-archive", "oci-archive": "docker-archive"} {
		tag := "sk:" + to
		file := filepath.Join(dir, to+".tar")
		cmd := exec.Command(path, "--insecure-policy", "copy", from+":"+one, to+":"+file+":"+tag)
		cmd.Env = append(os.Environ(), "TMPDIR="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if out := s.Do("", client, "load", "-i", file).OK(t); out != "Loaded image: "+tag+"\n" {
			t.Errorf("%s: load says %q", to, out)
		}
		if out := s.Do("", client, "run", "--rm", tag, "echo", "ran").OK(t); out != "ran\n" {
			t.Errorf("%s: it prints %q", to, out)
		}
	}
}

func sorted(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// retar writes a tar anew with other names; an empty one leaves the file out.
func retar(t *testing.T, raw string, name func(string) string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for r := tar.NewReader(strings.NewReader(raw)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Name = name(h.Name); h.Name == "" {
			continue
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestOneSize: an image has one size, what it takes on disk, whoever tells it.
func TestOneSize(t *testing.T) {
	s := stack.New(t)
	s.Cale("pull", "-q", s.Busybox()).OK(t)
	list := strings.TrimSpace(s.Cale("images", "--format", "{{.Size}}", s.Busybox()).OK(t))
	all := strings.Fields(s.Cale("system", "df", "--format", "{{.Type}} {{.Size}}").OK(t))
	digits := strings.TrimSuffix(list, "MB") // df tells one more
	if len(all) < 2 || !strings.HasPrefix(all[1], digits) {
		t.Errorf("images says %s, system df %v", list, all)
	}
	found := false
	for line := range strings.Lines(s.Cale("system", "df", "-v").OK(t)) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == s.Busybox() {
			found = strings.Contains(line, " "+digits)
			if !found {
				t.Errorf("images says %s, system df -v %s", list, line)
			}
		}
	}
	if !found {
		t.Error("system df -v does not list it")
	}
	bytes := strings.TrimSpace(s.Cale("inspect", "-f", "{{.Size}}", s.Busybox()).OK(t))
	var sum int64
	for _, pattern := range []string{"blobs/*/*", "layers/*/size"} {
		names, _ := filepath.Glob(filepath.Join(s.Root, pattern))
		for _, name := range names {
			if strings.HasSuffix(name, "/size") {
				var n int64
				raw, _ := os.ReadFile(name)
				fmt.Sscan(string(raw), &n)
				sum += n
			} else if fi, err := os.Stat(name); err == nil {
				sum += fi.Size()
			}
		}
	}
	if fmt.Sprint(sum) != bytes {
		t.Errorf("inspect says %s bytes, the disk %d", bytes, sum)
	}
}
