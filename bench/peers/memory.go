package peers

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// PSS adds up the proportional set sizes, in KiB, of the programs of these names that live in our mount namespace.
func PSS(names []string) (kib, processes int, err error) {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return 0, 0, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, 0, err
	}
	for _, e := range entries {
		dir := "/proc/" + e.Name()
		exe, err := os.Readlink(dir + "/exe")
		if err != nil || !slices.Contains(names, filepath.Base(exe)) {
			continue
		}
		if ns, _ := os.Readlink(dir + "/ns/mnt"); ns != own {
			continue
		}
		text, err := os.ReadFile(dir + "/smaps_rollup")
		if err != nil {
			continue
		}
		processes++
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			if value, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
				n, _ := strconv.Atoi(strings.Fields(value)[0])
				kib += n
			}
		}
	}
	return kib, processes, nil
}
