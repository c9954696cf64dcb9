package rootfs

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Mount options of anyone are read or refused; none sets and clears the same attribute, or becomes an option of another.
func FuzzParseOptions(f *testing.F) {
	f.Add("bind,ro,rro,nosuid,rnoatime,rslave,mode=755,idmap,tmpcopyup")
	f.Add("size=1m,noatime,relatime,strictatime,remount,rbind,shared")
	f.Add(strings.Join(OptionNames(), ","))
	f.Fuzz(func(t *testing.T, text string) {
		list := strings.Split(text, ",")
		o, err := parseOptions(list)
		if err != nil {
			return
		}
		if both := o.set & o.clear &^ unix.MOUNT_ATTR__ATIME; both != 0 {
			t.Errorf("%q: %#x are set and cleared", text, both)
		}
		for _, d := range o.data {
			if !slices.Contains(list, d) {
				t.Errorf("%q: %q was not there", text, d)
			}
		}
	})
}

func FuzzParseIDs(f *testing.F) {
	f.Add("0:1000:1,1:100000:65536")
	f.Add("0:4294967295:4294967295")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseIDs(text)
		if err != nil {
			return
		}
		// What was taken means what it says, and nothing else can be written that way.
		var b []string
		for _, m := range list {
			b = append(b, fmt.Sprintf("%d:%d:%d", m.ContainerID, m.HostID, m.Size))
		}
		again, err := parseIDs(strings.Join(b, ","))
		if err != nil || !slices.Equal(again, list) {
			t.Errorf("%q: %v, %v, %v", text, list, again, err)
		}
	})
}
