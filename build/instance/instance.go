// Package instance has what builder and engine both know of a builder at work:
// its lock, the control group of its steps, and the end of steps whose builder
// is dead. It knows nothing of BuildKit, which is not the engine's.
package instance

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cale/runtime/cgroup"
)

// Cgroup is the control group that the steps of an instance are below, whose
// running state is in run.
func Cgroup(run string) string {
	if run == "/run/cale" {
		return "/cale-build"
	}
	sum := sha256.Sum256([]byte(run))
	return "/cale-build-" + hex.EncodeToString(sum[:3])
}

// Below is the group that a client asks for, which is parent or below it: others
// are not a client's to choose.
func Below(parent, asked string) (string, error) {
	at := path.Clean(asked)
	if !path.IsAbs(at) {
		at = path.Join(parent, at)
	}
	if at != parent && !strings.HasPrefix(at, parent+"/") || strings.Contains(at, ":") {
		return "", fmt.Errorf("cgroup parent %s: a build's groups are below %s", asked, parent)
	}
	return at, nil
}

// LockFile is what a builder has locked while it lives.
func LockFile(run string) string { return filepath.Join(run, "build", "lock") }

// ErrAlive says that a builder has the instance.
var ErrAlive = errors.New("a builder serves this instance")

// Lock takes an instance's lock for this process; the file says which it is.
func Lock(run string) (*os.File, error) {
	f, err := lock(run, os.O_CREATE)
	// It may be that EndOrphans has it.
	for end := time.Now().Add(time.Second); errors.Is(err, ErrAlive) && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
		f, err = lock(run, os.O_CREATE)
	}
	if err != nil {
		return nil, err
	}
	// Who holds it, for people and tests.
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintln(f, os.Getpid())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func lock(run string, flags int) (*os.File, error) {
	f, err := os.OpenFile(LockFile(run), os.O_RDWR|flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			return nil, ErrAlive
		}
		return nil, err
	}
	return f, nil
}

// EndOrphans ends the steps of an instance whose builder is dead; ErrAlive if it
// is not. The next builder does not begin meanwhile.
func EndOrphans(run string) error {
	g, err := cgroup.Open(Cgroup(run), cgroup.Options{Parent: true})
	if err != nil {
		return err
	}
	// A builder that ended well left none, and the next one is not held up.
	if pids, err := g.Pids(); err == nil && len(pids) == 0 || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	f, err := lock(run, os.O_CREATE)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := g.Kill(); err != nil {
		return err
	}
	return g.Destroy()
}
