package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/fsutil"

	"cale/test/stack"
)

// TestBuildKitAPI: BuildKit's clients, on the builder's socket and, as buildx has it, by way of the engine's.
func TestBuildKitAPI(t *testing.T) {
	s := stack.New(t)
	s.Do("FROM "+s.Busybox()+"\n", "cale", "build", "-").OK(t) // the builder runs
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+s.Busybox()+"\nRUN echo api > /api\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	folder, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, dial := range map[string]func(context.Context, string) (net.Conn, error){
		"build.sock": func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.Run, "build.sock"))
		},
		"docker.sock": func(ctx context.Context, _ string) (net.Conn, error) {
			return upgrade(ctx, filepath.Join(s.Run, "docker.sock"), "/grpc")
		},
		"docker.sock-http2": func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.Run, "docker.sock"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), stack.Patience)
			defer cancel()
			c, err := client.New(ctx, "unix:///builder", client.WithContextDialer(dial))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			// The exporter that buildx asks Docker's engine for.
			_, err = c.Solve(ctx, nil, client.SolveOpt{
				Frontend: "dockerfile.v0", LocalMounts: map[string]fsutil.FS{"context": folder, "dockerfile": folder},
				Exports: []client.ExportEntry{{Type: "moby", Attrs: map[string]string{"name": "docker.io/library/by-" + name}}},
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Cale("run", "--rm", "by-"+name, "cat", "/api").OK(t); got != "api\n" {
				t.Errorf("it prints %q", got)
			}
		})
	}
}

// upgrade makes a connection to the engine one of another protocol.
func upgrade(ctx context.Context, socket, path string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n", path); err != nil {
		return nil, err
	}
	answer, err := http.ReadResponse(bufio.NewReader(&bytewise{c}), nil)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("the engine answers %s", answer.Status)
	}
	return c, nil
}

// bytewise reads a byte at a time, so that nothing is read ahead.
type bytewise struct{ net.Conn }

func (b *bytewise) Read(p []byte) (int, error) { return b.Conn.Read(p[:1]) }
