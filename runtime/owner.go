package runtime

import (
	"bytes"
	"io"
	"os"
	"strconv"
)

// maxPasswd bounds what is read of a user database: an image can't fill our memory.
const maxPasswd = 1 << 20

// passwdField finds an entry of passwd(5) by uid and returns one of its fields.
func passwdField(r io.Reader, uid uint32, field int) (string, bool) {
	data, _ := io.ReadAll(io.LimitReader(r, maxPasswd))
	want := []byte(strconv.FormatUint(uint64(uid), 10))
	for line := range bytes.Lines(data) {
		f := bytes.Split(bytes.TrimSpace(line), []byte(":"))
		if len(f) > field && len(f) > 2 && bytes.Equal(f[2], want) {
			return string(f[field]), true
		}
	}
	return "", false
}

// owner is the name of a user of the host, or its number.
func owner(uid int) string {
	if uid == 0 {
		return "root"
	}
	if f, err := os.Open("/etc/passwd"); err == nil {
		defer f.Close()
		if name, ok := passwdField(f, uint32(uid), 0); ok {
			return name
		}
	}
	return strconv.Itoa(uid)
}
