package runtime

import (
	"maps"
	"os"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"cale/runtime/resctrl"
	"cale/runtime/spec"
)

// recordVersion is the version of state.json's format.
const recordVersion = 1

// record is state.json. It is on disk before what it names exists.
type record struct {
	Format     int       `json:"format"`
	ID         string    `json:"id"`
	Bundle     string    `json:"bundle"`
	Rootfs     string    `json:"rootfs"`
	Created    time.Time `json:"created"`
	UID        int       `json:"uid"` // linux.User of who made it
	CgroupPath string    `json:"cgroupPath"`
	NoCgroup   bool      `json:"noCgroup,omitempty"`
	// Unit is the systemd unit that has the group, and Slice what it lies in; empty without systemd's driver.
	Unit  string `json:"unit,omitempty"`
	Slice string `json:"slice,omitempty"`
	// Resctrl is the container's group of caches and memory bandwidth; zero without one.
	Resctrl resctrl.Group `json:"resctrl,omitzero"`
	Pid     int           `json:"pid,omitempty"`
	// PidStart is init's start time in clock ticks after boot: a pid alone may have come to mean another process.
	PidStart uint64 `json:"pidStart,omitempty"`
	BootID   string `json:"bootID,omitempty"`
	// Restored says that init came out of a checkpoint.
	Restored bool `json:"restored,omitempty"`
	// Stdio is what init got as its descriptors 0 to 2, as /proc names them: what a checkpoint has to be given again.
	Stdio [3]string `json:"stdio,omitzero"`
}

// noteStdio keeps the names of a container's streams; the record is still to be saved.
func (c *Container) noteStdio(files [3]*os.File) {
	for i, f := range files {
		c.rec.Stdio[i] = os.DevNull
		if f != nil {
			c.rec.Stdio[i] = fdName(os.Getpid(), int(f.Fd()))
		}
	}
}

// encode writes the record as package json would. That one prepares for a type by reflection, which a program that
// lives for milliseconds feels and a supervisor's memory keeps.
func (r *record) encode() []byte {
	b := make([]byte, 0, 512)
	b = strconv.AppendInt(append(b, `{"format":`...), int64(r.Format), 10)
	b = appendJSON(append(b, `,"id":`...), r.ID)
	b = appendJSON(append(b, `,"bundle":`...), r.Bundle)
	b = appendJSON(append(b, `,"rootfs":`...), r.Rootfs)
	b = r.Created.AppendFormat(append(b, `,"created":"`...), time.RFC3339Nano)
	b = strconv.AppendInt(append(b, `","uid":`...), int64(r.UID), 10)
	b = appendJSON(append(b, `,"cgroupPath":`...), r.CgroupPath)
	if r.NoCgroup {
		b = append(b, `,"noCgroup":true`...)
	}
	if r.Unit != "" {
		b = appendJSON(append(b, `,"unit":`...), r.Unit)
		b = appendJSON(append(b, `,"slice":`...), r.Slice)
	}
	if g := r.Resctrl; g.Dir != "" {
		b = appendJSON(append(b, `,"resctrl":{"Dir":`...), g.Dir)
		b = strconv.AppendBool(append(b, `,"Made":`...), g.Made)
		b = append(appendJSON(append(b, `,"Monitor":`...), g.Monitor), '}')
	}
	if r.Pid != 0 {
		b = strconv.AppendInt(append(b, `,"pid":`...), int64(r.Pid), 10)
	}
	if r.PidStart != 0 {
		b = strconv.AppendUint(append(b, `,"pidStart":`...), r.PidStart, 10)
	}
	if r.BootID != "" {
		b = appendJSON(append(b, `,"bootID":`...), r.BootID)
	}
	if r.Restored {
		b = append(b, `,"restored":true`...)
	}
	if r.Stdio[0] != "" {
		b = appendJSON(append(b, `,"stdio":[`...), r.Stdio[0])
		b = appendJSON(append(b, ','), r.Stdio[1])
		b = append(appendJSON(append(b, ','), r.Stdio[2]), ']')
	}
	return append(b, '}')
}

// decode reads what encode has written, for the same reason without package json. Keys it doesn't know are a later
// version's.
func (r *record) decode(raw []byte) error {
	var created string
	err := spec.Members(raw, func(key string, v spec.Value) {
		switch key {
		case "format":
			r.Format = v.Int()
		case "id":
			r.ID = v.Str()
		case "bundle":
			r.Bundle = v.Str()
		case "rootfs":
			r.Rootfs = v.Str()
		case "created":
			created = v.Str()
		case "uid":
			r.UID = v.Int()
		case "cgroupPath":
			r.CgroupPath = v.Str()
		case "noCgroup":
			r.NoCgroup = v.Bool()
		case "unit":
			r.Unit = v.Str()
		case "slice":
			r.Slice = v.Str()
		case "resctrl":
			v.Rare(&r.Resctrl)
		case "pid":
			r.Pid = v.Int()
		case "pidStart":
			r.PidStart = v.Uint()
		case "bootID":
			r.BootID = v.Str()
		case "restored":
			r.Restored = v.Bool()
		case "stdio":
			copy(r.Stdio[:], v.Strs())
		default:
			v.Skip()
		}
	})
	if err == nil && created != "" {
		r.Created, err = time.Parse(time.RFC3339Nano, created)
	}
	return err
}

// Indented is the state as JSON, as package json would indent it, and written by hand for the same reason as the record.
func (s *State) Indented() []byte {
	b := make([]byte, 0, 1024)
	b = appendJSON(append(b, "{\n  \"ociVersion\": "...), s.Version)
	b = appendJSON(append(b, ",\n  \"id\": "...), s.ID)
	b = strconv.AppendInt(append(b, ",\n  \"pid\": "...), int64(s.Pid), 10)
	b = appendJSON(append(b, ",\n  \"status\": "...), string(s.Status))
	b = appendJSON(append(b, ",\n  \"bundle\": "...), s.Bundle)
	b = appendJSON(append(b, ",\n  \"rootfs\": "...), s.Rootfs)
	b = s.Created.AppendFormat(append(b, ",\n  \"created\": \""...), time.RFC3339Nano)
	b = append(b, '"')
	if len(s.Annotations) > 0 {
		b = append(b, ",\n  \"annotations\": {"...)
		for i, key := range slices.Sorted(maps.Keys(s.Annotations)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSON(append(b, "\n    "...), key)
			b = appendJSON(append(b, ": "...), s.Annotations[key])
		}
		b = append(b, "\n  }"...)
	}
	b = appendJSON(append(b, ",\n  \"owner\": "...), s.Owner)
	return append(b, "\n}"...)
}

// appendJSON appends a string in JSON. What isn't UTF-8 can't be written in it and becomes U+FFFD, as with package json.
func appendJSON(b []byte, s string) []byte {
	b = append(b, '"')
	for _, c := range s {
		switch {
		case c == '"', c == '\\':
			b = append(b, '\\', byte(c))
		case c < ' ':
			const digits = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			b = utf8.AppendRune(b, c)
		}
	}
	return append(b, '"')
}
