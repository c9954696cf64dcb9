package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"cale/test/stack"
)

// api calls a stack's socket as a program would.
type api struct {
	t      *testing.T
	client *http.Client
}

func newAPI(t *testing.T, s *stack.Stack) *api {
	return &api{t, &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(s.Run, "docker.sock"))
	}}}}
}

// call sends a request and gives the answer's status and body. header is "Name: value" or "".
func (a *api) call(method, path, header, body string) (int, string) {
	a.t.Helper()
	req, err := http.NewRequest(method, "http://cale"+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	if name, value, ok := strings.Cut(header, ": "); ok {
		req.Header.Set(name, value)
	}
	res, err := a.client.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return res.StatusCode, string(raw)
}

const jsonBody = "Content-Type: application/json"

// oneFile is a tar of one file.
func oneFile(name, text string) string {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))})
	_, _ = w.Write([]byte(text))
	_ = w.Close()
	return b.String()
}

// TestAPIRefusals: what a client can get wrong is refused with the status and the words that clients look for.
func TestAPIRefusals(t *testing.T) {
	s := stack.New(t)
	s.Cale("pull", s.Busybox()).OK(t)
	a := newAPI(t, s)
	image := `"Image":"` + s.Busybox() + `"`
	for _, c := range []struct {
		method, path, header, body string
		status                     int
		says                       string
	}{
		{"POST", "/containers/create", "Content-Type: text/plain", "{}", 400, "unsupported Content-Type header (text/plain): must be 'application/json'"},
		{"POST", "/containers/create", jsonBody, "", 400, "invalid JSON: EOF"},
		{"POST", "/containers/create", jsonBody, "{} {}", 400, "unexpected content after JSON"},
		{"POST", "/containers/none/exec", jsonBody, `{"Cmd":["x"],"DetachKeys":"ctrl-A"}`, 400, "Invalid detach keys"},
		{"POST", "/containers/none/attach?detachKeys=ctrl-A,a", "", "", 400, "Invalid detach keys"},
		{"POST", "/containers/none/resize?h=-1&w=80", "", "", 400, `: value out of range`},
		{"GET", "/containers/none/attach/ws", "", "", 404, "No such container: none"},
		{"GET", "/containers/json?filters={\"status\":[\"rubbish\"]}", "", "", 400, "invalid filter 'status=rubbish'"},
		{"GET", "/volumes?filters={\"rubbish\":[\"1\"]}", "", "", 400, "invalid filter 'rubbish': there are "},
		{"POST", "/networks/create", jsonBody, `{"Name":"n","IPAM":{"Config":[{"Subnet":"10.99.0.1/24"}]}}`, 400, "invalid subnet 10.99.0.1/24: it should be 10.99.0.0/24"},
		{"POST", "/containers/create", jsonBody, `{` + image + `,"HostConfig":{"LogConfig":{"Type":"syslog"}}}`, 501, "no log driver named 'syslog' is registered: it is not built in Cale yet"},
		{"POST", "/containers/create", jsonBody, `{` + image + `,"HostConfig":{"LogConfig":{"Type":"rubbish"}}}`, 400, "no log driver named 'rubbish' is registered: there are json-file"},
		{"POST", "/containers/create", jsonBody, `{` + image + `,"HostConfig":{"Runtime":"rubbish"}}`, 400, "unknown or invalid runtime name: rubbish: there are cale"},
		{"POST", "/session", "", "", 400, "no upgrade proto"},
		{"POST", "/session", "Upgrade: foo", "", 400, "protocol foo not supported"},
		{"POST", "/plugins/none/set", "Content-Type: text/plain", "[]", 400, "unsupported Content-Type"},
		{"POST", "/plugins/none/set", jsonBody, "[]", 404, `plugin \"none\" not found`},
		{"POST", "/plugins/pull?remote=a/b", jsonBody, "[]", 501, "plug-ins is not built yet"},
		{"POST", "/build?platform=foobar", "Content-Type: application/x-tar", "", 400, `\"foobar\": unknown operating system or architecture`},
		{"POST", "/build", "Content-Type: application/x-tar", oneFile("Dockerfile", ""), 400, "Dockerfile cannot be empty"},
		{"POST", "/build", "Content-Type: application/x-tar", oneFile("Dockerfile", "# nothing"), 400, "file with no instructions"},
		{"GET", "/events?since=20&until=10", "", "", 400, "cannot be after"},
		{"POST", "/containers/create", jsonBody, `{` + image + `,"HostConfig":{"Annotations":{"":"a"}}}`, 400, "the empty string is not permitted as an annotation key"},
		{"POST", "/containers/create", jsonBody, `{` + image + `,"HostConfig":{"Links":["nobody"]}}`, 400, "could not get container for nobody"},
		{"POST", "/containers/create", jsonBody, `{` + image + `,"HostConfig":{"Umask":4096}}`, 400, "invalid umask"},
		{"POST", "/containers/create", jsonBody, `{` + image + `,"HostConfig":{"Tmpfs":{"rel":""}}}`, 400, "mount path must be absolute"},
		{"POST", "/containers/create", jsonBody, `{` + image + `,"HostConfig":{"BlkioDeviceReadBps":[{"Rate":1}]}}`, 400, "names no device"},
		{"POST", "/containers/create", jsonBody, `{` + image + `,"HostConfig":{"SecurityOpt":["writable-cgroups=potato"]}}`, 400, "invalid --security-opt 2"},
		{"POST", "/containers/create", jsonBody, `{` + image + `,"HostConfig":{"Binds":["` + s.Root + `:/x:private"]}}`, 400, "within the daemon root"},
		{"POST", "/containers/create", jsonBody, `{` + image + `,"HostConfig":{"VolumesFrom":["nobody"]}}`, 400, "No such container: nobody"},
		{"POST", "/v1.43/containers/create", jsonBody, `{` + image + `,"NetworkingConfig":{"EndpointsConfig":{"a":{},"b":{}}}}`, 400, "multiple network endpoints"},
		{"POST", "/images/" + s.Busybox() + "/tag?repo=sha256&tag=x", "", "", 400, "ambiguous tag"},
		{"DELETE", "/images/%20", "", "", 400, "image name cannot be blank"},
	} {
		if status, text := a.call(c.method, c.path, c.header, c.body); status != c.status || !strings.Contains(text, c.says) {
			t.Errorf("%s %s %s: %d %s, not %d %s", c.method, c.path, c.body, status, text, c.status, c.says)
		}
	}
}

