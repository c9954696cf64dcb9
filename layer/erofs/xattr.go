package erofs

import (
	"fmt"
	"slices"
	"strings"
)

// xattrHead comes before an inode's attributes.
const xattrHead = 12

// prefixes of the attributes' names, and their numbers; the first that fits.
var prefixes = []struct {
	text   string
	number byte
}{
	{"system.posix_acl_access", 2}, {"system.posix_acl_default", 3}, {"user.", 1}, {"trusted.", 4}, {"security.", 6},
}

func packXattrs(all map[string][]byte) ([]byte, error) {
	if len(all) == 0 {
		return nil, nil
	}
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	out := make([]byte, xattrHead)
	for _, name := range names {
		i := slices.IndexFunc(prefixes, func(p struct {
			text   string
			number byte
		}) bool {
			return strings.HasPrefix(name, p.text)
		})
		value := all[name]
		if i < 0 || len(name)-len(prefixes[i].text) > 255 || len(value) > 1<<16-1 {
			return nil, fmt.Errorf("%w: attribute %.300q of %d bytes", ErrUnsuited, name, len(value))
		}
		rest := name[len(prefixes[i].text):]
		out = append(out, byte(len(rest)), prefixes[i].number, byte(len(value)), byte(len(value)>>8))
		out = append(out, rest...)
		out = append(out, value...)
		for len(out)%4 != 0 {
			out = append(out, 0)
		}
	}
	if len(out) > maxXattrs {
		return nil, fmt.Errorf("%w: attributes of %d bytes", ErrUnsuited, len(out))
	}
	return out, nil
}
