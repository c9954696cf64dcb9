package linux

import (
	"os"
	"strings"
	"sync"
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
