package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cale/image"
	"cale/test/images"
)

var shimPath string

func TestMain(m *testing.M) {
	if v := os.Getenv("ENGINE_VICTIM"); v != "" {
		args := strings.Split(v, ":")
		victim(args[0], args[1], args[2])
	}
	code := func() int {
		if os.Geteuid() != 0 {
			return m.Run()
		}
		dir, err := os.MkdirTemp("/dev/shm", "cale-engine-bin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if bin := os.Getenv("CALE_BIN"); bin != "" {
			shimPath = filepath.Join(bin, "cale-shim")
			return m.Run()
		}
		shimPath = filepath.Join(dir, "cale-shim")
		build := exec.Command("go", "build", "-o", shimPath, "cale/cmd/cale-shim")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build cale-shim: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}()
	os.Exit(code)
}

// bench is an engine of a test's own, with a busybox image.
type bench struct {
	*Engine
	t    testing.TB
	dir  string
	conf Config
}

const patience = 30 * time.Second

func newBench(t testing.TB) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers of the engine need root")
	}
	dir, err := os.MkdirTemp("/dev/shm", "cale-engine-")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, dir: dir}
	b.conf = Config{Root: filepath.Join(dir, "root"), Run: filepath.Join(dir, "run"), Shim: shimPath, Log: func(f string, a ...any) {
		t.Logf("engine: "+f, a...)
	}}
	b.open()
	t.Cleanup(func() {
		ctx := context.Background()
		for _, c := range b.List(ctx, false) {
			if err := b.Remove(ctx, c.ID, RemoveOptions{Force: true, Volumes: true}); err != nil {
				t.Errorf("remove %s: %v", c.Name, err)
			}
		}
		deadline := time.Now().Add(patience)
		for b.Busy() && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		if err := b.Retire(ctx); err != nil {
			t.Errorf("retire: %v", err)
		}
		pods, _ := os.ReadDir(filepath.Join(b.conf.Run, "pods"))
		if len(pods) > 0 {
			t.Errorf("%d pods are left", len(pods))
		}
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if mounts, err := os.ReadFile("/proc/self/mountinfo"); err == nil && strings.Contains(string(mounts), dir) {
			t.Errorf("a mount below %s is left", dir)
		}
		os.RemoveAll(dir)
	})
	return b
}

func (b *bench) open() {
	b.t.Helper()
	e, err := Open(context.Background(), b.conf)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Engine = e
	if _, err := e.store.Resolve("docker.io/library/busybox:latest"); err == nil {
		return
	}
	img, err := images.Busybox()
	if err != nil {
		b.t.Skip(err)
	}
	b.addImage("busybox:latest", img)
}

// addImage puts an image into the store as a pull would.
func (b *bench) addImage(name string, img *images.Image) {
	b.t.Helper()
	ref, err := image.ParseReference(name)
	if err != nil {
		b.t.Fatal(err)
	}
	put := func(x images.Blob) image.Descriptor {
		d, err := b.store.Put(x.MediaType, x.Data)
		if err != nil {
			b.t.Fatal(err)
		}
		return d
	}
	put(img.Config)
	for _, l := range img.Layers {
		put(l)
	}
	target := put(img.Manifest)
	cfg, err := image.ParseConfig(img.Config.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	for i, l := range img.Layers {
		if _, err := b.store.Layers.Unpack(context.Background(), bytes.NewReader(l.Data), l.MediaType, cfg.DiffIDs[i]); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := b.store.SetName(ref.String(), target); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) create(s Spec) string {
	b.t.Helper()
	if s.Image == "" {
		s.Image = "busybox"
	}
	id, _, err := b.Create(context.Background(), s)
	if err != nil {
		b.t.Fatalf("create: %v", err)
	}
	return id
}

// sh describes a container that runs a shell script without a network.
func sh(script string) Spec {
	return Spec{Cmd: []string{"sh", "-c", script}, Network: Network{Mode: "none"}}
}

// run runs a container to its end and gives what it wrote and its exit code.
func (b *bench) run(s Spec) (string, int) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	id := b.create(s)
	st, err := b.Attach(ctx, id, AttachOptions{Stdout: true, Stderr: true, Stream: true})
	if err != nil {
		b.t.Fatalf("attach: %v", err)
	}
	defer st.Close()
	out := drain(st)
	exit, err := b.Wait(ctx, id, "next-exit")
	if err != nil {
		b.t.Fatalf("wait: %v", err)
	}
	if err := b.Start(ctx, id, StartOptions{}); err != nil {
		b.t.Fatalf("start: %v", err)
	}
	text := <-out
	select {
	case r := <-exit:
		return text, r.ExitCode
	case <-ctx.Done():
		b.t.Fatalf("the container did not end; output %q", text)
	}
	return "", 0
}

// drain reads a stream's frames to the end, in the background.
func drain(r io.Reader) <-chan string {
	out := make(chan string, 1)
	go func() { out <- readFrames(r) }()
	return out
}

// readFrames reads a stream of Docker's frames to its end.
func readFrames(r io.Reader) string {
	var out strings.Builder
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return out.String()
		}
		if _, err := io.CopyN(&out, r, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			return out.String()
		}
	}
}

// exec runs a command in a container.
func (b *bench) exec(id string, x ExecSpec) (string, int) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	x.Stdout, x.Stderr = true, true
	xid, err := b.ExecCreate(ctx, id, x)
	if err != nil {
		b.t.Fatalf("exec create: %v", err)
	}
	st, err := b.ExecStart(ctx, xid, ExecStartOptions{})
	if err != nil {
		b.t.Fatalf("exec start: %v", err)
	}
	defer st.Close()
	out := drain(st)
	text := <-out
	info, err := b.ExecInspect(ctx, xid)
	if err != nil || info.ExitCode == nil {
		b.t.Fatalf("exec inspect: %+v, %v", info, err)
	}
	return text, *info.ExitCode
}
