package rootfs

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// options are a mount's fstab options, sorted by what the kernel's mount interface does with them.
type options struct {
	set, clear      uint64 // MOUNT_ATTR_* of the mount itself
	rset, rclear    uint64 // the same for the mount and all below it
	propagation     uint64 // MS_SHARED and so on, or 0
	propagationRec  bool
	bind, rec       bool
	remount         bool
	copyUp          bool
	idmap, idmapRec bool
	nofollow        bool     // the source's last component may be a link, and is cloned as one
	destNofollow    bool     // so may the destination's, which is mounted on
	flags           bool     // there is an option of the mount itself or of the super block
	atime           bool     // "noatime", "relatime" or "strictatime", and not taken back
	readonly        bool     // as asked, for file systems where it also is a property of the super block
	superFlags      []string // sync, dirsync, ...
	data            []string // the file system's own
}

const atimeMask = unix.MOUNT_ATTR__ATIME

type attr struct {
	set, clear uint64
}

// mountAttrs are the options that are attributes of one mount; with an "r" before, of all mounts below too.
var mountAttrs = sync.OnceValue(func() map[string]attr {
	return map[string]attr{
		"ro":            {set: unix.MOUNT_ATTR_RDONLY},
		"rw":            {clear: unix.MOUNT_ATTR_RDONLY},
		"nosuid":        {set: unix.MOUNT_ATTR_NOSUID},
		"suid":          {clear: unix.MOUNT_ATTR_NOSUID},
		"nodev":         {set: unix.MOUNT_ATTR_NODEV},
		"dev":           {clear: unix.MOUNT_ATTR_NODEV},
		"noexec":        {set: unix.MOUNT_ATTR_NOEXEC},
		"exec":          {clear: unix.MOUNT_ATTR_NOEXEC},
		"nodiratime":    {set: unix.MOUNT_ATTR_NODIRATIME},
		"diratime":      {clear: unix.MOUNT_ATTR_NODIRATIME},
		"nosymfollow":   {set: unix.MOUNT_ATTR_NOSYMFOLLOW},
		"symfollow":     {clear: unix.MOUNT_ATTR_NOSYMFOLLOW},
		"noatime":       {set: unix.MOUNT_ATTR_NOATIME, clear: atimeMask},
		"relatime":      {set: unix.MOUNT_ATTR_RELATIME, clear: atimeMask},
		"strictatime":   {set: unix.MOUNT_ATTR_STRICTATIME, clear: atimeMask},
		"atime":         {set: unix.MOUNT_ATTR_RELATIME, clear: atimeMask},
		"norelatime":    {set: unix.MOUNT_ATTR_STRICTATIME, clear: atimeMask},
		"nostrictatime": {set: unix.MOUNT_ATTR_RELATIME, clear: atimeMask},
	}
})

// takenBack are the access times that these options mean not to have.
var takenBack = map[string]uint64{
	"atime": unix.MOUNT_ATTR_NOATIME, "norelatime": unix.MOUNT_ATTR_RELATIME, "nostrictatime": unix.MOUNT_ATTR_STRICTATIME,
}

func propagation(name string) (uint64, bool) {
	switch name {
	case "private":
		return unix.MS_PRIVATE, true
	case "shared":
		return unix.MS_SHARED, true
	case "slave":
		return unix.MS_SLAVE, true
	case "unbindable":
		return unix.MS_UNBINDABLE, true
	}
	return 0, false
}

// parseOptions sorts options; later ones win over earlier ones.
func parseOptions(list []string) (options, error) {
	var o options
	attrs := mountAttrs()
	for _, s := range list {
		if a, ok := attrs[s]; ok {
			o.flags = true
			switch s {
			case "ro", "rw":
				o.readonly = s == "ro"
			case "noatime", "relatime", "strictatime":
				o.atime = true
			case "atime", "norelatime", "nostrictatime":
				o.atime = o.atime && o.set&atimeMask != takenBack[s]
			}
			apply(&o.set, &o.clear, a)
			continue
		}
		if rest, ok := strings.CutPrefix(s, "r"); ok {
			if a, ok := attrs[rest]; ok {
				apply(&o.rset, &o.rclear, a)
				continue
			}
			if v, ok := propagation(rest); ok {
				o.propagation, o.propagationRec = v, true
				continue
			}
		}
		if v, ok := propagation(s); ok {
			o.propagation, o.propagationRec = v, false
			continue
		}
		switch s {
		case "", "defaults":
		case "async", "nomand", "loud", "silent", "noiversion", "nolazytime":
			o.flags = true
		case "sync", "dirsync", "mand", "lazytime", "iversion":
			o.flags = true
			o.superFlags = append(o.superFlags, s)
		case "bind":
			o.bind = true
		case "rbind":
			o.bind, o.rec = true, true
		case "remount":
			o.remount = true
		case "tmpcopyup":
			o.copyUp = true
		case "idmap":
			o.idmap = true
		case "ridmap":
			o.idmap, o.idmapRec = true, true
		case "copy-symlink", "src-nofollow":
			o.nofollow = true
		case "dest-nofollow":
			o.destNofollow = true
		default:
			if strings.ContainsRune(s, 0) {
				return o, fmt.Errorf("option %q has a NUL byte", s)
			}
			o.data = append(o.data, s)
		}
	}
	return o, nil
}

func apply(set, clear *uint64, a attr) {
	*set = *set&^a.clear | a.set
	*clear = *clear&^a.set | a.clear
}

// OptionNames are the mount options that are understood here, rather than passed to the file system; sorted.
func OptionNames() []string {
	list := []string{"async", "bind", "copy-symlink", "defaults", "dest-nofollow", "dirsync", "idmap", "iversion", "lazytime",
		"loud", "mand", "noiversion", "nolazytime", "nomand", "rbind", "remount", "ridmap", "silent", "src-nofollow", "sync", "tmpcopyup"}
	for n := range mountAttrs() {
		list = append(list, n, "r"+n)
	}
	for _, n := range []string{"private", "shared", "slave", "unbindable"} {
		list = append(list, n, "r"+n)
	}
	slices.Sort(list)
	return list
}
