package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	p := newProcess()
	h := p.handlers(3, func(rw io.ReadWriter) { frame(rw, 1, "out\n"); frame(rw, 2, "err\n") })
	var body map[string]any
	h["POST /containers/create"] = func(w http.ResponseWriter, r *http.Request) {
		json.NewDecoder(r.Body).Decode(&body)
		answer(201, `{"Id":"id","Warnings":["be careful"]}`)(w, r)
	}
	e := newEngine(t, h)
	e.cale(t, "run", "--name", "n", "--platform", "linux/arm64", "-e", "A=1", "-m", "64m", "img", "cmd", "-x").check(t, 3, "out\n", "WARNING: be careful\nerr\n")
	if got := strings.Join(p.order, ", "); got != "attach, wait next-exit, start" {
		t.Error(got)
	}
	if e.requests()[0] != "POST /containers/create?name=n&platform=linux%2Farm64" {
		t.Error(e.requests()[0])
	}
	host := body["HostConfig"].(map[string]any)
	if body["Image"] != "img" || body["Cmd"].([]any)[1] != "-x" || body["Env"].([]any)[0] != "A=1" || host["Memory"] != float64(64<<20) || body["Entrypoint"] != nil {
		t.Errorf("%v", body)
	}
}

func TestRunRemovesAndIsSilent(t *testing.T) {
	p := newProcess()
	e := newEngine(t, p.handlers(0, func(io.ReadWriter) {}))
	e.cale(t, "run", "--rm", "img").check(t, 0, "", "WARNING: be careful\n")
	if got := strings.Join(p.order, ", "); got != "attach, wait removed, start" {
		t.Error(got)
	}
}

func TestRunStdin(t *testing.T) {
	p := newProcess()
	e := newEngine(t, p.handlers(0, func(rw io.ReadWriter) {
		b, _ := io.ReadAll(rw) // ends when the input does
		frame(rw, 1, "<"+string(b)+">")
	}))
	r := cale(t, strings.NewReader("hello"), "-H", e.host, "run", "-i", "img")
	r.check(t, 0, "<hello>", "WARNING: be careful\n")
	if !strings.Contains(strings.Join(e.requests(), "\n"), "POST /containers/id/attach?stderr=1&stdin=1&stdout=1&stream=1") {
		t.Error(e.requests())
	}
}

// A process that ends without reading its input does not hold the command up.
func TestRunUnreadStdin(t *testing.T) {
	p := newProcess()
	e := newEngine(t, p.handlers(4, func(io.ReadWriter) {}))
	in, w := io.Pipe() // never written to, never closed
	defer w.Close()
	if r := cale(t, in, "-H", e.host, "run", "-i", "img"); r.code != 4 {
		t.Errorf("%+v", r)
	}
}

func TestRunPullsMissingImage(t *testing.T) {
	p := newProcess()
	h := p.handlers(0, func(rw io.ReadWriter) { frame(rw, 1, "hi") })
	creates := 0
	h["POST /containers/create"] = func(w http.ResponseWriter, r *http.Request) {
		if creates++; creates == 1 {
			answer(404, `{"message":"No such image: img:latest"}`)(w, r)
			return
		}
		answer(201, `{"Id":"id"}`)(w, r)
	}
	h["POST /images/create"] = answer(200, `{"status":"Pulling from img","id":"latest"}
{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"abc"}
{"status":"Pull complete","id":"abc"}
{"status":"Status: Downloaded newer image for img:latest"}
`)
	e := newEngine(t, h)
	e.cale(t, "run", "img").check(t, 0, "hi", "Unable to find image 'img:latest' locally\nlatest: Pulling from img\nabc: Pull complete\nStatus: Downloaded newer image for img:latest\n")
	if !strings.Contains(strings.Join(e.requests(), "\n"), "POST /images/create?fromImage=img&tag=latest") {
		t.Error(e.requests())
	}
	creates = 0
	e.cale(t, "run", "--pull", "never", "img").check(t, 125, "", "cale: No such image: img:latest\n")
	creates = 0
	h["POST /images/create"] = answer(200, `{"error":"manifest unknown","errorDetail":{"message":"manifest unknown"}}`)
	e.cale(t, "run", "-q", "img").check(t, 125, "", "cale: manifest unknown\n")
}

