package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cale/client"

	"github.com/spf13/cobra"
)

// Every command can be built and helps itself: a flag that is defined twice
// would panic here.
func TestHelpOfEverything(t *testing.T) {
	var walk func(path []string, table []entry)
	groups := map[string]func() []entry{"container": containerCommands, "image": imageCommands, "network": networkCommands, "system": systemCommands, "volume": volumeCommands}
	walk = func(path []string, table []entry) {
		for _, c := range table {
			full := append(append([]string(nil), path...), c.name)
			for _, args := range [][]string{append(full, "--help"), append([]string{"help"}, full...)} {
				r := cale(t, nil, args...)
				if r.code != 0 || !strings.HasPrefix(r.out, "Usage:  cale "+strings.Join(full, " ")) || strings.Count(r.out, "\n") < 3 {
					t.Errorf("%q: %+v", args, r)
				}
			}
			if sub := groups[c.name]; sub != nil && len(path) == 0 {
				walk(full, sub())
			}
		}
	}
	walk(nil, commands())
	if r := cale(t, nil); r.code != 0 || !strings.Contains(r.out, "Management Commands:") {
		t.Errorf("%+v", r)
	}
}

func TestBadCommandLines(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		err  string
	}{
		{[]string{"nope"}, 1, "cale: unknown command: cale nope (see 'cale --help')\n"},
		{[]string{"container", "nope"}, 1, "cale: unknown command: cale container nope (see 'cale container --help')\n"},
		{[]string{"--nope"}, 125, "cale: unknown flag: --nope (see 'cale --help')\n"},
		{[]string{"ps", "x"}, 1, "cale: 'cale ps' accepts no arguments (see 'cale ps --help')\n"},
		{[]string{"rename", "x"}, 1, "cale: 'cale rename' requires 2 arguments (see 'cale rename --help')\n"},
		{[]string{"images", "x", "y"}, 1, "cale: 'cale images' requires 0 to 1 arguments (see 'cale images --help')\n"},
		{[]string{"ps", "-f", "x"}, 125, "cale: invalid argument \"x\" for \"-f, --filter\" flag: invalid filter 'x': must be key=value (see 'cale ps --help')\n"},
		{[]string{"run", "--mac-address", "zz", "i"}, 125, "cale: zz is not a valid mac address\n"},
		{[]string{"run", "--network", "name=n,mac-address=zz", "i"}, 125, "cale: invalid argument \"name=n,mac-address=zz\" for \"--network\" flag: zz is not a valid mac address\n"},
		{[]string{"network", "create", "--subnet", "10.0.0/8", "n"}, 1, "cale: invalid subnet 10.0.0/8: want a block of addresses such as 10.0.0.0/24 or fd00::/64\n"},
		{[]string{"-H", "ftp://x", "ps"}, 1, "cale: invalid host \"ftp://x\": protocol \"ftp\" is not supported, only unix, tcp and ssh\n"},
		{[]string{"-H", "unix:///nonexistent/s", "ps"}, 1, "cale: cannot connect to the engine at unix:///nonexistent/s: is it running?\n"},
	} {
		cale(t, nil, c.args...).check(t, c.code, "", c.err)
	}
}

func TestEach(t *testing.T) {
	e := newEngine(t, map[string]http.HandlerFunc{
		"DELETE /containers/a": answer(204, ""),
		"DELETE /containers/b": answer(404, `{"message":"No such container: b"}`),
		"DELETE /containers/c": answer(204, ""),
	})
	e.cale(t, "rm", "a", "b", "c").check(t, 1, "a\nc\n", "cale: No such container: b\n")
	e.cale(t, "rm", "-f", "b", "c").check(t, 0, "c\n", "cale: No such container: b\n")
	e.cale(t, "container", "remove", "-fv", "a").check(t, 0, "a\n", "")
	if last := e.requests()[len(e.requests())-1]; last != "DELETE /containers/a?force=1&v=1" {
		t.Error(last)
	}
}

func TestStopIsIdempotent(t *testing.T) {
	e := newEngine(t, map[string]http.HandlerFunc{"POST /containers/a/stop": answer(304, "")})
	e.cale(t, "stop", "-t", "0", "-s", "INT", "a").check(t, 0, "a\n", "")
	if last := e.requests()[0]; last != "POST /containers/a/stop?signal=INT&t=0" {
		t.Error(last)
	}
}

