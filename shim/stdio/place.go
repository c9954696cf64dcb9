package stdio

import "os"

// Place is where a socket's file lies. A shim may end after another has taken its path: Remove takes away the file it
// was made for and no other.
type Place struct {
	path string
	file os.FileInfo
}

// PlaceOf notes the file that is at path now.
func PlaceOf(path string) Place {
	file, err := os.Lstat(path)
	if err != nil {
		return Place{}
	}
	return Place{path, file}
}

// Remove removes the file if it is still there.
func (p Place) Remove() {
	if p.file == nil {
		return
	}
	if now, err := os.Lstat(p.path); err == nil && os.SameFile(now, p.file) {
		os.Remove(p.path)
	}
}