func TestRunFailures(t *testing.T) {
	for message, code := range map[string]int{
		`exec: \"x\": executable file not found in $PATH`: 127,
		`exec: \"/x\": no such file or directory`:         127,
		`exec: \"/etc\": is a directory`:                  126,
		`exec: \"/x\": permission denied`:                 126,
		"Bind for 0.0.0.0:80 failed":                      125,
	} {
		p := newProcess()
		h := p.handlers(0, func(io.ReadWriter) {})
		h["POST /containers/id/start"] = func(w http.ResponseWriter, r *http.Request) {
			close(p.ended) // --rm removes it
			answer(500, `{"message":"`+message+`"}`)(w, r)
		}
		want := "cale: " + strings.ReplaceAll(message, `\"`, `"`) + "\n"
		e := newEngine(t, h)
		h["POST /containers/create"] = answer(201, `{"Id":"id"}`)
		e.cale(t, "run", "--rm", "img").check(t, code, "", want)
	}
	e := newEngine(t, map[string]http.HandlerFunc{"POST /containers/create": answer(409, `{"message":"name in use"}`)})
	e.cale(t, "run", "img").check(t, 125, "", "cale: name in use\n")
	e.cale(t, "create", "img").check(t, 1, "", "cale: name in use\n")
	e.cale(t, "run", "--nope").check(t, 125, "", "cale: unknown flag: --nope (see 'cale run --help')\n")
	e.cale(t, "run", "-p", "x:y", "img").check(t, 125, "", "cale: invalid containerPort: y\n")
	e.cale(t, "run").check(t, 1, "", "cale: 'cale run' requires at least 1 argument (see 'cale run --help')\n")
	e.cale(t, "run", "-d", "-a", "stdout", "img").check(t, 125, "", "cale: conflicting options: cannot specify both --attach and --detach\n")
	e.cale(t, "run", "-it", "img").check(t, 1, "", "cale: the input device is not a TTY\n")
}

func TestRunDetached(t *testing.T) {
	p := newProcess()
	h := p.handlers(0, nil)
	h["POST /containers/create"] = answer(201, `{"Id":"id"}`)
	e := newEngine(t, h)
	file := filepath.Join(t.TempDir(), "cid")
	e.cale(t, "run", "-d", "--cidfile", file, "img").check(t, 0, "id\n", "")
	if b, err := os.ReadFile(file); err != nil || string(b) != "id" {
		t.Errorf("%q, %v", b, err)
	}
	if r := e.cale(t, "run", "-d", "--cidfile", file, "img"); r.code != 125 || !strings.Contains(r.err, "container ID file found") {
		t.Errorf("%+v", r)
	}
}

func TestExec(t *testing.T) {
	h := map[string]http.HandlerFunc{
		"POST /containers/c/exec": answer(201, `{"Id":"x"}`),
		"POST /exec/x/start": stream(func(rw io.ReadWriter) {
			b, _ := io.ReadAll(rw)
			frame(rw, 1, string(b))
		}),
		"GET /exec/x/json": answer(200, `{"ID":"x","ExitCode":5}`),
	}
	e := newEngine(t, h)
	cale(t, strings.NewReader("in"), "-H", e.host, "exec", "-i", "c", "cmd", "-v").check(t, 5, "in", "")
	h["POST /exec/x/start"] = answer(400, `{"message":"exec: \"nope\": executable file not found in $PATH"}`)
	e.cale(t, "exec", "c", "nope").check(t, 127, "", "cale: exec: \"nope\": executable file not found in $PATH\n")
	e.cale(t, "exec", "-d", "c", "nope").check(t, 127, "", "cale: exec: \"nope\": executable file not found in $PATH\n")
	h["POST /exec/x/start"] = answer(200, "")
	e.cale(t, "exec", "-d", "c", "cmd").check(t, 0, "", "")
	h["POST /containers/c/exec"] = answer(409, `{"message":"container is not running"}`)
	e.cale(t, "exec", "c", "cmd").check(t, 1, "", "cale: container is not running\n")
}

