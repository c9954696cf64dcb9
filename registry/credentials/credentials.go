// Package credentials reads and writes registry logins where Docker's client
// keeps them: $DOCKER_CONFIG/config.json or ~/.docker/config.json, and the
// credential helpers it names.
package credentials

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// TokenUser is the user name that marks the password as an identity token.
const TokenUser = "<token>"

// hubKey is how Docker's files name Docker Hub.
const hubKey = "https://index.docker.io/v1/"

const (
	maxConfig     = 1 << 20
	helperTimeout = 30 * time.Second
)

// Path is the configuration file.
func Path() (string, error) {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return filepath.Join(dir, "config.json"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".docker", "config.json"), nil
}

// file is the part of the configuration that concerns logins; all keeps the
// rest, which belongs to others.
type file struct {
	all     map[string]json.RawMessage
	auths   map[string]entry
	store   string
	helpers map[string]string
}

type entry struct {
	Auth          string `json:"auth,omitempty"`
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
}

func load(path string) (*file, error) {
	f := &file{all: map[string]json.RawMessage{}}
	raw, err := readFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return f, nil
	}
	err = json.Unmarshal(raw, &f.all)
	for key, into := range map[string]any{"auths": &f.auths, "credsStore": &f.store, "credHelpers": &f.helpers} {
		if v, ok := f.all[key]; ok && err == nil {
			err = json.Unmarshal(v, into)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func readFile(path string) ([]byte, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err == nil && len(raw) > maxConfig {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxConfig)
	}
	return raw, err
}

// keys are the names a registry host may have in the file, best first.
func keys(host string) []string {
	switch host {
	case "docker.io", "index.docker.io", "registry-1.docker.io":
		return []string{hubKey, "https://index.docker.io", "index.docker.io", "docker.io", "registry-1.docker.io"}
	}
	list := []string{host}
	for _, scheme := range []string{"https://", "http://"} {
		for _, tail := range []string{"", "/", "/v1/", "/v2/"} {
			list = append(list, scheme+host+tail)
		}
	}
	return list
}

// Key is the name a login of host is written under.
func Key(host string) string { return keys(host)[0] }

// Get finds the login of a registry host ("docker.io", "127.0.0.1:5000").
// Two empty strings mean that there is none. A user of TokenUser means that
// the password is an identity token.
func Get(ctx context.Context, host string) (user, pass string, err error) {
	path, err := Path()
	if err != nil {
		return "", "", err
	}
	f, err := load(path)
	if err != nil {
		return "", "", err
	}
	for _, k := range keys(host) {
		helper, ok := f.helpers[k]
		if !ok {
			continue
		}
		return helperGet(ctx, helper, k)
	}
	if f.store != "" {
		user, pass, err = helperGet(ctx, f.store, Key(host))
		if err != nil || user != "" {
			return user, pass, err
		}
	}
	for _, k := range keys(host) {
		if e, ok := f.auths[k]; ok {
			return e.login(k)
		}
	}
	return "", "", nil
}

func (e entry) login(key string) (user, pass string, err error) {
	user, pass = e.Username, e.Password
	if e.Auth != "" {
		raw, err := base64.StdEncoding.DecodeString(e.Auth)
		if err != nil {
			return "", "", fmt.Errorf("login of %s: its auth is not base64", key)
		}
		var ok bool
		if user, pass, ok = strings.Cut(strings.TrimRight(string(raw), "\x00"), ":"); !ok {
			return "", "", fmt.Errorf("login of %s: its auth is not user:password", key)
		}
	}
	if e.IdentityToken != "" {
		return TokenUser, e.IdentityToken, nil
	}
	return user, pass, nil
}

// Set keeps a login: with the credential helper that is configured, or else in
// the file, whose path it then returns: what it holds is not encrypted.
func Set(ctx context.Context, host, user, pass string) (path string, err error) {
	if path, err = Path(); err != nil {
		return "", err
	}
	err = change(ctx, host, func(f *file, helper, key string) error {
		if helper != "" {
			path = ""
			in, _ := json.Marshal(map[string]string{"ServerURL": key, "Username": user, "Secret": pass})
			_, err := run(ctx, helper, "store", in)
			return err
		}
		e := entry{Auth: base64.StdEncoding.EncodeToString([]byte(user + ":" + pass))}
		if user == TokenUser {
			e = entry{IdentityToken: pass}
		}
		if f.auths == nil {
			f.auths = map[string]entry{}
		}
		f.auths[key] = e
		return nil
	})
	return path, err
}

// Erase forgets a login, and tells whether there was one. A helper doesn't
// say: with one there was.
func Erase(ctx context.Context, host string) (known bool, err error) {
	err = change(ctx, host, func(f *file, helper, key string) error {
		if helper != "" {
			if _, err := run(ctx, helper, "erase", []byte(key)); err != nil && !errors.Is(err, errNoLogin) {
				return err
			}
			known = true
		}
		for _, k := range keys(host) {
			_, there := f.auths[k]
			known = known || there
			delete(f.auths, k)
		}
		return nil
	})
	return known, err
}

func change(ctx context.Context, host string, how func(f *file, helper, key string) error) error {
	path, err := Path()
	if err != nil {
		return err
	}
	f, err := load(path)
	if err != nil {
		return err
	}
	key, helper := Key(host), f.store
	for _, k := range keys(host) {
		if h, ok := f.helpers[k]; ok {
			key, helper = k, h
			break
		}
	}
	if err := how(f, helper, key); err != nil {
		return fmt.Errorf("login of %s: %w", host, err)
	}
	return f.save(path)
}

// save writes the file anew, with everything in it that isn't ours.
func (f *file) save(path string) error {
	raw, err := json.Marshal(f.auths)
	if err != nil {
		return err
	}
	if len(f.auths) == 0 {
		raw = []byte("{}")
	}
	f.all["auths"] = raw
	if raw, err = json.MarshalIndent(f.all, "", "\t"); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// A link is kept: people link the file from elsewhere.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path, dir = real, filepath.Dir(real)
	}
	tmp, err := os.CreateTemp(dir, ".config.json-") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(append(raw, '\n'))
	if err == nil {
		err = tmp.Sync()
	}
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	return err
}

var errNoLogin = errors.New("credentials not found")

func helperGet(ctx context.Context, helper, key string) (user, pass string, err error) {
	out, err := run(ctx, helper, "get", []byte(key))
	if errors.Is(err, errNoLogin) {
		return "", "", nil
	}
	if err != nil {
		return "", "", err
	}
	var got struct{ Username, Secret string }
	if err := json.Unmarshal(out, &got); err != nil {
		return "", "", fmt.Errorf("docker-credential-%s: its answer is not JSON", helper)
	}
	return got.Username, got.Secret, nil
}

// run speaks to a helper: the request on its input, the answer or the reason
// on its output.
func run(ctx context.Context, helper, verb string, in []byte) ([]byte, error) {
	if helper == "" || strings.ContainsAny(helper, "/\\\x00") {
		return nil, fmt.Errorf("invalid credential helper %q", helper)
	}
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker-credential-"+helper, verb)
	cmd.Stdin = bytes.NewReader(in)
	cmd.WaitDelay = time.Second
	var out bounded
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(out.String())
		if strings.Contains(text, "credentials not found") {
			return nil, errNoLogin
		}
		if text == "" {
			text = err.Error()
		}
		return nil, fmt.Errorf("docker-credential-%s: %s", helper, strings.Join(strings.Fields(text), " "))
	}
	return out.Bytes(), nil
}

// bounded keeps the first MiB of what is written.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if room := maxConfig - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
