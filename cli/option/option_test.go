package option

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"cale/client"
)

// text is a value as compact JSON, to compare with.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestPorts(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{"80", `{"80/tcp":[{"HostIp":"","HostPort":""}]}`, ""},
		{"8080:80", `{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}`, ""},
		{"8080:80/UDP", `{"80/udp":[{"HostIp":"","HostPort":"8080"}]}`, ""},
		{":80", `{"80/tcp":[{"HostIp":"","HostPort":""}]}`, ""},
		{"127.0.0.1:8080:80", `{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080"}]}`, ""},
		{"127.0.0.1::80", `{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":""}]}`, ""},
		{"[::1]:8080:80", `{"80/tcp":[{"HostIp":"::1","HostPort":"8080"}]}`, ""},
		{"::1:8080:80", `{"80/tcp":[{"HostIp":"::1","HostPort":"8080"}]}`, ""},
		{"7000-7001:8000-8001", `{"8000/tcp":[{"HostIp":"","HostPort":"7000"}],"8001/tcp":[{"HostIp":"","HostPort":"7001"}]}`, ""},
		{"8000-8001", `{"8000/tcp":[{"HostIp":"","HostPort":""}],"8001/tcp":[{"HostIp":"","HostPort":""}]}`, ""},
		{"9000-9009:99", `{"99/tcp":[{"HostIp":"","HostPort":"9000-9009"}]}`, ""},
		{"target=80,published=8085,protocol=udp", `{"80/udp":[{"HostIp":"","HostPort":"8085"}]}`, ""},
		{"target=80", `{"80/tcp":[{"HostIp":"","HostPort":""}]}`, ""},
		{"", "", "no port specified"},
		{"8080:", "", "no port specified"},
		{"x:80", "", "invalid hostPort: x"},
		{"80:x", "", "invalid containerPort: x"},
		{"80:70000", "", "invalid containerPort: 70000"},
		{"-1:80", "", "invalid hostPort: -1"},
		{"80:80/icmp", "", "invalid proto: icmp"},
		{"host:80:80", "", "invalid IP address: host"},
		{"7000-7002:8000-8001", "", "invalid ranges"},
		{"7002-7000:80", "", "invalid hostPort"},
		{"published=80", "", "target is missing"},
		{"target=80,foo=1", "", "invalid publish key"},
	} {
		exposed, bindings, err := Ports([]string{c.in})
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: error %v, want %q", c.in, err, c.err)
			}
		case err != nil:
			t.Errorf("%q: %v", c.in, err)
		case text(bindings) != c.want || len(exposed) != len(bindings):
			t.Errorf("%q: %s (%v exposed), want %s", c.in, text(bindings), exposed, c.want)
		}
	}
	// One port may be published twice.
	if _, b, err := Ports([]string{"1:80", "127.0.0.1:2:80"}); err != nil || len(b["80/tcp"]) != 2 {
		t.Errorf("%v, %v", b, err)
	}
}