func TestInspect(t *testing.T) {
	e := newEngine(t, map[string]http.HandlerFunc{
		"GET /containers/a/json": answer(200, `{"Id":"1","Args":["<&>"],"State":{"Status":"running"}}`+"\n"),
		"GET /images/b/json":     answer(200, `{"Id":"2"}`),
		"GET /volumes/v":         answer(200, `{"Name":"v"}`),
	})
	e.cale(t, "inspect", "a", "b").check(t, 0, "[\n    {\n        \"Id\": \"1\",\n        \"Args\": [\n            \"<&>\"\n        ],\n        \"State\": {\n            \"Status\": \"running\"\n        }\n    },\n    {\n        \"Id\": \"2\"\n    }\n]\n", "")
	if r := newEngine(t, map[string]http.HandlerFunc{"GET /containers/json": answer(200, `[]`)}).cale(t, "ps", "--format", "{{.Foo}}"); r.code != 1 || !strings.Contains(r.err, "can't evaluate field Foo") {
		t.Errorf("a field that containers don't have, of none: %+v", r)
	}
	e.cale(t, "inspect", "nope").check(t, 1, "[]\n", "cale: no such object: nope\n")
	e.cale(t, "inspect", "-f", "{{.Id}} {{.State.Status}}", "a").check(t, 0, "1 running\n", "")
	e.cale(t, "inspect", "-f", "json", "a").check(t, 0, `[{"Id":"1","Args":["<&>"],"State":{"Status":"running"}}]`+"\n", "")
	e.cale(t, "inspect", "--type", "volume", "v").check(t, 0, "[\n    {\n        \"Name\": \"v\"\n    }\n]\n", "")
	if r := e.cale(t, "inspect", "--type", "x", "v"); r.code != 1 || !strings.Contains(r.err, "--type") {
		t.Errorf("%+v", r)
	}
	if r := e.cale(t, "volume", "inspect", "nope"); r.code != 1 || r.out != "[]\n" {
		t.Errorf("%+v", r)
	}
}

func TestLists(t *testing.T) {
	e := newEngine(t, map[string]http.HandlerFunc{
		"GET /containers/json": answer(200, `[{"Id":"0123456789abcdef","Names":["/n"],"Image":"i","Owner":"kubernetes ns/pod/c"}]`),
		"GET /volumes":         answer(200, `{"Volumes":[{"Name":"b","Driver":"local"},{"Name":"a","Driver":"local"}],"Warnings":["w"]}`),
		"GET /networks":        answer(200, `[{"Name":"n","Id":"0123456789abcdef","Driver":"bridge","Scope":"local"}]`),
		"GET /images/json":     answer(200, `[{"Id":"sha256:0123456789abcdef","RepoTags":["i:1"]}]`),
	})
	e.cale(t, "ps", "-aq", "-n", "3", "-f", "status=exited", "-f", "status=dead").check(t, 0, "0123456789ab\n", "")
	e.cale(t, "ps", "--format", "{{.Names}} {{.Size}}").check(t, 0, "n 0B\n", "")
	if r := e.cale(t, "ps", "--all-owners", "--no-trunc"); !strings.HasSuffix(strings.SplitN(r.out, "\n", 2)[0], "OWNER") || !strings.HasSuffix(r.out, "kubernetes ns/pod/c\n") {
		t.Errorf("owners: %q", r.out)
	}
	e.cale(t, "volume", "ls").check(t, 0, "DRIVER    VOLUME NAME\nlocal     a\nlocal     b\n", "WARNING: w\n")
	e.cale(t, "network", "ls", "--format", "table").check(t, 0, "NETWORK ID     NAME      DRIVER    SCOPE\n0123456789ab   n         bridge    local\n", "")
	e.cale(t, "images", "-q", "--no-trunc", "i").check(t, 0, "sha256:0123456789abcdef\n", "")
	want := `GET /containers/json?all=1&filters=%7B%22status%22%3A%5B%22exited%22%2C%22dead%22%5D%7D&limit=3
GET /containers/json?size=1
GET /containers/json?all-owners=1
GET /volumes
GET /networks
GET /images/json?filters=%7B%22reference%22%3A%5B%22i%22%5D%7D`
	if got := strings.Join(e.requests(), "\n"); got != want {
		t.Errorf("asked\n%s\nwant\n%s", got, want)
	}
}

