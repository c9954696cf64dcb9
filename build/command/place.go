package command

import (
	"io"
	"os"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/tonistiigi/fsutil"
)

// Place is where a command line was written: what its environment and its paths
// mean.
type Place interface {
	// Env is a variable of the environment.
	Env(key string) (value string, ok bool)
	// Is tells whether there is something at a path, and what.
	Is(path string) (os.FileInfo, error)
	// Folder is the tree at a path.
	Folder(path string) (fsutil.FS, error)
	// Logins are the user's at registries.
	Logins() (*configfile.ConfigFile, error)
}

// Here is this process.
var Here Place = here{}

type here struct{}

func (here) Env(key string) (string, bool)         { return os.LookupEnv(key) }
func (here) Is(path string) (os.FileInfo, error)   { return os.Stat(path) }
func (here) Folder(path string) (fsutil.FS, error) { return fsutil.NewFS(path) }

// Logins may name helpers that are asked for credentials.
func (here) Logins() (*configfile.ConfigFile, error) {
	return config.LoadDefaultConfigFile(io.Discard), nil
}

// readLogins reads a file of logins as LoadDefaultConfigFile does.
func readLogins(path string, r io.Reader) (*configfile.ConfigFile, error) {
	f := configfile.New(path)
	if r != nil {
		if err := f.LoadFromReader(r); err != nil {
			return nil, err
		}
	}
	if !f.ContainsAuth() {
		f.CredentialsStore = credentials.DetectDefaultStore(f.CredentialsStore)
	}
	return f, nil
}
