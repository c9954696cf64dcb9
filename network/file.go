package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"cale/atomicfile"
)

// writeFile replaces a file with v as JSON. durable makes it outlive a power
// cut; leases need not: a reboot ends what they describe.
func writeFile(path string, v any, durable bool) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, b, 0o600, durable)
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// readFiles decodes every JSON file of a directory. Half-written temporary
// files go; one that cannot be read is an error that names it, since guessing
// would hand out its addresses twice.
func readFiles[T any](dir string, each func(v *T) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasSuffix(path, atomicfile.Suffix) {
			os.Remove(path)
			continue
		}
		if !strings.HasSuffix(path, ".json") {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		v := new(T)
		if err := json.Unmarshal(b, v); err != nil {
			return fmt.Errorf("damaged file %s: %w", path, err)
		}
		if err := each(v); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}