func TestLogs(t *testing.T) {
	tty := false
	e := newEngine(t, map[string]http.HandlerFunc{
		"GET /containers/c/json": func(w http.ResponseWriter, r *http.Request) {
			answer(200, fmt.Sprintf(`{"Id":"id","Config":{"Tty":%v}}`, tty))(w, r)
		},
		"GET /containers/id/logs": func(w http.ResponseWriter, r *http.Request) {
			if tty {
				io.WriteString(w, "raw\r\n")
				return
			}
			frame(w, 1, "out\n")
			frame(w, 2, "err\n")
		},
	})
	e.cale(t, "logs", "-t", "--tail", "5", "--since", "1700000000", "c").check(t, 0, "out\n", "err\n")
	if last := e.requests()[1]; last != "GET /containers/id/logs?since=1700000000&stderr=1&stdout=1&tail=5&timestamps=1" {
		t.Error(last)
	}
	tty = true
	e.cale(t, "logs", "c").check(t, 0, "raw\r\n", "")
	e.cale(t, "logs", "--since", "yesterday", "c").check(t, 1, "", "cale: invalid value for \"since\": failed to parse value as time or duration: \"yesterday\"\n")
}

func TestNames(t *testing.T) {
	for in, want := range map[string][4]string{
		"a":                      {"a", "", "", "docker.io/library/a"},
		"a:1":                    {"a", "1", "", "docker.io/library/a"},
		"u/a":                    {"u/a", "", "", "docker.io/u/a"},
		"localhost/a":            {"localhost/a", "", "", "localhost/a"},
		"h:5000/a":               {"h:5000/a", "", "", "h:5000/a"},
		"h:5000/a:1@sha256:abcd": {"h:5000/a", "1", "sha256:abcd", "h:5000/a"},
		"index.docker.io/a":      {"index.docker.io/a", "", "", "docker.io/library/a"},
		"docker.io/u/a":          {"docker.io/u/a", "", "", "docker.io/u/a"},
		"ghcr.io/o/p/q:v":        {"ghcr.io/o/p/q", "v", "", "ghcr.io/o/p/q"},
	} {
		name, tag, digest := splitName(in)
		if got := [4]string{name, tag, digest, fullName(name)}; got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

func TestIPAM(t *testing.T) {
	pools, err := ipamPools([]string{"10.1.0.0/16,fd00::/64"}, []string{"10.1.2.0/24"}, []string{"fd00::1", "10.1.0.1"}, map[string]string{"r": "10.1.0.2"})
	if err != nil || len(pools) != 2 || pools[0].IPRange != "10.1.2.0/24" || pools[0].Gateway != "10.1.0.1" || pools[1].Gateway != "fd00::1" || pools[0].AuxAddresses["r"] != "10.1.0.2" {
		t.Errorf("%+v, %v", pools, err)
	}
	for _, bad := range []struct{ subnets, ranges, gateways []string }{
		{nil, nil, []string{"10.0.0.1"}},
		{[]string{"x"}, nil, nil},
		{[]string{"10.0.0.0/8", "10.1.0.0/16"}, nil, nil},
		{[]string{"10.0.0.0/8"}, nil, []string{"11.0.0.1"}},
		{[]string{"10.0.0.0/8"}, nil, []string{"10.0.0.1", "10.0.0.2"}},
		{[]string{"10.0.0.0/8"}, []string{"11.0.0.0/16"}, nil},
	} {
		if _, err := ipamPools(bad.subnets, bad.ranges, bad.gateways, nil); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

func message(t *testing.T, s string) (m client.Progress) {
	if err := json.Unmarshal([]byte(s), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestProgressOnTerminal(t *testing.T) {
	var b bytes.Buffer
	s := newScreen(&b, 100)
	for _, m := range []string{`{"status":"Pulling","id":"a"}`, `{"status":"Waiting","id":"b"}`, `{"status":"Downloading","id":"a","progressDetail":{"current":500,"total":1000}}`,
		`{"status":"Done"}`, `{"status":"Again","id":"a"}`} {
		s.draw(message(t, m))
	}
	s.w.Flush()
	want := "a: Pulling\nb: Waiting\n" +
		"\x1b[2A\r\x1b[2Ka: Downloading [=========================>                        ]  500B/1kB\x1b[2B\r" +
		"Done\na: Again\n"
	if b.String() != want {
		t.Errorf("got  %q\nwant %q", &b, want)
	}
}

func TestCompletion(t *testing.T) {
	e := newEngine(t, map[string]http.HandlerFunc{"GET /containers/json": answer(200, `[{"Id":"1","Names":["/web"]}]`)})
	r := e.cale(t, cobra.ShellCompNoDescRequestCmd, "rm", "")
	if r.code != 0 || !strings.HasPrefix(r.out, "web\n") {
		t.Errorf("%+v", r)
	}
	if r := cale(t, nil, "completion", "bash"); r.code != 0 || !strings.Contains(r.out, "__start_cale") {
		t.Errorf("code %d", r.code)
	}
}

func TestPrune(t *testing.T) {
	h := map[string]http.HandlerFunc{
		"POST /containers/prune": answer(200, `{"ContainersDeleted":["a","b"],"SpaceReclaimed":1500}`),
		"POST /networks/prune":   answer(200, `{"NetworksDeleted":null}`),
		"POST /images/prune":     answer(200, `{"ImagesDeleted":[{"Untagged":"x:1"},{"Deleted":"sha256:1"}],"SpaceReclaimed":500}`),
		"POST /build/prune":      answer(200, `{"CachesDeleted":null,"SpaceReclaimed":0}`),
	}
	e := newEngine(t, h)
	if r := e.cale(t, "container", "prune"); r.code != 0 || !strings.HasSuffix(r.out, "[y/N] ") || len(e.requests()) != 0 {
		t.Errorf("%+v", r)
	}
	r := cale(t, strings.NewReader("y\n"), "-H", e.host, "container", "prune", "--filter", "until=1h")
	if r.code != 0 || !strings.HasSuffix(r.out, "Deleted Containers:\na\nb\n\nTotal reclaimed space: 1.5kB\n") {
		t.Errorf("%+v", r)
	}
	e.cale(t, "system", "prune", "-f").check(t, 0, "Deleted Containers:\na\nb\n\nDeleted Images:\nuntagged: x:1\ndeleted: sha256:1\n\nTotal reclaimed space: 2kB\n", "")
}

func TestRegistry(t *testing.T) {
	e := newEngine(t, map[string]http.HandlerFunc{
		"POST /cale/registry":   answer(200, `{"Address":"127.0.0.1:4000"}`),
		"GET /cale/registry":    answer(200, `[{"Address":"127.0.0.1:4000"}]`),
		"DELETE /cale/registry": answer(204, ""),
	})
	e.cale(t, "registry", "--listen", "127.0.0.1:0", "-q").check(t, 0, "127.0.0.1:4000\n", "")
	e.cale(t, "registry").check(t, 0, "127.0.0.1:4000\n", "")
	e.cale(t, "registry", "--stop", "all").check(t, 0, "", "")
	if last := e.requests()[len(e.requests())-1]; last != "DELETE /cale/registry?address=127.0.0.1%3A4000" {
		t.Error(last)
	}
}

func TestSave(t *testing.T) {
	e := newEngine(t, map[string]http.HandlerFunc{
		"GET /images/get": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, strings.Join(r.URL.Query()["names"], "+"))
		},
		"POST /images/load": func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, `{"stream":"Loaded image: %s\n"}`, b)
		},
	})
	file := filepath.Join(t.TempDir(), "out.tar")
	e.cale(t, "save", "-o", file, "a", "b:1").check(t, 0, "", "")
	if b, err := os.ReadFile(file); err != nil || string(b) != "a+b:1" {
		t.Errorf("%q, %v", b, err)
	}
	e.cale(t, "save", "a").check(t, 0, "a", "")
	e.cale(t, "load", "-i", file).check(t, 0, "Loaded image: a+b:1\n", "")
	cale(t, strings.NewReader("x"), "-H", e.host, "load").check(t, 0, "Loaded image: x\n", "")
	if r := e.cale(t, "save", "-o", filepath.Dir(file), "a"); r.code != 1 || !strings.Contains(r.err, "is a directory") {
		t.Errorf("%+v", r)
	}
}
