package build

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/pb"
	"github.com/pelletier/go-toml/v2"

	"cale/image"
)

// Settings are what an administrator sets for builds, beside BuildKit's own
// configuration: the file build.toml.
type Settings struct {
	// Syntax says who reads a Dockerfile that begins with "# syntax=": "image",
	// the image that it names, or "builtin", this program for the official ones
	// (docker/dockerfile), for machines with no way to a registry.
	Syntax string `toml:"syntax"`
}

// ReadSettings reads a settings file, which need not be there.
func ReadSettings(path string) (s Settings, err error) {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	defer f.Close()
	if err := toml.NewDecoder(f).DisallowUnknownFields().Decode(&s); err != nil {
		return s, fmt.Errorf("settings %s: %w", path, err)
	}
	if s.Syntax != "" && s.Syntax != "image" && s.Syntax != "builtin" {
		return s, fmt.Errorf("settings %s: syntax is %q, and may be image or builtin", path, s.Syntax)
	}
	return s, nil
}

// ownSyntax is the front end of images that takes the official ones from own.
type ownSyntax struct {
	frontend.Frontend
	own frontend.Frontend
}

// official are the images of the Dockerfile front end.
var official = map[string]bool{
	"docker.io/docker/dockerfile": true, "docker.io/docker/dockerfile-upstream": true,
}

// Solve implements frontend.Frontend.
func (o ownSyntax) Solve(ctx context.Context, b frontend.FrontendLLBBridge, exec executor.Executor, opt map[string]string, inputs map[string]*pb.Definition, sid string, sm *session.Manager) (*frontend.Result, error) {
	ref, err := image.ParseReference(strings.TrimSpace(opt["source"]))
	if err != nil || !official[ref.Name()] || !ref.Digest.IsZero() {
		return o.Frontend.Solve(ctx, b, exec, opt, inputs, sid, sm)
	}
	opt = maps.Clone(opt)
	delete(opt, "source")
	if opt["cmdline"] == "" {
		opt["cmdline"] = ref.String() // what the file says of syntax is answered
	}
	return o.own.Solve(ctx, b, exec, opt, inputs, sid, sm)
}
