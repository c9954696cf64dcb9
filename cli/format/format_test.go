package format

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"cale/client"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func containers() []Container {
	list := []client.Container{
		{ID: strings.Repeat("a1b2", 16), Names: []string{"/web", "/other/alias"}, Image: "docker.io/library/nginx@sha256:0123", Command: "nginx -g 'daemon off;' and more",
			Created: now.Add(-time.Hour).Unix(), Status: "Up About an hour", State: "running", Labels: map[string]string{"b": "2", "a.b-c": "1"}, SizeRw: 2048, SizeRootFs: 1 << 20,
			Ports: []client.Port{{IP: "0.0.0.0", PrivatePort: 80, PublicPort: 8080, Type: "tcp"}}},
		{ID: strings.Repeat("c3d4", 16), Names: []string{"/db"}, Image: "sha256:" + strings.Repeat("e", 64), Command: "sh", Created: now.Add(-48 * time.Hour).Unix(),
			Status: "Exited (0) 2 days ago", State: "exited"},
	}
	var rows []Container
	for _, c := range list {
		rows = append(rows, NewContainer(c, false, now))
	}
	return rows
}

func TestWrite(t *testing.T) {
	for _, c := range []struct{ name, format, want, err string }{
		{"table", ContainerTable(false, false), "" +
			"CONTAINER ID   IMAGE                     COMMAND                  CREATED             STATUS                  PORTS                  NAMES\n" +
			"a1b2a1b2a1b2   docker.io/library/nginx   \"nginx -g 'daemon of…\"   About an hour ago   Up About an hour        0.0.0.0:8080->80/tcp   web\n" +
			"c3d4c3d4c3d4   eeeeeeeeeeee              \"sh\"                     2 days ago          Exited (0) 2 days ago                          db\n", ""},
		{"own table", `table {{.Names}}\t{{.Label "a.b-c"}}\t{{upper .State}}`, "NAMES     b c       STATE\nweb       1         RUNNING\ndb                  EXITED\n", ""},
		{"size", "table {{.Names}}\t{{.Size}}", "NAMES     SIZE\nweb       2.05kB (virtual 1.05MB)\ndb        0B\n", ""},
		{"template", "{{.ID}}|{{.Labels}}|{{json .Names}}", "a1b2a1b2a1b2|a.b-c=1,b=2|\"web\"\nc3d4c3d4c3d4||\"db\"\n", ""},
		{"functions", `{{truncate .Image 5}} {{pad .State 1 2}}| {{title "a b"}} {{join (split .Names "e") "-"}}`, "docke  running  | A B w-b\neeeee  exited  | A B db\n", ""},
		{"bad", "{{", "", "template parsing error"},
		{"unknown", "{{.Nope}}", "", "Nope"},
	} {
		var b bytes.Buffer
		err := Write(&b, c.format, ContainerHeader, containers())
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil || b.String() != c.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", c.name, err, &b, c.want)
		}
	}
	var b bytes.Buffer
	if err := Write(&b, "json", ContainerHeader, containers()[1:]); err != nil || !strings.HasPrefix(b.String(), `{"Command":"\"sh\"",`) || strings.Count(b.String(), "\n") != 1 {
		t.Errorf("%s, %v", &b, err)
	}
	b.Reset()
	if err := Write(&b, ContainerTable(true, false), ContainerHeader, nil); err != nil || b.String() != "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES     SIZE\n" {
		t.Errorf("%q, %v", &b, err)
	}
}

func TestContainerWhole(t *testing.T) {
	c := NewContainer(client.Container{ID: strings.Repeat("f", 64), Names: []string{"/a", "/b/c"}, Command: strings.Repeat("x", 40)}, true, now)
	if len(c.ID) != 64 || c.Names != "a,b/c" || len(c.Command) != 42 || c.Image != "<no image>" {
		t.Errorf("%+v", c)
	}
}

