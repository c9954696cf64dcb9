package linux

import (
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// InUserNamespace reports whether we are in another user namespace than the machine's first: root there may not do all
// that root may.
var InUserNamespace = sync.OnceValue(func() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false // a kernel without them
	}
	return strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295"
})

// SetgroupsDenied reports whether nobody in our user namespace, or in one made from it, may set its groups
// (user_namespaces(7)).
func SetgroupsDenied() bool {
	if !InUserNamespace() {
		return false
	}
	b, err := os.ReadFile("/proc/self/setgroups")
	return err == nil && strings.TrimSpace(string(b)) == "deny"
}

// User is our effective user as the machine knows it: root of a user namespace is the user who made that, as engines
// without rights do. Who has booted a system of its own in the namespace, as sd_booted(3) finds it, is root there.
func User() int {
	uid := os.Geteuid()
	if !InUserNamespace() {
		return uid
	}
	var st unix.Stat_t
	if uid == 0 && unix.Stat("/run/systemd/system", &st) == nil && st.Uid == 0 {
		return uid
	}
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return uid
	}
	return outside(string(b), uid)
}

// outside is a user's number outside the user namespace that has a map of users; one that is in no range stays.
func outside(uidMap string, uid int) int {
	for line := range strings.Lines(uidMap) {
		var n [3]int
		f := strings.Fields(line)
		if len(f) != len(n) {
			continue
		}
		for i := range n {
			n[i], _ = strconv.Atoi(f[i]) // the kernel writes nothing else
		}
		if in, out, size := n[0], n[1], n[2]; uid >= in && uid-in < size {
			return out + uid - in
		}
	}
	return uid
}
