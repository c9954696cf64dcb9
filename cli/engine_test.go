package cli

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeEngine is what the test program becomes when it is started as caled.
func fakeEngine() {
	run := ""
	for i, arg := range os.Args {
		if arg == "--run" {
			run = os.Args[i+1]
		}
	}
	l, err := net.Listen("unix", filepath.Join(run, "docker.sock"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	os.WriteFile(filepath.Join(run, "pid"), []byte(fmt.Sprint(os.Getpid())), 0o600)
	e := &engine{handlers: map[string]http.HandlerFunc{"GET /containers/json": answer(200, "[]"),
		"POST /end": func(http.ResponseWriter, *http.Request) { os.Exit(0) }}}
	go http.Serve(l, e)
	<-term
}

func TestMain(m *testing.M) {
	if os.Getenv("CALE_TEST_ENGINE") != "" {
		fakeEngine()
		return
	}
	os.Exit(m.Run())
}

func TestStartsEngine(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "cale-start")
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	run := filepath.Join(dir, "run")
	line := []string{"--run", run, "--root", filepath.Join(dir, "root"), "ps", "-q"}

	r := cale(t, nil, line...)
	if r.code != 1 || !strings.Contains(r.err, "caled is neither beside cale nor in $PATH") {
		t.Errorf("%+v", r)
	}

	// One that fails: its log's end is shown.
	script := "#!/bin/sh\necho \"called $*\" >&2\necho cannot do it >&2\nexit 3\n"
	if err := os.WriteFile(filepath.Join(bin, "caled"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	r = cale(t, nil, line...)
	if r.code != 1 || !strings.HasPrefix(r.err, "cale: starting the engine (caled)\n") || !strings.Contains(r.err, "exit status 3") ||
		!strings.Contains(r.err, "called --root "+dir+"/root --run "+run) || !strings.HasSuffix(r.err, "cannot do it\n") {
		t.Errorf("%+v", r)
	}

	// One that gives way to another that ends, too: it is started again, and
	// works. The second command finds it running.
	script = "#!/bin/sh\n[ -e " + dir + "/once ] && exec " + self + " \"$@\"\n: >" + dir + "/once\n"
	if err := os.WriteFile(filepath.Join(bin, "caled"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CALE_TEST_ENGINE", "1")
	cale(t, nil, line...).check(t, 0, "", "cale: starting the engine (caled)\n")
	defer func() {
		var pid int
		b, _ := os.ReadFile(filepath.Join(run, "pid"))
		if fmt.Sscan(string(b), &pid); pid > 0 {
			unix.Kill(pid, unix.SIGTERM)
		}
	}()
	cale(t, nil, line...).check(t, 0, "", "")
}