func TestStartAndAttach(t *testing.T) {
	p := newProcess()
	h := p.handlers(6, func(rw io.ReadWriter) { frame(rw, 1, "hi") })
	state := `{"Running":false}`
	h["GET /containers/c/json"] = func(w http.ResponseWriter, r *http.Request) {
		answer(200, `{"Id":"id","Config":{},"HostConfig":{},"State":`+state+`}`)(w, r)
	}
	e := newEngine(t, h)
	e.cale(t, "attach", "c").check(t, 1, "", "cale: you cannot attach to a stopped container, start it first\n")
	state = `{"Running":true,"Paused":true}`
	e.cale(t, "attach", "c").check(t, 1, "", "cale: you cannot attach to a paused container, unpause it first\n")
	state = `{"Running":false}`
	e.cale(t, "start", "-a", "c").check(t, 6, "hi", "")
	if got := strings.Join(p.order, ", "); got != "attach, wait next-exit, start" {
		t.Error(got)
	}
	h["POST /containers/d/start"] = answer(304, "")
	e.cale(t, "start", "d").check(t, 0, "d\n", "")
	h["POST /containers/d/stop"] = answer(304, "")
	e.cale(t, "stop", "d").check(t, 0, "d\n", "")
	e.cale(t, "start", "-a", "c", "d").check(t, 1, "", "cale: you cannot start and attach multiple containers at once\n")
}

// An engine that ends takes nothing with it but the connection.
func TestLostEngine(t *testing.T) {
	cut := func(w http.ResponseWriter) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		c.Close()
	}
	waiting := make(chan struct{}, 1)
	h := map[string]http.HandlerFunc{
		"POST /containers/create":                  answer(201, `{"Id":"0123456789abcdef"}`),
		"POST /containers/0123456789abcdef/attach": stream(func(rw io.ReadWriter) { frame(rw, 1, "half"); <-waiting }),
		"POST /containers/0123456789abcdef/wait": func(w http.ResponseWriter, r *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			<-waiting
			c.Close()
		},
		"POST /containers/0123456789abcdef/start": func(w http.ResponseWriter, r *http.Request) {
			answer(204, "")(w, r)
			close(waiting)
		},
	}
	e := newEngine(t, h)
	e.cale(t, "run", "img").check(t, 125, "half", "cale: the engine ended; the container goes on: cale attach 0123456789ab\n")

	state := `{"Running":true}`
	h["POST /containers/c/exec"] = answer(201, `{"Id":"x"}`)
	h["POST /exec/x/start"] = stream(func(rw io.ReadWriter) { frame(rw, 1, "half") })
	h["GET /exec/x/json"] = answer(404, `{"message":"No such exec instance: x"}`)
	h["GET /containers/c/json"] = func(w http.ResponseWriter, r *http.Request) { answer(200, `{"Id":"id","State":`+state+`}`)(w, r) }
	lost := "cale: the engine ended; the command goes on in the container, but its output and exit code are lost\n"
	e.cale(t, "exec", "c", "cmd").check(t, 125, "half", lost)
	h["GET /exec/x/json"] = func(w http.ResponseWriter, r *http.Request) { cut(w) }
	e.cale(t, "exec", "c", "cmd").check(t, 125, "half", lost)
	h["GET /exec/x/json"] = answer(404, `{"message":"No such exec instance: x"}`)
	state = `{"Running":false}`
	e.cale(t, "exec", "c", "cmd").check(t, 137, "half", "cale: the container ended, and the command with it\n")
}

// What Docker has and Cale has not is called missing, not unknown; what is wrong is refused before the engine is asked.
func TestRefusedHere(t *testing.T) {
	info := answer(200, `{"ID":"i","HttpProxy":"p","Labels":[]}`)
	e := newEngine(t, map[string]http.HandlerFunc{"GET /info": info, "GET /images/get": answer(200, "tar")})
	for _, c := range []struct {
		line     string
		code     int
		out, err string
	}{
		{"swarm init --force", 1, "", "cale: swarm is not built yet in Cale\n"},
		{"compose -f x up", 1, "", "cale: compose is not built yet in Cale: Docker's compose works when DOCKER_HOST is unix://$CALE_RUN/docker.sock\n"},
		{"bogus", 1, "", "cale: unknown command: cale bogus (see 'cale --help')\n"},
		{"run --dns 1.2.3 img", 125, "", "cale: invalid argument \"1.2.3\" for \"--dns\" flag: IP address is not correctly formatted: 1.2.3 (see 'cale run --help')\n"},
		{"info -f {{.ID}}{{.HTTPProxy}}{{if.ProductLicense}}x{{end}}", 0, "ip\n", ""},
		{"info -f {{.Foo}}", 1, "", "cale: template parsing error: template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\"\n"},
		{"save -o /nosuch/x img", 1, "", "cale: open /nosuch/x: no such file or directory\n"},
	} {
		t.Run(c.line, func(t *testing.T) { e.cale(t, strings.Fields(c.line)...).check(t, c.code, c.out, c.err) })
	}
}
