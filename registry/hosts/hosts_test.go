package hosts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The examples of containerd's documentation.
func TestDocumented(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "docker.io/hosts.toml"), `
server = "https://registry-1.docker.io"    # Exclude this to not use upstream

[host."https://public-mirror.example.com"]
  capabilities = ["pull"]                  # Requires less trust
[host."http://192.168.31.250:5000"]
  capabilities = ["pull", "resolve", "push"]
  skip_verify = true
  dial_timeout = "1s"
[host."a.example.com/path"]
  [host."a.example.com/path".header]
    x-custom-1 = ["part a", "part b"]
[host."https://b.example.com/api/v2/"]
[host."https://c.example.com/api"]
  override_path = true
`)
	c, err := Dirs{dir}.Load("docker.io")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, h := range c.Hosts {
		got = append(got, h.URL.String())
	}
	want := "https://public-mirror.example.com/v2 http://192.168.31.250:5000/v2 https://a.example.com/path/v2 https://b.example.com/api/v2 https://c.example.com/api https://registry-1.docker.io/v2"
	if strings.Join(got, " ") != want {
		t.Errorf("%q", got)
	}
	h := c.Hosts
	if !h[0].Pull || h[0].Resolve || h[0].Push || !h[1].Push || !h[1].SkipVerify || h[1].DialTimeout.Seconds() != 1 || !h[2].Push || !h[5].Server || h[4].Server {
		t.Errorf("%+v", h)
	}
	if v := h[2].Header["X-Custom-1"]; len(v) != 2 || v[1] != "part b" {
		t.Errorf("%q", h[2].Header)
	}
}

func TestFolders(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	d := Dirs{filepath.Join(one, "none"), one, two}
	server := func(domain string) string {
		c, err := d.Load(domain)
		if err != nil {
			t.Fatal(err)
		}
		if c == nil {
			return ""
		}
		return c.Hosts[len(c.Hosts)-1].URL.Host
	}
	if got := server("a:5000"); got != "" {
		t.Error(got)
	}
	for _, step := range []struct{ dir, name, a5000, b string }{
		{two, "_default", "1", "1"},
		{one, "_default", "2", "2"},
		{two, "a:5000", "3", "2"},
		{two, "a_5000_", "4", "2"},
		{one, "a:5000", "5", "2"},
	} {
		write(t, filepath.Join(step.dir, step.name, "hosts.toml"), "server = 'https://"+step.a5000+"'")
		if a, b := server("a:5000"), server("b"); a != step.a5000 || b != step.b {
			t.Errorf("%+v: %q, %q", step, a, b)
		}
	}
	for _, bad := range []string{"", "..", "_default", "a/b", "a\x00b"} {
		if c, err := d.Load(bad); err != nil || c != nil && bad != "" && !strings.ContainsAny(bad, "") {
			t.Errorf("%q: %v, %v", bad, c, err)
		}
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "h/bad.pem"), "x")
	for text, want := range map[string]string{
		"server = 1":                          "line 1",
		"servers = 'x'":                       `line 1: unknown key "servers"`,
		"\n[host.'a']\ncapability = ['pull']": `line 3: unknown key "host.a.capability"`,
		"capabilities = ['pul']":              `unknown capability "pul"`,
		"server = 'ftp://x'":                  "only http and https",
		"server = 'https://'":                 "is no address",
		"server = 'https://u:p@x'":            "no password belongs here",
		"server = 'x?y'":                      "is no address",
		"ca = 'bad.pem'":                      "holds no certificate",
		"ca = 1":                              "ca is neither",
		"ca = [[1]]":                          "ca is neither",
		"ca = 'none.pem'":                     "no such file",
		"client = 'bad.pem'":                  "client: bad.pem",
		"client = [['bad.pem']]":              "an entry is a path",
		"client = [['a','b','c']]":            "an entry is a path",
		"dial_timeout = 'soon'":               "no duration",
		"proxy = 'x'":                         "no address",
		"[header]\na = 1":                     "header a is neither",
		"[host.'x'.rewrite]\n'(' = 'a'":       "rewrite: ",
		"[host.'x']\n[host.'x']":              "line 2",
		"skip_verify = 'no'":                  "line 1",
		"server = 'x'\nserver = 'y'":          "line 2",
		strings.Repeat("a", maxFile+1):        "is larger than",
		"[[host]]":                            "line 1",
	} {
		write(t, filepath.Join(dir, "h/hosts.toml"), text)
		if _, err := (Dirs{dir}).Load("h"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.50q: %v", text, err)
		} else if strings.Contains(err.Error(), "u:p") {
			t.Errorf("a password is told: %v", err)
		}
	}
}

func FuzzHosts(f *testing.F) {
	f.Add("server = 'a'\n[host.'b'.rewrite]\n'^a' = 'b'\n")
	f.Add("[header]\na = ['b']\n[host]\n\"x\".ca = 'y'\n")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		write(t, filepath.Join(dir, "h/hosts.toml"), text)
		c, err := Dirs{dir}.Load("h")
		if err == nil && (len(c.Hosts) == 0 || !c.Hosts[len(c.Hosts)-1].Server) {
			t.Error("no server")
		}
	})
}
