package docker

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cale/engine"
)

func TestFind(t *testing.T) {
	for _, c := range []struct {
		method, path string
		found, known bool
		name         string
	}{
		{"GET", "/containers/json", true, false, ""},
		{"GET", "/containers/abc/json", true, false, "abc"},
		{"GET", "/images/reg:5000/a/b:1/json", true, false, "reg:5000/a/b:1"},
		{"POST", "/images/a/push", true, false, "a"},
		{"DELETE", "/images/a/b", true, false, "a/b"},
		{"DELETE", "/images/json", true, true, "json"},
		{"PUT", "/containers/json", false, true, ""},
		{"GET", "/nothing", false, false, ""},
		{"GET", "/", false, false, ""},
		{"GET", "/containers//json", false, false, ""},
	} {
		h, vars, known := find(c.method, c.path)
		if (h != nil) != c.found || h == nil && known != c.known || vars["name"] != c.name {
			t.Errorf("find %s %s: found %v, known %v, name %q", c.method, c.path, h != nil, known, vars["name"])
		}
	}
}

func TestVersions(t *testing.T) {
	s := New(nil, Options{Version: "1"})
	for path, want := range map[string]int{
		"/_ping": 200, "/v1.24/_ping": 200, "/v1.48/_ping": 200, "/v1.23/_ping": 400, "/v1.99/_ping": 400, "/v9/_ping": 404, "/v1.48/none": 404,
	} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want {
			t.Errorf("%s answers %d, not %d: %s", path, w.Code, want, w.Body)
		}
	}
}

// TestRoundTrip: what a client asks for is what inspect shows.
func TestRoundTrip(t *testing.T) {
	const body = `{"Image":"busybox","Cmd":["sh"],"Tty":true,"ExposedPorts":{"80/tcp":{}},
	"HostConfig":{"Binds":["/a:/b:ro","vol:/c"],"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080"}],"53/udp":[{"HostPort":"5000-5010"}]},
	"Memory":1048576,"NanoCpus":1500000000,"PidsLimit":10,"CapAdd":["NET_ADMIN"],"SecurityOpt":["no-new-privileges","seccomp=unconfined"],
	"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3},"Tmpfs":{"/t":"size=1m"},"Dns":["1.1.1.1"],
	"Mounts":[{"Type":"tmpfs","Target":"/m","TmpfsOptions":{"SizeBytes":4096}}],"Ulimits":[{"Name":"nofile","Soft":1,"Hard":2}]}}`
	var in createRequest
	if err := json.Unmarshal([]byte(body), &in); err != nil {
		t.Fatal(err)
	}
	spec, err := toSpec("/n", "", &in)
	if err != nil {
		t.Fatal(err)
	}
	if spec.Name != "n" || !spec.Security.NoNewPrivs || len(spec.Network.Publish) != 2 {
		t.Errorf("spec: %+v", spec)
	}
	got, want := toHostConfig(&spec), in.HostConfig
	for name, pair := range map[string][2]any{
		"Binds": {got.Binds, want.Binds}, "PortBindings": {got.PortBindings, want.PortBindings}, "Memory": {got.Memory, want.Memory},
		"NanoCPUs": {got.NanoCPUs, want.NanoCPUs}, "SecurityOpt": {got.SecurityOpt, want.SecurityOpt}, "RestartPolicy": {got.RestartPolicy, want.RestartPolicy},
		"Tmpfs": {got.Tmpfs, want.Tmpfs}, "DNS": {got.DNS, want.DNS}, "Mounts": {got.Mounts, want.Mounts}, "Ulimits": {got.Ulimits, want.Ulimits},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: asked %+v, shown %+v", name, pair[1], pair[0])
		}
	}
}

// TestRefused: what can't be done is said, never dropped.
func TestRefused(t *testing.T) {
	for body, want := range map[string]string{
		`{"Image":"a","HostConfig":{"Links":["a:b c"]}}`:                            "bad format for links",
		`{"Image":"a","HostConfig":{"Binds":["a:b:c:d"]}}`:                          "invalid volume specification",
		`{"Image":"a","HostConfig":{"Binds":["/a:/b:bogus"]}}`:                      "invalid mode",
		`{"Image":"a","HostConfig":{"SecurityOpt":["bogus"]}}`:                      "invalid --security-opt",
		`{"Image":"a","HostConfig":{"SecurityOpt":["seccomp=/a/path"]}}`:            "not valid JSON",
		`{"Image":"a","HostConfig":{"Mounts":[{"Type":"bind","Target":"rel"}]}}`:    "must be absolute",
		`{"Image":"a","HostConfig":{"Mounts":[{"Type":"npipe","Target":"/a"}]}}`:    "mount type unknown",
		`{"Image":"a","HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"x"}]}}}`: "invalid port specification",
		`{}`: "config cannot be empty",
	} {
		var in createRequest
		if err := json.Unmarshal([]byte(body), &in); err != nil {
			t.Fatal(err)
		}
		if _, err := toSpec("", "", &in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, not %q", body, err, want)
		}
	}
}

