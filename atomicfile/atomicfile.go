// Package atomicfile replaces small files, whole or not at all: whoever reads one sees what was there before or all of
// what came after, also when the writer is killed in between.
//
// What a killed writer leaves is the file's name with Suffix; only one writer of a file at a time is provided for.
package atomicfile

import (
	"os"
	"path/filepath"
)

// Suffix ends the name of a file that is not whole yet. Who lists a directory passes over such names.
const Suffix = ".tmp"

// Write replaces the file at path. durable makes it outlive a power cut, for which the disk must be waited for; what
// a reboot ends anyway need not.
func Write(path string, data []byte, mode os.FileMode, durable bool) error {
	temp := path + Suffix
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && durable {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
		return err
	}
	if durable {
		return SyncDir(filepath.Dir(path))
	}
	return nil
}

// SyncDir makes the names in a directory, as they are now, outlive a power cut.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