func TestExpose(t *testing.T) {
	got := map[string]struct{}{}
	if err := Expose([]string{"80", "53/udp", "90-91/tcp"}, got); err != nil || text(SortedKeys(got)) != `["53/udp","80/tcp","90/tcp","91/tcp"]` {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"x", "80:80", "90-80", ""} {
		if Expose([]string{bad}, got) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestVolumes(t *testing.T) {
	wd, _ := os.Getwd()
	anonymous, binds, err := Volumes([]string{"/a", "/h:/c:ro", "name:/d", "./x:/y", "..:/z"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/h:/c:ro", "name:/d", wd + "/x:/y", filepath.Dir(wd) + ":/z"}
	if !reflect.DeepEqual(binds, want) || text(anonymous) != `{"/a":{}}` {
		t.Errorf("%v %v", anonymous, binds)
	}
	for _, bad := range []string{"", "/", ":/x", "/x:"} {
		if _, _, err := Volumes([]string{bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestMount(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{"type=bind,src=/h,dst=/c", `{"Type":"bind","Source":"/h","Target":"/c"}`, ""},
		{"type=bind,source=/h,target=/c,readonly,bind-propagation=rslave", `{"Type":"bind","Source":"/h","Target":"/c","ReadOnly":true,"BindOptions":{"Propagation":"rslave"}}`, ""},
		{"type=bind,src=/h,destination=/c,ro=false,bind-recursive=disabled", `{"Type":"bind","Source":"/h","Target":"/c","BindOptions":{"NonRecursive":true}}`, ""},
		{"src=v,dst=/c,volume-nocopy,volume-label=a=b,volume-driver=d,volume-opt=o=p,volume-subpath=s",
			`{"Type":"volume","Source":"v","Target":"/c","VolumeOptions":{"NoCopy":true,"Labels":{"a":"b"},"Subpath":"s","DriverConfig":{"Name":"d","Options":{"o":"p"}}}}`, ""},
		{`src=v,dst=/c,"volume-opt=o=a,b"`, `{"Type":"volume","Source":"v","Target":"/c","VolumeOptions":{"DriverConfig":{"Options":{"o":"a,b"}}}}`, ""},
		{"type=tmpfs,dst=/c,tmpfs-size=1m,tmpfs-mode=1770", `{"Type":"tmpfs","Target":"/c","TmpfsOptions":{"SizeBytes":1048576,"Mode":1016}}`, ""},
		{"type=image,src=i,dst=/c,image-subpath=s", `{"Type":"image","Source":"i","Target":"/c","ImageOptions":{"Subpath":"s"}}`, ""},
		{"type=bind,src=/h", "", "target is required"},
		{"type=bind,src=/h,dst=/c,tmpfs-size=1", "", "cannot mix 'tmpfs-*'"},
		{"type=tmpfs,dst=/c,tmpfs-mode=9", "", "invalid value for tmpfs-mode"},
		{"dst=/c,readonly=maybe", "", "invalid value for readonly"},
		{"dst=/c,foo=1", "", "unexpected key 'foo'"},
		{"dst=/c,foo", "", "must be a key=value pair"},
		{`dst="/c`, "", "is not a list"},
		{"type=bind,src=/h,dst=/c,bind-recursive=x", "", "invalid value for bind-recursive"},
	} {
		m, err := Mount(c.in)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: error %v, want %q", c.in, err, c.err)
			}
		} else if err != nil || text(m) != c.want {
			t.Errorf("%q: %s, %v, want %s", c.in, text(m), err, c.want)
		}
	}
}

func TestEnv(t *testing.T) {
	dir := t.TempDir()
	file := func(content string) string {
		name := filepath.Join(dir, "env")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	t.Setenv("CALE_TEST_SET", "from outside")
	os.Unsetenv("CALE_TEST_UNSET")
	env, err := Env([]string{file("\xef\xbb\xbfA=1\n# no\n\n  B=\"q\" x \nCALE_TEST_SET\nCALE_TEST_UNSET\nC=a=b\nD=")}, []string{"A=2", "CALE_TEST_SET", "CALE_TEST_UNSET", "E="})
	want := []string{"A=1", `B="q" x `, "CALE_TEST_SET=from outside", "C=a=b", "D=", "A=2", "CALE_TEST_SET=from outside", "CALE_TEST_UNSET", "E="}
	if err != nil || !reflect.DeepEqual(env, want) {
		t.Errorf("%q, %v", env, err)
	}
	for content, message := range map[string]string{"a b=1": "contains whitespaces", "=x": "no variable name", "a=\xff": "invalid utf8"} {
		if _, err := Env([]string{file(content)}, nil); err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%q: %v, want %q", content, err, message)
		}
	}
	if _, err := Env(nil, []string{"=x"}); err == nil {
		t.Error("=x was taken")
	}
	if _, err := Env([]string{"/nonexistent"}, nil); err == nil {
		t.Error("a missing file was taken")
	}
	labels, err := Labels([]string{file("l1=v\nl2\n")}, []string{"l1=w", "x"})
	if err != nil || text(labels) != `{"l1":"w","l2":"","x":""}` {
		t.Errorf("%v, %v", labels, err)
	}
	if _, err := Labels(nil, []string{"=x"}); err == nil {
		t.Error("a label without a name was taken")
	}
}

func TestFilter(t *testing.T) {
	f := map[string][]string{}
	for _, s := range []string{"label=a=b", "Name=x", "label=c"} {
		if err := Filter(f, s); err != nil {
			t.Fatal(err)
		}
	}
	if text(f) != `{"label":["a=b","c"],"name":["x"]}` {
		t.Error(text(f))
	}
	if Filter(f, "x") == nil {
		t.Error("x was taken")
	}
}

func TestSizes(t *testing.T) {
	b := Bytes{Unlimited: true}
	for in, want := range map[string]int64{"1024": 1024, "64m": 64 << 20, "2G": 2 << 30, "-1": -1, "1.5k": 1536} {
		if err := b.Set(in); err != nil || b.Value != want {
			t.Errorf("%s: %d, %v", in, b.Value, err)
		}
	}
	if (&Bytes{}).Set("-1") == nil || b.Set("x") == nil {
		t.Error("a bad size was taken")
	}
	var c CPUs
	for in, want := range map[string]int64{"1": 1e9, "1.5": 15e8, ".25": 25e7, "0.000000001": 1, "2.": 2e9} {
		if err := c.Set(in); err != nil || c.Value != want {
			t.Errorf("%s: %d, %v", in, c.Value, err)
		}
	}
	for _, bad := range []string{"x", "-1", "1.0000000001", "1e3", "1.-5"} {
		if c.Set(bad) == nil {
			t.Errorf("cpus %s was taken", bad)
		}
	}
	if c.Value = 15e8; c.String() != "1.5" {
		t.Error(c.String())
	}
}

func TestTime(t *testing.T) {
	now := time.Unix(1700000000, 5).UTC()
	for in, want := range map[string]string{
		"": "", "10s": "1699999990.000000005", "1700000000": "1700000000", "1700000000.25": "1700000000.25", "-5m": "1700000300.000000005",
		"2023-11-14T22:13:20Z": "1700000000.000000000", "2023-11-14T22:13:20.5Z": "1700000000.500000000", "2023-11-14": "1699920000.000000000",
		"2023-11-14T22:13:20+01:00": "1699996400.000000000", "2023-11-14T22:13": "1699999980.000000000",
	} {
		if got, err := Time(in, now); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{"yesterday", "1.x", "12:00"} {
		if _, err := Time(bad, now); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestDevices(t *testing.T) {
	for in, want := range map[string]client.Device{
		"/dev/a":           {PathOnHost: "/dev/a", PathInContainer: "/dev/a", CgroupPermissions: "rwm"},
		"/dev/a:/dev/b":    {PathOnHost: "/dev/a", PathInContainer: "/dev/b", CgroupPermissions: "rwm"},
		"/dev/a:r":         {PathOnHost: "/dev/a", PathInContainer: "/dev/a", CgroupPermissions: "r"},
		"/dev/a:/dev/b:rw": {PathOnHost: "/dev/a", PathInContainer: "/dev/b", CgroupPermissions: "rw"},
	} {
		if got, cdi, err := Device(in); err != nil || cdi || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "/a:/b:x", "/a:/b:rr", "/a:/b:r:w"} {
		if _, _, err := Device(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, cdi, err := Device("vendor.com/gpu=0"); !cdi || err != nil {
		t.Error("a CDI name was not recognised")
	}
	if d, err := Throttle("/dev/sda:1mb", true); err != nil || d.Rate != 1<<20 {
		t.Errorf("%+v, %v", d, err)
	}
	for _, bad := range []string{"/dev/sda", "sda:1", "/dev/sda:x", "/dev/sda:-1"} {
		if _, err := Throttle(bad, true); err == nil {
			t.Errorf("%q was taken", bad)
		}
		if _, err := Throttle(bad, false); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	for s, ok := range map[string]bool{"/dev/sda:500": true, "/dev/sda:5": false, "/dev/sda:x": false, "x:500": false, "/dev/sda": false} {
		if _, err := Weight(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
	if g, err := GPUs(`"device=0,1",driver=nvidia`); err != nil || text(g) != `{"Driver":"nvidia","Count":0,"DeviceIDs":["0","1"],"Capabilities":[["gpu"]],"Options":null}` {
		t.Errorf("%s, %v", text(g), err)
	}
	if g, err := GPUs("all"); err != nil || g.Count != -1 {
		t.Errorf("%+v, %v", g, err)
	}
}

func TestRestartAndHealth(t *testing.T) {
	if p, err := RestartPolicy("on-failure:3"); err != nil || p != (client.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3}) {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []string{":3", "on-failure:x"} {
		if _, err := RestartPolicy(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if h, err := (Health{}).Config(); h != nil || err != nil {
		t.Errorf("%+v, %v", h, err)
	}
	if h, err := (Health{Cmd: "a b", Interval: time.Second}).Config(); err != nil || text(h) != `{"Test":["CMD-SHELL","a b"],"Interval":1000000000}` {
		t.Errorf("%s, %v", text(h), err)
	}
	if h, err := (Health{Disable: true}).Config(); err != nil || text(h) != `{"Test":["NONE"]}` {
		t.Errorf("%s, %v", text(h), err)
	}
	for _, bad := range []Health{{Disable: true, Cmd: "x"}, {Interval: -1}, {Retries: -1}} {
		if _, err := bad.Config(); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

func TestNetwork(t *testing.T) {
	n, err := ParseNetwork("name=n,alias=a,alias=b,ip=10.0.0.2,ip6=fd::2,mac-address=02:00:00:00:00:01,driver-opt=k=v,gw-priority=2,link-local-ip=169.254.0.1")
	want := `{"Name":"n","Endpoint":{"IPAMConfig":{"IPv4Address":"10.0.0.2","IPv6Address":"fd::2","LinkLocalIPs":["169.254.0.1"]},"Aliases":["a","b"],` +
		`"MacAddress":"02:00:00:00:00:01","DriverOpts":{"k":"v"},"GwPriority":2},"Settings":true}`
	if err != nil || text(n) != want {
		t.Errorf("%s, %v", text(n), err)
	}
	if n, err := ParseNetwork("container:x"); err != nil || n.Name != "container:x" || n.Settings {
		t.Errorf("%+v, %v", n, err)
	}
	for _, bad := range []string{"", "alias=x", "name=n,foo=1", "name=n,gw-priority=x"} {
		if _, err := ParseNetwork(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestCapabilities(t *testing.T) {
	if got := Capabilities([]string{"sys_time", "CAP_NET_ADMIN", "net_admin"}); text(got) != `["CAP_NET_ADMIN","CAP_SYS_TIME"]` {
		t.Error(got)
	}
	if got := Capabilities([]string{"net_admin", "all"}); text(got) != `["ALL"]` {
		t.Error(got)
	}
}

func TestDetachKeys(t *testing.T) {
	for in, want := range map[string]string{"": "\x10\x11", "ctrl-a,x": "\x01x", "ctrl-@": "\x00", "ctrl-[,ctrl-_": "\x1b\x1f", "a,b,c": "abc"} {
		if got, err := DetachKeys(in); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, bad := range []string{"ab", "ctrl-", "ctrl-A", "ctrl-ab", ","} {
		if _, err := DetachKeys(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestKeyReader(t *testing.T) {
	for _, c := range []struct {
		in, out  string
		detached bool
	}{
		{"plain", "plain", false},
		{"in\x10\x11rest", "in", true},
		{"a\x10b\x10\x10\x11", "a\x10b\x10", true},
		{"end\x10", "end\x10", false},
		{"\x11\x10", "\x11\x10", false},
		{"", "", false},
	} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "bytewise": iotest.OneByteReader,
			"data with error": iotest.DataErrReader} {
			var out bytes.Buffer
			_, err := io.Copy(&out, &KeyReader{R: wrap(strings.NewReader(c.in)), Keys: []byte("\x10\x11")})
			if errors.Is(err, ErrDetached) != c.detached || out.String() != c.out {
				t.Errorf("%q %s: %q, %v", c.in, name, &out, err)
			}
		}
	}
}

func FuzzFlags(f *testing.F) {
	for _, s := range []string{"[::1]:80-90:80/tcp", "type=bind,src=/a,dst=/b", "name=n,ip=1", "/dev/a:/b:r", "device=1", "2023-11-14T22"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		Ports([]string{s})
		Expose([]string{s}, map[string]struct{}{})
		Volumes([]string{s})
		Mount(s)
		ParseNetwork(s)
		Device(s)
		GPUs(s)
		Throttle(s, true)
		Time(s, time.Now())
		DetachKeys(s)
		(&CPUs{}).Set(s)
	})
}