func TestPorts(t *testing.T) {
	p := func(ip string, private, public uint16, kind string) client.Port {
		return client.Port{IP: ip, PrivatePort: private, PublicPort: public, Type: kind}
	}
	for _, c := range []struct {
		in   []client.Port
		want string
	}{
		{nil, ""},
		{[]client.Port{p("", 80, 0, "tcp")}, "80/tcp"},
		{[]client.Port{p("", 81, 0, "tcp"), p("", 80, 0, "tcp"), p("", 90, 0, "tcp")}, "80-81/tcp, 90/tcp"},
		{[]client.Port{p("::", 80, 8080, "tcp"), p("0.0.0.0", 80, 8080, "tcp")}, "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"},
		{[]client.Port{p("1.1.1.1", 9001, 9001, "udp"), p("1.1.1.1", 9000, 9000, "udp")}, "1.1.1.1:9000-9001->9000-9001/udp"},
		{[]client.Port{p("1.1.1.1", 80, 8080, "tcp"), p("1.1.1.1", 81, 9090, "tcp")}, "1.1.1.1:8080->80/tcp, 1.1.1.1:9090->81/tcp"},
		{[]client.Port{p("", 80, 0, "tcp"), p("", 80, 0, "udp")}, "80/tcp, 80/udp"},
	} {
		if got := Ports(c.in); got != c.want {
			t.Errorf("%v: %q, want %q", c.in, got, c.want)
		}
	}
}

func TestImages(t *testing.T) {
	id, digest := "sha256:"+strings.Repeat("ab", 32), "sha256:"+strings.Repeat("cd", 32)
	i := client.Image{ID: id, Created: now.Add(-72 * time.Hour).Unix(), Size: 123456789, SharedSize: -1, Containers: -1,
		RepoTags: []string{"localhost:5000/a:1", "b:latest"}, RepoDigests: []string{"localhost:5000/a@" + digest, "c@" + digest}}
	var b bytes.Buffer
	Write(&b, ImageTable(false), ImageHeader, NewImages(i, false, false, now))
	want := "REPOSITORY         TAG       IMAGE ID       CREATED      SIZE\n" +
		"localhost:5000/a   1         abababababab   3 days ago   123MB\n" +
		"b                  latest    abababababab   3 days ago   123MB\n" +
		"c                  <none>    abababababab   3 days ago   123MB\n"
	if b.String() != want {
		t.Errorf("\n%s\nwant\n%s", &b, want)
	}
	if rows := NewImages(i, true, true, now); rows[0].Digest != digest || rows[1].Digest != none || rows[0].ID != id {
		t.Errorf("%+v", rows)
	}
	dangling := client.Image{ID: id, RepoTags: []string{"<none>:<none>"}, RepoDigests: []string{"<none>@<none>"}}
	if rows := NewImages(dangling, false, false, now); len(rows) != 1 || rows[0].Repository != none || rows[0].Tag != none || rows[0].CreatedSince != "N/A" {
		t.Errorf("%+v", rows)
	}
}

func TestStep(t *testing.T) {
	s := NewStep(client.ImageHistory{ID: "<missing>", Created: now.Add(-time.Minute).Unix(), CreatedBy: "RUN\t" + strings.Repeat("x", 60), Size: 1500}, false, true, now)
	if s.ID != "<missing>" || s.Size != "1.5kB" || s.CreatedSince != "About a minute ago" || len([]rune(s.CreatedBy)) != 45 {
		t.Errorf("%+v", s)
	}
	if s := NewStep(client.ImageHistory{Size: 1500}, true, false, now); s.Size != "1500" {
		t.Errorf("%+v", s)
	}
}

