package ocispec

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// maxID is the greatest user or group id that can be asked for, the same as Docker's: programs that keep ids in a
// signed number take what lies above for root or for an error.
const maxID = 1<<31 - 1

// LookupUser finds who "user[:group]" is, by the contents of the container's passwd and group files (nil when there
// are none), with the groups the user belongs to and those of extra (names or ids). home is the user's home, or "".
func LookupUser(user string, passwd, group []byte, extra []string) (u specs.User, home string, err error) {
	name, groupName, hasGroup := strings.Cut(user, ":")
	if hasGroup && groupName == "" {
		hasGroup = false
	}
	if name == "" {
		name = "0"
	}
	id, numeric, err := parseID(name)
	if err != nil {
		return u, "", err
	}
	// A name made of digits is looked for as a name first, as Docker does.
	entry, found := findUser(passwd, name, id, numeric)
	switch {
	case found:
		u.UID, u.GID, home = entry.uid, entry.gid, entry.home
	case numeric:
		u.UID, u.GID = id, 0
	default:
		return u, "", fmt.Errorf("unable to find user %s: no matching entries in passwd file", name)
	}
	if hasGroup {
		if u.GID, err = lookupGroup(group, groupName); err != nil {
			return u, "", err
		}
	} else if found {
		eachGroup(group, func(g groupEntry) bool {
			if slices.Contains(g.members, entry.name) && !slices.Contains(u.AdditionalGids, g.gid) {
				u.AdditionalGids = append(u.AdditionalGids, g.gid)
			}
			return true
		})
	}
	if !slices.Contains(u.AdditionalGids, u.GID) {
		u.AdditionalGids = append([]uint32{u.GID}, u.AdditionalGids...)
	}
	for _, g := range extra {
		gid, err := lookupGroup(group, g)
		if err != nil {
			return u, "", err
		}
		if !slices.Contains(u.AdditionalGids, gid) {
			u.AdditionalGids = append(u.AdditionalGids, gid)
		}
	}
	return u, home, nil
}

// parseID reads a whole decimal number; numeric is false for names. Numbers no id can have are an error, never
// another user (CVE-2024-40635, CVE-2026-30892).
func parseID(s string) (id uint32, numeric bool, err error) {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false, nil
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil || v < 0 || v > maxID {
		return 0, false, fmt.Errorf("user or group id %s is out of range: uids and gids must be in range 0-%d", s, maxID)
	}
	return uint32(v), true, nil
}

type passwdEntry struct {
	name     string
	uid, gid uint32
	home     string
}

func findUser(passwd []byte, name string, id uint32, numeric bool) (passwdEntry, bool) {
	var byID *passwdEntry
	for line := range bytes.Lines(passwd) {
		f := strings.Split(strings.TrimSpace(string(line)), ":")
		if len(f) < 4 || strings.HasPrefix(f[0], "#") || f[0] == "" {
			continue
		}
		uid, ok, err := parseID(f[2])
		if !ok || err != nil {
			continue
		}
		gid, ok, err := parseID(f[3])
		if !ok || err != nil {
			continue
		}
		e := passwdEntry{name: f[0], uid: uid, gid: gid}
		if len(f) > 5 {
			e.home = f[5]
		}
		if e.name == name {
			return e, true
		}
		if numeric && uid == id && byID == nil {
			byID = &e
		}
	}
	if byID != nil {
		return *byID, true
	}
	return passwdEntry{}, false
}

type groupEntry struct {
	name    string
	gid     uint32
	members []string
}

func eachGroup(group []byte, fn func(groupEntry) bool) {
	for line := range bytes.Lines(group) {
		f := strings.Split(strings.TrimSpace(string(line)), ":")
		if len(f) < 3 || strings.HasPrefix(f[0], "#") || f[0] == "" {
			continue
		}
		gid, ok, err := parseID(f[2])
		if !ok || err != nil {
			continue
		}
		g := groupEntry{name: f[0], gid: gid}
		if len(f) > 3 && f[3] != "" {
			g.members = strings.Split(f[3], ",")
		}
		if !fn(g) {
			return
		}
	}
}

func lookupGroup(group []byte, name string) (uint32, error) {
	id, numeric, err := parseID(name)
	if err != nil {
		return 0, err
	}
	found := false
	eachGroup(group, func(g groupEntry) bool {
		if g.name == name {
			id, found = g.gid, true
		}
		return !found
	})
	if !found && !numeric {
		return 0, fmt.Errorf("unable to find group %s: no matching entries in group file", name)
	}
	return id, nil
}