func TestFilters(t *testing.T) {
	req := func(raw string) *request {
		return &request{Request: &http.Request{URL: &url.URL{RawQuery: url.Values{"filters": {raw}}.Encode()}}}
	}
	for _, raw := range []string{`{"label":["a=1"]}`, `{"label":{"a=1":true}}`} {
		f, err := parseFilters(req(raw), "label")
		if err != nil {
			t.Fatal(err)
		}
		if !f.labels(map[string]string{"a": "1"}) || f.labels(map[string]string{"a": "2"}) || f.labels(nil) {
			t.Errorf("%s matches wrongly", raw)
		}
	}
	for _, raw := range []string{`{"bogus":["x"]}`, `{"label":`, `{"label":3}`} {
		if _, err := parseFilters(req(raw), "label"); err == nil {
			t.Errorf("%s is accepted", raw)
		}
	}
}

func TestParseTime(t *testing.T) {
	now := time.Unix(1000, 0)
	for s, want := range map[string]time.Time{
		"": {}, "0": {}, "12": time.Unix(12, 0), "12.5": time.Unix(12, 500000000), "10m": time.Unix(400, 0),
		"1970-01-01T00:00:07Z": time.Unix(7, 0),
	} {
		if got, err := parseTime(s, now); err != nil || !got.Equal(want) {
			t.Errorf("%q is %v, %v, not %v", s, got, err, want)
		}
	}
	if _, err := parseTime("yesterday", now); err == nil {
		t.Error("yesterday is a time")
	}
}

func TestDetach(t *testing.T) {
	for _, c := range []struct{ keys, in, out string }{
		{"", "abc", "abc"},
		{"", "ab\x10\x11cd", "ab"},
		{"", "a\x10b", "a\x10b"},
		{"", "a\x10\x10\x11b", "a\x10"},
		{"ctrl-a,x", "1\x01y\x01x2", "1\x01y"},
	} {
		keys, err := detachKeys(c.keys)
		if err != nil {
			t.Fatal(err)
		}
		left := false
		out, _ := io.ReadAll(&detacher{r: strings.NewReader(c.in), keys: keys, leave: func() { left = true }})
		if string(out) != c.out || left != (c.out != c.in) {
			t.Errorf("%q through %q: %q, left %v", c.in, c.keys, out, left)
		}
	}
	for _, bad := range []string{"ctrl-", "ctrl-1", "abc", "a,,b"} {
		if _, err := detachKeys(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// TestPublished: a port on every address shows as one line for IPv4 and one for IPv6.
// TestHangup: a client that ended its input is still there; one that closed is gone, also if the process is silent.
func TestHangup(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ends[i] = c.(*net.UnixConn)
	}
	ends[1].CloseWrite()
	if _, err := ends[0].Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("end of input: %v", err)
	}
	gone := make(chan struct{})
	go func() {
		waitHangup(ends[0])
		close(gone)
	}()
	select {
	case <-gone:
		t.Error("a client that still listens is taken for gone")
	case <-time.After(50 * time.Millisecond):
	}
	ends[1].Close()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("a client that closed is not missed")
	}
}

func TestPublished(t *testing.T) {
	i := &engine.Info{Endpoints: map[string]engine.Endpoint{"bridge": {Published: []engine.Publish{
		{Port: engine.Port{Number: 80, Protocol: "tcp"}, HostPort: 8080},
		{Port: engine.Port{Number: 53, Protocol: "udp"}, HostPort: 53, HostIP: netip.MustParseAddr("127.0.0.1")},
	}}}}
	var got []string
	for _, p := range published(i) {
		got = append(got, p.HostIP.String())
	}
	if want := []string{"127.0.0.1", "0.0.0.0", "::"}; !reflect.DeepEqual(got, want) {
		t.Errorf("published on %v, not %v", got, want)
	}
}

func TestStatusText(t *testing.T) {
	now := time.Now()
	for want, s := range map[string]engine.State{
		"Created":                         {Status: engine.Created},
		"Up 5 minutes":                    {Status: engine.Running, StartedAt: now.Add(-5 * time.Minute)},
		"Up 5 minutes (Paused)":           {Status: engine.Paused, StartedAt: now.Add(-5 * time.Minute)},
		"Up 5 minutes (healthy)":          {Status: engine.Running, StartedAt: now.Add(-5 * time.Minute), Health: &engine.HealthState{Status: "healthy"}},
		"Up 5 minutes (health: starting)": {Status: engine.Running, StartedAt: now.Add(-5 * time.Minute), Health: &engine.HealthState{Status: "starting"}},
		"Exited (3) 2 hours ago":          {Status: engine.Exited, ExitCode: 3, FinishedAt: now.Add(-2 * time.Hour)},
	} {
		if got := statusText(&s); got != want {
			t.Errorf("status is %q, not %q", got, want)
		}
	}
}

func FuzzCreate(f *testing.F) {
	f.Add([]byte(`{"Image":"a","HostConfig":{"Binds":["/a:/b"],"PortBindings":{"80/tcp":[{"HostPort":"1-2"}]}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var in createRequest
		if json.Unmarshal(raw, &in) != nil {
			return
		}
		if spec, err := toSpec("", "", &in); err == nil {
			if _, err := json.Marshal(toHostConfig(&spec)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestAttributes(t *testing.T) {
	for range 20 {
		if got := attributes(map[string]string{"foo": "bar", "baz": "qux", "a": ""}); got != "a=,baz=qux,foo=bar" {
			t.Fatal(got)
		}
	}
}
