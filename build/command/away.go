package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config/configfile"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sys/unix"

	"cale/filetree"
)

// away is another process, whose files are reached from its root directory: what
// is mounted for it counts, not for this one. What no path leads to
// (/proc/self/fd, /dev/stdin) is refused.
type away struct {
	env  map[string]string
	root *filetree.Root
	dir  string // the current directory, below root
	open []*os.File
}

// maxLogins bounds a file of logins, in bytes.
const maxLogins = 1 << 20

// Away is the place of another process: its environment, its root directory,
// which stays the caller's, and its current directory below that. Folders that
// it gave end with the call of closer.
func Away(env []string, root *filetree.Root, dir string) (at Place, closer func()) {
	a := &away{env: map[string]string{}, root: root, dir: dir}
	for _, v := range env {
		k, value, _ := strings.Cut(v, "=")
		a.env[k] = value
	}
	return a, func() {
		for _, f := range a.open {
			f.Close()
		}
	}
}

func (a *away) Env(key string) (string, bool) {
	v, ok := a.env[key]
	return v, ok
}

func (a *away) path(p string) string {
	if strings.HasPrefix(p, "/") {
		return p
	}
	return a.dir + "/" + p
}

func (a *away) Is(path string) (os.FileInfo, error) {
	f, err := a.root.OpenIn(a.path(path), unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

func (a *away) Folder(path string) (fsutil.FS, error) {
	f, err := a.root.OpenIn(a.path(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	a.open = append(a.open, f)
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	return &folder{f, fmt.Sprintf("%x:%x", st.Dev, st.Ino)}, nil
}

func (a *away) Logins() (*configfile.ConfigFile, error) {
	// The library reads it of the environment of the process that it runs in.
	if a.env[configfile.DockerEnvConfigKey] != "" || os.Getenv(configfile.DockerEnvConfigKey) != "" {
		return nil, fmt.Errorf("logins: they are in $%s, which whoever asks must read", configfile.DockerEnvConfigKey)
	}
	dir := a.env["DOCKER_CONFIG"]
	if dir == "" {
		if a.env["HOME"] == "" {
			return nil, errors.New("logins: there is neither $HOME nor $DOCKER_CONFIG")
		}
		dir = filepath.Join(a.env["HOME"], ".docker")
	}
	path := filepath.Join(dir, "config.json")
	var r io.Reader
	f, err := a.root.OpenIn(a.path(path), unix.O_RDONLY|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		defer f.Close()
		r = io.LimitReader(f, maxLogins)
	}
	l, err := readLogins(path, r)
	if err == nil && (l.CredentialsStore != "" || len(l.CredentialHelpers) > 0) {
		err = fmt.Errorf("logins %s: it names helpers, which whoever asks must start", path)
	}
	return l, err
}
