package docker

import (
	"regexp"
	"strings"
)

// nameMatches says whether a name filter, a regular expression in Docker, finds a container's name, with or without
// its slash.
func nameMatches(filter, name string) bool {
	if strings.Contains(name, strings.TrimPrefix(filter, "/")) {
		return true
	}
	re, err := regexp.Compile(filter)
	return err == nil && (re.MatchString(name) || re.MatchString("/"+name))
}