// TestAPICreate: options that no command line has, or that its own checks hide, do what they say and are shown again.
func TestAPICreate(t *testing.T) {
	s := stack.New(t)
	s.Cale("pull", s.Busybox()).OK(t)
	a := newAPI(t, s)
	create := func(name, rest string) {
		t.Helper()
		body := `{"Image":"` + s.Busybox() + `","Cmd":["sleep","1000"],` + rest + `}`
		if status, text := a.call("POST", "/containers/create?name="+name, jsonBody, body); status != 201 {
			t.Fatalf("%s: %d %s", rest, status, text)
		}
		s.Cale("start", name).OK(t)
	}
	inspect := func(path string, into any) {
		t.Helper()
		status, text := a.call("GET", path, "", "")
		if err := json.Unmarshal([]byte(text), into); status != 200 || err != nil {
			t.Fatalf("%s: %d %s", path, status, text)
		}
	}
	create("masked", `"WorkingDir":"/tmp/","HostConfig":{"Umask":63,"Annotations":{"a":"b"},"Binds":["named:/v"]}`)
	if got := s.Cale("exec", "masked", "sh", "-c", "umask").OK(t); got != "0077\n" {
		t.Errorf("umask of exec: %q", got)
	}
	var c struct {
		Config     struct{ WorkingDir string }
		HostConfig struct {
			Umask              uint32
			Binds, MaskedPaths []string
			Dns                []string
			PidsLimit          *int64
		}
		Mounts []struct{ Name, Mode string }
	}
	inspect("/containers/masked/json", &c)
	h := &c.HostConfig
	if h.Umask != 63 || len(h.Binds) != 1 || h.Binds[0] != "named:/v" || len(h.MaskedPaths) == 0 || h.Dns == nil || c.Config.WorkingDir != "/tmp" {
		t.Errorf("shown: %+v", c)
	}
	if len(c.Mounts) != 1 || c.Mounts[0].Name != "named" || c.Mounts[0].Mode != "z" {
		t.Errorf("mounts: %+v", c.Mounts)
	}
	for filter, want := range map[string]int{"a": 1, "a=b": 1, "a=c": 0} {
		var list []struct{ Health *struct{ Status string } }
		inspect(`/containers/json?filters={"annotation":["`+filter+`"]}`, &list)
		if len(list) != want || want == 1 && (list[0].Health == nil || list[0].Health.Status != "none") {
			t.Errorf("annotation=%s: %+v", filter, list)
		}
	}
	// A limit that is lifted is lifted, and shown so.
	for _, limit := range []string{"32", "-1"} {
		if status, text := a.call("POST", "/containers/masked/update", jsonBody, `{"PidsLimit":`+limit+`}`); status != 200 {
			t.Fatalf("update: %d %s", status, text)
		}
	}
	inspect("/containers/masked/json", &c)
	got := s.Cale("exec", "masked", "sh", "-c", "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true").OK(t)
	if h.PidsLimit == nil || *h.PidsLimit != 0 || got != "max\n" {
		t.Errorf("processes are limited to %v, shown %v", got, h.PidsLimit)
	}

	// What is mounted below a read-only bind is read-only too, since 1.44.
	for version, want := range map[string]string{"/v1.44": "ro", "/v1.43": "rw"} {
		name := "below" + strings.TrimPrefix(version, "/")
		body := `{"Image":"` + s.Busybox() + `","Cmd":["sh","-c","grep ' /dev2/shm ' /proc/mounts"],"HostConfig":{"Binds":["/dev:/dev2:ro"]}}`
		if status, text := a.call("POST", version+"/containers/create?name="+name, jsonBody, body); status != 201 {
			t.Fatalf("%d %s", status, text)
		}
		if out := s.Cale("start", "-a", name).OK(t); !strings.Contains(out, " "+want+",") {
			t.Errorf("with %s: %s", version, out)
		}
	}
	// Sharing is with the one that was named when it was asked for; an address that was asked for is told apart.
	s.Cale("network", "create", "--subnet", "10.213.0.0/24", "fixed").OK(t)
	create("sharer", `"HostConfig":{"PidMode":"container:masked","NetworkMode":"fixed"},"NetworkingConfig":{"EndpointsConfig":{"fixed":{"IPAMConfig":{"IPv4Address":"10.213.0.7"}}}}`)
	var share struct {
		HostConfig      struct{ PidMode string }
		NetworkSettings struct {
			Networks map[string]struct{ IPAMConfig struct{ IPv4Address string } }
		}
	}
	inspect("/containers/sharer/json", &share)
	var masked struct{ Id string }
	inspect("/containers/masked/json", &masked)
	if share.HostConfig.PidMode != "container:"+masked.Id || share.NetworkSettings.Networks["fixed"].IPAMConfig.IPv4Address != "10.213.0.7" {
		t.Errorf("shown: %+v", share)
	}
	// A stopped container uses nothing.
	var st struct{ Name string }
	inspect("/containers/belowv1.44/stats?stream=false", &st)
	if st.Name != "/belowv1.44" {
		t.Errorf("statistics of %q", st.Name)
	}
}

