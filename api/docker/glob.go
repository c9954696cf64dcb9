package docker

import (
	"path"
	"strconv"
)

// globMatch says whether name is meant by a pattern of path.Match; a broken pattern means nothing.
func globMatch(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return err == nil && ok
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
