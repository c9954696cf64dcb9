package images

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Push makes a busybox image and sends it to the registry at addr
// ("127.0.0.1:5000", plain HTTP) under name ("busybox:latest").
func Push(ctx context.Context, addr, name string) error {
	img, err := Busybox()
	if err != nil {
		return err
	}
	return img.Push(ctx, addr, name)
}

// Push sends the image to the registry at addr under name ("busybox:latest";
// without a tag, "latest").
func (i *Image) Push(ctx context.Context, addr, name string) error {
	repo, tag := split(name)
	for _, b := range append([]Blob{i.Config}, i.Layers...) {
		if err := PushBlob(ctx, addr, repo, b); err != nil {
			return err
		}
	}
	return PushManifest(ctx, addr, repo, tag, i.Manifest)
}

// PushIndex sends several images and an index of them under name.
func PushIndex(ctx context.Context, addr, name string, imgs ...*Image) error {
	repo, tag := split(name)
	for _, i := range imgs {
		if err := i.Push(ctx, addr, repo+"@"+i.Manifest.Digest()); err != nil {
			return err
		}
	}
	ix, err := Index(imgs...)
	if err != nil {
		return err
	}
	return PushManifest(ctx, addr, repo, tag, ix)
}

// PushBlob sends one blob in one piece.
func PushBlob(ctx context.Context, addr, repo string, b Blob) error {
	base := &url.URL{Scheme: "http", Host: addr, Path: "/v2/" + repo + "/blobs/uploads/"}
	res, err := do(ctx, http.MethodPost, base.String(), "", nil, http.StatusAccepted)
	if err != nil {
		return err
	}
	to, err := base.Parse(res.Get("Location"))
	if err != nil {
		return fmt.Errorf("upload to %s: %w", addr, err)
	}
	q := to.Query()
	q.Set("digest", b.Digest())
	to.RawQuery = q.Encode()
	_, err = do(ctx, http.MethodPut, to.String(), "application/octet-stream", b.Data, http.StatusCreated)
	return err
}

// PushManifest sends a manifest or index under a tag or digest.
func PushManifest(ctx context.Context, addr, repo, tag string, b Blob) error {
	_, err := do(ctx, http.MethodPut, "http://"+addr+"/v2/"+repo+"/manifests/"+tag, b.MediaType, b.Data, http.StatusCreated)
	return err
}

func split(name string) (repo, tag string) {
	if repo, tag, ok := strings.Cut(name, "@"); ok {
		return repo, tag
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i], name[i+1:]
	}
	return name, "latest"
}

func do(ctx context.Context, method, to, mediaType string, body []byte, want int) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, to, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	msg, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
	if res.StatusCode != want {
		return nil, fmt.Errorf("%s %s: %s: %s", method, to, res.Status, bytes.TrimSpace(msg))
	}
	return res.Header, nil
}

// WriteLayout adds the image to an OCI layout folder, which it makes if need
// be, under the reference name given.
func (i *Image) WriteLayout(dir, name string) error {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	for _, b := range append([]Blob{i.Config, i.Manifest}, i.Layers...) {
		if err := os.WriteFile(filepath.Join(dir, "blobs", "sha256", b.Digest()[len("sha256:"):]), b.Data, 0o644); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644); err != nil {
		return err
	}
	type entry struct {
		Descriptor
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	ix := struct {
		SchemaVersion int     `json:"schemaVersion"`
		MediaType     string  `json:"mediaType"`
		Manifests     []entry `json:"manifests"`
	}{SchemaVersion: 2, MediaType: TypeIndex}
	path := filepath.Join(dir, "index.json")
	if raw, err := os.ReadFile(path); err == nil {
		if err := json.Unmarshal(raw, &ix); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	ix.Manifests = append(ix.Manifests, entry{i.Manifest.Descriptor(), map[string]string{"org.opencontainers.image.ref.name": name}})
	raw, err := json.Marshal(ix)
	if err != nil {
		return err
	}
	return os.WriteFile(path, raw, 0o644)
}