// TestAPIWebSocket: attach over a websocket carries both ways.
func TestAPIWebSocket(t *testing.T) {
	s := stack.New(t)
	s.Cale("run", "-d", "-i", "--name", "echo", s.Busybox(), "cat").OK(t)
	conn, err := net.Dial("unix", filepath.Join(s.Run, "docker.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /containers/echo/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: cale\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	head := make([]byte, 0, 512)
	for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, one[0]) {
		if _, err := io.ReadFull(conn, one); err != nil {
			t.Fatalf("%q: %v", head, err)
		}
	}
	if !strings.Contains(string(head), "101") || !strings.Contains(string(head), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") { // RFC 6455, section 1.3
		t.Fatalf("answer: %s", head)
	}
	conn.Write([]byte{0x82, 0x83, 0, 0, 0, 0, 'h', 'i', '\n'})
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "\x82\x03hi\n" {
		t.Errorf("came back: %q, %v", got, err)
	}
}

// TestKnownToClients: what clients judge an engine by says what this one can do: an engine's version that is not
// ancient, the machine as the kernel names it, an image store that keeps images of many platforms.
func TestKnownToClients(t *testing.T) {
	s := stack.New(t)
	machine, err := exec.Command("uname", "-m").Output()
	if err != nil {
		t.Fatal(err)
	}
	for format, want := range map[string]string{
		"{{.Architecture}}": string(machine), "{{json .DriverStatus}}": `["driver-type","io.containerd.snapshotter.v1"]`,
	} {
		if out := s.Cale("info", "--format", format).OK(t); !strings.Contains(out, want) {
			t.Errorf("info %s says %s, not %s", format, out, want)
		}
	}
	out := s.Cale("version", "--format", "{{.Server.Version}}").OK(t)
	major, _, _ := strings.Cut(out, ".")
	if n, err := strconv.Atoi(major); err != nil || n < 28 || !strings.Contains(out, "+cale.") {
		t.Errorf("the engine's version is %s", out)
	}
}

// TestRefusedBuild: that a build is refused is what the client is told, whatever of the context was still on its way.
func TestRefusedBuild(t *testing.T) {
	s := stack.New(t)
	a := newAPI(t, s)
	for _, size := range []int{100, 100_000, 3_000_000} {
		context := oneFile("Dockerfile", "FROM busybox\n#"+strings.Repeat("x", size))
		for range 20 {
			if code, text := a.call("POST", "/build?platform=foobar", "Content-Type: application/x-tar", context); code != 400 || !strings.Contains(text, "unknown operating system or architecture") {
				t.Fatalf("a context of %d bytes: %d %s", size, code, text)
			}
		}
	}
}
