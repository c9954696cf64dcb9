package credentials

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func config(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	path := filepath.Join(dir, "config.json")
	if text != "" {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func check(t *testing.T, host, user, pass string) {
	t.Helper()
	u, p, err := Get(context.Background(), host)
	if err != nil || u != user || p != pass {
		t.Errorf("%s: %q %q, %v", host, u, p, err)
	}
}

func TestGet(t *testing.T) {
	config(t, `{"auths":{
		"https://index.docker.io/v1/":{"auth":"am9lOnNlY3JldDp3aXRoOmNvbG9u"},
		"https://old.example/v1/":{"username":"u","password":"p"},
		"127.0.0.1:5000":{"auth":"am9lOng=","identitytoken":"idt"},
		"bad.example":{"auth":"!"}}}`)
	check(t, "docker.io", "joe", "secret:with:colon")
	check(t, "registry-1.docker.io", "joe", "secret:with:colon")
	check(t, "old.example", "u", "p")
	check(t, "127.0.0.1:5000", TokenUser, "idt")
	check(t, "127.0.0.1:5001", "", "")
	if _, _, err := Get(context.Background(), "bad.example"); err == nil {
		t.Error("no error for a bad entry")
	}
	config(t, "")
	check(t, "docker.io", "", "")
	config(t, "{")
	if _, _, err := Get(context.Background(), "docker.io"); err == nil {
		t.Error("no error for a bad file")
	}
}

func TestSetKeepsTheRest(t *testing.T) {
	path := config(t, `{"HttpHeaders":{"X":"y"},"auths":{"a.example":{"auth":"dTpw"}}}`)
	ctx := context.Background()
	if where, err := Set(ctx, "docker.io", "joe", "s:1"); err != nil || where != path {
		t.Fatal(where, err)
	}
	check(t, "docker.io", "joe", "s:1")
	check(t, "a.example", "u", "p")
	for _, want := range []bool{true, false} {
		if known, err := Erase(ctx, "docker.io"); err != nil || known != want {
			t.Fatal(known, err)
		}
	}
	check(t, "docker.io", "", "")
	raw, err := os.ReadFile(path)
	var all map[string]json.RawMessage
	if err != nil || json.Unmarshal(raw, &all) != nil || !strings.Contains(string(raw), `"X": "y"`) {
		t.Errorf("%s, %v", raw, err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestHelpers(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	script := "#!/bin/sh\nread -r key\ncase $1/$key in\nget/h.example) echo '{\"ServerURL\":\"x\",\"Username\":\"hu\",\"Secret\":\"hp\"}';;\nget/broken.example) echo no luck; exit 1;;\n*) echo credentials not found in native keychain; exit 1;;\nesac\n"
	if err := os.WriteFile(filepath.Join(bin, "docker-credential-test"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	config(t, `{"credsStore":"test","credHelpers":{"broken.example":"test","evil.example":"../sh"},"auths":{"f.example":{"auth":"dTpw"}}}`)
	check(t, "h.example", "hu", "hp")
	check(t, "other.example", "", "")
	check(t, "f.example", "u", "p")
	for host, want := range map[string]string{"broken.example": "docker-credential-test: no luck", "evil.example": "invalid credential helper"} {
		if _, _, err := Get(context.Background(), host); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", host, err)
		}
	}
	if _, err := Erase(context.Background(), "other.example"); err != nil {
		t.Error(err)
	}
}
