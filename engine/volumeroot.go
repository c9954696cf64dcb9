package engine

import (
	"os"
	"strconv"
	"strings"

	"cale/filetree"
)

// volumeRoot is what a new volume's own directory is to be: its owner and permissions, as Podman's options have them
// (--opt o=uid=1000,gid=1000) and mount(8)'s (mode=0750).
type volumeRoot struct {
	uid, gid int // -1 leaves what is there
	mode     *os.FileMode
}

func parseVolumeRoot(text string) (volumeRoot, error) {
	r := volumeRoot{uid: -1, gid: -1}
	for _, o := range strings.Split(text, ",") {
		key, value, _ := strings.Cut(o, "=")
		if key != "uid" && key != "gid" && key != "mode" {
			return r, invalid("missing required option: \"device\"; without one there are uid=, gid= and mode=, not %q", o)
		}
		base, bits := 10, 32
		if key == "mode" {
			base, bits = 8, 12
		}
		n, err := strconv.ParseUint(value, base, bits)
		if err != nil || n == 1<<32-1 {
			return r, invalid("invalid option %q", o)
		}
		switch key {
		case "uid":
			r.uid = int(n)
		case "gid":
			r.gid = int(n)
		case "mode":
			mode := filetree.FileMode(uint32(n))
			r.mode = &mode
		}
	}
	return r, nil
}

func (r volumeRoot) apply(dir string) error {
	if r == (volumeRoot{}) {
		return nil
	}
	if err := os.Chown(dir, r.uid, r.gid); err != nil {
		return err
	}
	if r.mode == nil {
		return nil
	}
	return os.Chmod(dir, *r.mode)
}
