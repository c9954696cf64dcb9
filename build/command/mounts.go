package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	apibuild "cale/api/build"
)

// mountsFile is a file of cache mounts: --cache-to type=mounts,dest=FILE[,id=ID]…
// and --cache-from type=mounts,src=FILE.
type mountsFile struct {
	path string
	ids  []string
}

// archives takes out of a list of caches those that are cache mounts; key names
// the file.
func archives(list []string, key string) (mounts []mountsFile, rest []string, err error) {
	for _, v := range list {
		fields := strings.Split(v, ",")
		if fields[0] != "type=mounts" {
			rest = append(rest, v)
			continue
		}
		var a mountsFile
		for _, f := range fields[1:] {
			k, value, _ := strings.Cut(f, "=")
			switch {
			case k == key:
				a.path = value
			case k == "id" && key == "dest":
				a.ids = append(a.ids, value)
			default:
				return nil, nil, fmt.Errorf("invalid cache %q: type=mounts has no %q", v, k)
			}
		}
		if a.path == "" {
			return nil, nil, fmt.Errorf("invalid cache %q: it has no %s", v, key)
		}
		mounts = append(mounts, a)
	}
	return mounts, rest, nil
}

// mountsCall asks the builder for its cache mounts, or gives it some.
func mountsCall(ctx context.Context, dial func(context.Context) (net.Conn, error), method string, q url.Values, body io.Reader) (*http.Response, error) {
	c := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }, DisableKeepAlives: true, DisableCompression: true,
	}}
	r, err := http.NewRequestWithContext(ctx, method, "http://builder"+apibuild.MountsPath+"?"+q.Encode(), body)
	if err != nil {
		return nil, err
	}
	a, err := c.Do(r)
	if err != nil || a.StatusCode < 400 {
		return a, err
	}
	defer a.Body.Close()
	var m struct{ Message string }
	if err := json.NewDecoder(io.LimitReader(a.Body, 1<<20)).Decode(&m); err != nil || m.Message == "" {
		m.Message = a.Status
	}
	return nil, errors.New(m.Message)
}

func importMounts(ctx context.Context, dial func(context.Context) (net.Conn, error), a mountsFile) error {
	f, err := os.Open(a.path)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := mountsCall(ctx, dial, http.MethodPost, nil, f)
	if err != nil {
		return fmt.Errorf("import cache mounts from %s: %w", a.path, err)
	}
	return r.Body.Close()
}

// exportMounts writes the file whole or not at all.
func exportMounts(ctx context.Context, dial func(context.Context) (net.Conn, error), a mountsFile) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("export cache mounts to %s: %w", a.path, err)
		}
	}()
	r, err := mountsCall(ctx, dial, http.MethodGet, url.Values{"id": a.ids}, nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	f, err := os.CreateTemp(filepath.Dir(a.path), "."+filepath.Base(a.path)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = io.Copy(f, r.Body)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), a.path)
}
