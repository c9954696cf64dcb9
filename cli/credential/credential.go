// Package credential keeps registries' credentials where Docker keeps them:
// config.json of $DOCKER_CONFIG or ~/.docker, or a credential helper named
// there.
package credential

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"cale/client"
)

// hub is the name under which Docker Hub's credentials are kept.
const hub = "https://index.docker.io/v1/"

// Key is the name under which a registry's credentials are kept.
func Key(domain string) string {
	switch domain {
	case "docker.io", "index.docker.io", "registry-1.docker.io", "":
		return hub
	}
	return domain
}

type entry struct {
	Auth          string `json:"auth,omitempty"`
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

type file struct {
	all   map[string]json.RawMessage // everything, to be kept as it is
	auths map[string]entry
	store string
	help  map[string]string
}

// Path is the name of the configuration file.
func Path() string {
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = "/"
		}
		dir = filepath.Join(home, ".docker")
	}
	return filepath.Join(dir, "config.json")
}

func load() (*file, error) {
	f := &file{all: map[string]json.RawMessage{}, auths: map[string]entry{}}
	b, err := os.ReadFile(Path())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return f, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &f.all); err != nil {
		return nil, fmt.Errorf("%s is not valid: %w", Path(), err)
	}
	for key, into := range map[string]any{"auths": &f.auths, "credsStore": &f.store, "credHelpers": &f.help} {
		if raw := f.all[key]; raw != nil {
			if err := json.Unmarshal(raw, into); err != nil {
				return nil, fmt.Errorf("%s is not valid: %s: %w", Path(), key, err)
			}
		}
	}
	return f, nil
}

func (f *file) helper(key string) string {
	if h := f.help[key]; h != "" {
		return h
	}
	return f.store
}

// Find returns the credentials kept for a registry, nil when there are none or
// they cannot be read (a pull may well work without).
func Find(domain string) *client.Auth {
	f, err := load()
	if err != nil {
		return nil
	}
	key := Key(domain)
	if h := f.helper(key); h != "" {
		if a, err := fromHelper(h, key); err == nil {
			return a
		}
	}
	for name, e := range f.auths {
		if name == key || host(name) == domain {
			return decode(key, e)
		}
	}
	return nil
}

// host strips scheme and path from an old style entry's name.
func host(name string) string {
	_, rest, ok := strings.Cut(name, "://")
	if !ok {
		rest = name
	}
	h, _, _ := strings.Cut(rest, "/")
	return h
}

func decode(key string, e entry) *client.Auth {
	a := &client.Auth{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken, ServerAddress: key}
	if b, err := base64.StdEncoding.DecodeString(e.Auth); err == nil && len(b) > 0 {
		a.Username, a.Password, _ = strings.Cut(strings.TrimRight(string(b), "\x00"), ":")
	}
	if a.Username == "" && a.Password == "" && a.IdentityToken == "" && a.RegistryToken == "" {
		return nil
	}
	return a
}

// Save keeps credentials; it returns where.
func Save(a client.Auth) (string, error) {
	f, err := load()
	if err != nil {
		return "", err
	}
	key := Key(a.ServerAddress)
	if h := f.helper(key); h != "" {
		secret := map[string]string{"ServerURL": key, "Username": a.Username, "Secret": a.Password}
		if a.IdentityToken != "" {
			secret["Username"], secret["Secret"] = "<token>", a.IdentityToken
		}
		b, _ := json.Marshal(secret)
		_, err := runHelper(h, "store", b)
		return "credential helper " + h, err
	}
	e := entry{Auth: base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + a.Password))}
	if a.IdentityToken != "" {
		e = entry{IdentityToken: a.IdentityToken, Auth: base64.StdEncoding.EncodeToString([]byte(a.Username + ":"))}
	}
	f.auths[key] = e
	return Path(), f.save()
}

// Erase forgets a registry's credentials; it tells whether there were any.
func Erase(domain string) (bool, error) {
	f, err := load()
	if err != nil {
		return false, err
	}
	key := Key(domain)
	if h := f.helper(key); h != "" {
		_, err := runHelper(h, "erase", []byte(key))
		return err == nil, err
	}
	if _, ok := f.auths[key]; !ok {
		return false, nil
	}
	delete(f.auths, key)
	return true, f.save()
}

func (f *file) save() error {
	raw, err := json.Marshal(f.auths)
	if err != nil {
		return err
	}
	f.all["auths"] = raw
	b, err := json.MarshalIndent(f.all, "", "\t")
	if err != nil {
		return err
	}
	name := Path()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(name); err == nil {
		name = real
	}
	t, err := os.CreateTemp(filepath.Dir(name), ".config.json-*") // mode 0600
	if err != nil {
		return err
	}
	_, werr := t.Write(b)
	if err := errors.Join(werr, t.Sync(), t.Close()); err != nil {
		os.Remove(t.Name())
		return err
	}
	return os.Rename(t.Name(), name)
}

func fromHelper(helper, key string) (*client.Auth, error) {
	out, err := runHelper(helper, "get", []byte(key))
	if err != nil {
		return nil, err
	}
	var s struct{ Username, Secret string }
	if err := json.Unmarshal(out, &s); err != nil {
		return nil, err
	}
	a := &client.Auth{Username: s.Username, Password: s.Secret, ServerAddress: key}
	if s.Username == "<token>" {
		a = &client.Auth{IdentityToken: s.Secret, ServerAddress: key}
	}
	return a, nil
}

func runHelper(helper, verb string, input []byte) ([]byte, error) {
	if strings.ContainsAny(helper, "/ ") {
		return nil, fmt.Errorf("credential helper name %q is not valid", helper)
	}
	c := exec.Command("docker-credential-"+helper, verb)
	c.Stdin = bytes.NewReader(input)
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("credential helper %s: %s: %w", helper, strings.TrimSpace(string(out)), err)
	}
	return out, nil
}