func TestStats(t *testing.T) {
	var s client.Stats
	s.ID, s.Name = "abc", "/web"
	s.CPU.Usage.Total, s.CPU.System, s.CPU.Online = 3e9, 20e9, 2
	s.Previous.Usage.Total, s.Previous.System = 2e9, 18e9
	s.Memory = client.MemStats{Usage: 100 << 20, Limit: 1 << 30, Stats: map[string]uint64{"inactive_file": 36 << 20}}
	s.Pids.Current = 4
	row := NewStats("web", s)
	if row.CPUPerc != "100.00%" || row.MemUsage != "64MiB / 1GiB" || row.MemPerc != "6.25%" || row.Name != "web" || row.PIDs != "4" || row.NetIO != "0B / 0B" {
		t.Errorf("%+v", row)
	}
	if row.Pressure != "not counted" {
		t.Errorf("a kernel without pressure gives %q", row.Pressure)
	}
	s.Pressure = &client.Pressure{CPU: &client.Waiting{Some: client.WaitingShare{Avg10: 12.5}}, IO: &client.Waiting{}}
	if row := NewStats("web", s); row.Pressure != "12.50% / -- / 0.00%" {
		t.Errorf("pressure is %q", row.Pressure)
	}
	s.CPU.Usage.Total = 1 // counters that were reset
	if row := NewStats("web", s); row.CPUPerc != "0.00%" {
		t.Errorf("%+v", row)
	}
}

func TestUsage(t *testing.T) {
	var du client.DiskUsage
	du.LayersSize = 1000
	du.Images = []client.Image{{Size: 600, SharedSize: 100, Containers: 1}, {Size: 500, SharedSize: 100}}
	du.Containers = []client.Container{{SizeRw: 30, State: "running"}, {SizeRw: 70, State: "exited"}}
	var b bytes.Buffer
	Write(&b, UsageTable, UsageHeader, Usage(du))
	want := "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\n" +
		"Images          2         1         1kB       500B (50%)\n" +
		"Containers      2         1         100B      70B (70%)\n" +
		"Local Volumes   0         0         0B        0B\n" +
		"Build Cache     0         0         0B        0B\n"
	if b.String() != want {
		t.Errorf("\n%s\nwant\n%s", &b, want)
	}
}

func TestEventLine(t *testing.T) {
	e := Event{Type: "container", Action: "die", TimeNano: now.UnixNano() + 5, Actor: client.Actor{ID: "x", Attributes: map[string]string{"name": "n", "exitCode": "1"}}}
	if got := e.Line(); !strings.HasSuffix(got, " container die x (exitCode=1, name=n)") || !strings.Contains(got, ".000000005") {
		t.Error(got)
	}
}

// What Docker's typed objects allow in a template works on the API's JSON.
func TestObject(t *testing.T) {
	raw := `{"Id":"abc","State":{"ExitCode":3,"Running":true},"HostConfig":{"Memory":1048576,"LogConfig":{"Type":"json-file","Config":{}}},
		"Config":{"Cmd":["a","b"],"Labels":null},"Mounts":[{"Source":"/x"}],"NetworkSettings":{"Ports":{"80/tcp":[{"HostPort":"8080"}],"81/tcp":null}}}`
	for in, want := range map[string]string{
		"{{.Id}} {{.ID}}":                                          "abc abc",
		"{{if .State.Health}}x{{else}}none{{end}}":                 "none",
		"{{json .State.Health}}":                                   "null",
		"{{if eq .State.ExitCode 3}}three{{end}}":                  "three",
		"{{.HostConfig.Memory}}":                                   "1048576",
		"{{.Config.Cmd}} {{join .Config.Cmd \"+\"}}":               "[a b] a+b",
		`[{{index .Config.Labels "nope"}}]`:                        "[]",
		"{{range .Mounts}}{{.Source}}{{end}}":                      "/x",
		`{{(index .NetworkSettings.Ports "80/tcp")}}`:              "[map[HostPort:8080]]",
		"{{range $p, $c := .NetworkSettings.Ports}}{{$p}} {{end}}": "80/tcp 81/tcp ",
		"{{.NetworkSettings.IPAddress}}":                           "<no value>",
	} {
		v, err := Object([]byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		tmpl, err := Template(in)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := tmpl.Option("missingkey=error").Execute(&b, v); err != nil || b.String() != want {
			t.Errorf("%s: %q, %v, want %q", in, &b, err, want)
		}
	}
	v, _ := Object([]byte(raw))
	tmpl, _ := Template("{{.Nope}}")
	if err := tmpl.Option("missingkey=error").Execute(&bytes.Buffer{}, v); err == nil {
		t.Error("an unknown field was taken")
	}
	if _, err := Object([]byte("{")); err == nil {
		t.Error("broken JSON was taken")
	}
}
