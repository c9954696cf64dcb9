package step

import (
	"fmt"
	"path"
	"strings"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"cale/filetree"
	"cale/runtime"
)

func errNoStep(id string) error { return fmt.Errorf("container %s not found: it has stopped", id) }

// execProcess is the step's own process with what meta says otherwise.
func (r *running) execProcess(meta executor.Meta) (*specs.Process, error) {
	p := *r.spec.Process
	if meta.User != "" {
		uid, gid, groups, err := oci.GetUser(r.rootfs, meta.User)
		if err != nil {
			return nil, err
		}
		p.User = specs.User{UID: uid, GID: gid, AdditionalGids: groups}
	}
	p.Terminal = meta.Tty
	p.Args = meta.Args
	if meta.Cwd != "" {
		p.Cwd = meta.Cwd
	}
	if len(meta.Env) > 0 {
		p.Env = meta.Env
	}
	return &p, nil
}

// makeOwned makes a directory and those above it, in a tree that a step may
// have had its hands on; what is there stays as it is.
func makeOwned(root *filetree.Root, name string, uid, gid int) error {
	at := ""
	for part := range strings.SplitSeq(strings.Trim(path.Clean("/"+name), "/"), "/") {
		at = path.Join(at, part)
		fd, err := filetree.Openat2(root.FD(), at, unix.O_PATH|unix.O_DIRECTORY, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
		if err == nil {
			unix.Close(fd)
			continue
		}
		if err != unix.ENOENT {
			return err
		}
		dir, base, err := root.OpenParent(at)
		if err != nil {
			return err
		}
		if err = unix.Mkdirat(dir, base, 0o755); err == nil {
			err = unix.Fchownat(dir, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
		}
		unix.Close(dir)
		if err != nil {
			return err
		}
	}
	return nil
}

// watchOOM counts the step's lack of memory; the function tells whether there
// was any.
func watchOOM(c *runtime.Container) func() bool {
	g, err := c.Cgroup()
	if err != nil || g == nil {
		return func() bool { return false }
	}
	events, stop, err := g.WatchOOM()
	if err != nil {
		return func() bool { return false }
	}
	return func() bool {
		defer stop()
		select {
		case _, ok := <-events:
			return ok
		default:
			return false
		}
	}
}
