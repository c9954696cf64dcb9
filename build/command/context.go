package command

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	contentlocal "github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/ociindex"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"github.com/moby/buildkit/util/staticfs"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"

	"cale/cli/archive"
)

// inputs are what a build reads of the machine that it was asked for on.
type inputs struct {
	at     Place
	mounts map[string]fsutil.FS
	stores map[string]content.Store
	attach []session.Attachable
}

// maxDockerfile bounds a Dockerfile on the standard input, in bytes.
const maxDockerfile = 16 << 20

// read finds the context and the Dockerfile, and says in attrs where they are.
func (f *flags) read(where string, stdin io.Reader, attrs map[string]string) (in *inputs, err error) {
	in = &inputs{at: f.at, mounts: map[string]fsutil.FS{}, stores: map[string]content.Store{}}
	switch {
	case where == "-" && f.file == "-":
		return nil, errors.New("invalid argument: can't use stdin for both build context and dockerfile")
	case where == "-":
		if err := in.stream(stdin, f.file, attrs); err != nil {
			return nil, err
		}
	case isRemote(f.at, where):
		attrs["context"] = where
		if f.file == "-" {
			if err := in.text(stdin); err != nil {
				return nil, err
			}
			attrs["dockerfilekey"] = "dockerfile"
		} else if f.file != "" {
			attrs["filename"] = f.file
		}
	default:
		if err := in.folder(where, f.file, stdin, attrs); err != nil {
			return nil, err
		}
	}
	for _, c := range f.contexts {
		if err := in.named(c, attrs); err != nil {
			return nil, err
		}
	}
	return in, nil
}

func isRemote(at Place, where string) bool {
	if _, err := at.Is(where); err == nil {
		return false
	}
	if strings.HasPrefix(where, "http://") || strings.HasPrefix(where, "https://") {
		return true
	}
	_, git, err := dfgitutil.ParseGitRef(where)
	return git && err == nil
}

// folder takes a directory; the Dockerfile may lie outside of it.
func (in *inputs) folder(dir, file string, stdin io.Reader, attrs map[string]string) error {
	if st, err := in.at.Is(dir); err != nil {
		return fmt.Errorf("unable to prepare context: path %q not found", dir)
	} else if !st.IsDir() {
		return fmt.Errorf("unable to prepare context: %q is not a directory", dir)
	}
	fs, err := in.at.Folder(dir)
	if err != nil {
		return err
	}
	in.mounts["context"] = fs
	switch file {
	case "-":
		return in.text(stdin)
	case "":
		in.mounts["dockerfile"] = fs
		return nil
	}
	if isRemote(in.at, file) {
		return fmt.Errorf("unable to prepare context: the Dockerfile can't be at %s when the context is a folder", file)
	}
	if _, err := in.at.Is(file); err != nil {
		return fmt.Errorf("unable to prepare context: unable to evaluate symlinks in Dockerfile path: %w", err)
	}
	if in.mounts["dockerfile"], err = in.at.Folder(filepath.Dir(file)); err != nil {
		return err
	}
	attrs["filename"] = filepath.Base(file)
	return nil
}

// text takes a Dockerfile from the standard input.
func (in *inputs) text(stdin io.Reader) error {
	raw, err := io.ReadAll(io.LimitReader(stdin, maxDockerfile+1))
	if err != nil {
		return err
	}
	if len(raw) > maxDockerfile {
		return fmt.Errorf("the Dockerfile on the standard input is larger than %d bytes", maxDockerfile)
	}
	// In memory: a client that is killed leaves nothing.
	fs := staticfs.NewFS()
	fs.Add("Dockerfile", &types.Stat{Mode: 0o600, ModTime: time.Now().UnixNano()}, raw)
	in.mounts["dockerfile"] = fs
	return nil
}

// stream takes the standard input: an archive is the context, anything else a
// Dockerfile without one.
func (in *inputs) stream(stdin io.Reader, file string, attrs map[string]string) error {
	r := bufio.NewReaderSize(stdin, 1024)
	head, err := r.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("failed to peek context header from STDIN: %w", err)
	}
	if !archive.Is(head) {
		if file != "" {
			return errors.New("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")
		}
		if err := in.text(r); err != nil {
			return err
		}
		in.mounts["context"] = staticfs.NewFS()
		return nil
	}
	up := uploadprovider.New()
	attrs["context"] = up.Add(io.NopCloser(r))
	in.attach = append(in.attach, up)
	if file != "" {
		attrs["filename"] = file
	}
	return nil
}

// named adds a context that the Dockerfile knows by name.
func (in *inputs) named(arg string, attrs map[string]string) error {
	name, where, ok := strings.Cut(arg, "=")
	if !ok || name == "" || where == "" {
		return fmt.Errorf("invalid context value: %s, expected key=value", arg)
	}
	key := "context:" + name
	switch {
	case strings.HasPrefix(where, "docker-image://"), strings.HasPrefix(where, "target:"), strings.HasPrefix(where, "input:"):
		attrs[key] = where
	case strings.HasPrefix(where, "oci-layout://"):
		return in.layout(key, strings.TrimPrefix(where, "oci-layout://"), attrs)
	case isRemote(in.at, where):
		attrs[key] = where
	default:
		fs, err := in.at.Folder(where)
		if err != nil {
			return fmt.Errorf("failed to get build context %s: %w", name, err)
		}
		in.mounts[name] = fs
		attrs[key] = "local:" + name
	}
	return nil
}

// layout adds an image in a folder (OCI image layout).
func (in *inputs) layout(key, where string, attrs map[string]string) error {
	path, digest, _ := strings.Cut(where, "@")
	tag := "latest"
	if i := strings.LastIndexByte(path, ':'); i > strings.LastIndexByte(path, '/') && digest == "" {
		path, tag = path[:i], path[i+1:]
	}
	store, err := contentlocal.NewStore(path)
	if err != nil {
		return fmt.Errorf("invalid store at %s: %w", path, err)
	}
	if digest == "" {
		desc, err := ociindex.NewStoreIndex(path).Get(tag)
		if err != nil {
			return fmt.Errorf("image layout %s: %w", path, err)
		}
		if desc == nil {
			return fmt.Errorf("image layout %s has no %q", path, tag)
		}
		digest = desc.Digest.String()
	}
	id := fmt.Sprintf("layout%d", len(in.stores))
	in.stores[id] = store
	attrs[key] = "oci-layout://" + id + "@" + digest
	return nil
}

// solve puts the inputs into a request.
func (in *inputs) solve(o *client.SolveOpt) {
	o.LocalMounts, o.OCIStores = in.mounts, in.stores
	o.Session = append(o.Session, in.attach...)
}
