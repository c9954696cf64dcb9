package criu

import (
	"fmt"

	"cale/wire"
)

// Type is what a request asks for, and its answer answers (criu_req_type).
type Type uint32

// The types of requests this package sends.
const (
	Dump         Type = 1
	Restore      Type = 2
	Check        Type = 3
	PreDump      Type = 4
	notify       Type = 6
	FeatureCheck Type = 9
	Version      Type = 10
)

func (t Type) String() string {
	switch t {
	case Dump:
		return "DUMP"
	case Restore:
		return "RESTORE"
	case Check:
		return "CHECK"
	case PreDump:
		return "PRE_DUMP"
	case notify:
		return "NOTIFY"
	case FeatureCheck:
		return "FEATURE_CHECK"
	case Version:
		return "VERSION"
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// CgroupsMode is how CRIU treats control groups (criu_cg_mode).
type CgroupsMode uint32

// The modes by their names on the command line; "" is CgroupsDefault.
const (
	CgroupsIgnore  CgroupsMode = 0
	CgroupsSoft    CgroupsMode = 3
	CgroupsFull    CgroupsMode = 4
	CgroupsStrict  CgroupsMode = 5
	CgroupsDefault CgroupsMode = 6
)

// ParseCgroupsMode reads a mode's name.
func ParseCgroupsMode(name string) (CgroupsMode, error) {
	switch name {
	case "":
		return CgroupsDefault, nil
	case "ignore":
		return CgroupsIgnore, nil
	case "soft":
		return CgroupsSoft, nil
	case "full":
		return CgroupsFull, nil
	case "strict":
		return CgroupsStrict, nil
	}
	return 0, fmt.Errorf("invalid manage-cgroups-mode value %q: use soft, full, strict or ignore", name)
}

// Pair is a key and what CRIU is to take for it: an external mount, a control group, an interface.
type Pair struct{ Key, Value string }

// Namespace is one to join instead of one from the images.
type Namespace struct{ Type, File string }

// InheritFD is a descriptor of CRIU's process that takes the place of what the images call Key.
type InheritFD struct {
	Key string
	FD  int
}

// Options are the part of criu_opts that a container runtime uses.
type Options struct {
	Pid               int
	Root              string
	LogLevel          int
	LogFile           string
	ParentImage       string
	ConfigFile        string
	FreezeCgroup      string
	LSMProfile        string
	LSMMountContext   string
	PageServerAddress string
	PageServerPort    int
	EmptyNS           uint32 // CLONE_NEW*
	CgroupsMode       CgroupsMode
	WorkDir           bool // the log goes to Config.WorkDir
	NftablesLock      bool // connections are held by nftables, not by the program iptables-restore

	LeaveRunning, ExtUnixSk, TCPEstablished, TCPSkipInFlight bool
	EvasiveDevices, ShellJob, FileLocks, NotifyScripts       bool
	TrackMem, AutoDedup, LinkRemap, RestoreSibling           bool
	LazyPages, OrphanPTSMaster                               bool

	ExternalMounts []Pair
	CgroupRoots    []Pair // by controller
	InheritFDs     []InheritFD
	External       []string
	JoinNamespaces []Namespace
}

// append appends the wire form of criu_opts.
func (o *Options) append(b []byte) []byte {
	b = wire.AppendNum(b, 1, imagesFD)
	b = wire.AppendUint(b, 2, uint64(o.Pid))
	b = wire.AppendBool(b, 3, o.LeaveRunning)
	b = wire.AppendBool(b, 4, o.ExtUnixSk)
	b = wire.AppendBool(b, 5, o.TCPEstablished)
	b = wire.AppendBool(b, 6, o.EvasiveDevices)
	b = wire.AppendBool(b, 7, o.ShellJob)
	b = wire.AppendBool(b, 8, o.FileLocks)
	b = wire.AppendUint(b, 9, uint64(o.LogLevel))
	b = wire.AppendString(b, 10, o.LogFile)
	if o.PageServerAddress != "" {
		ps := wire.AppendString(nil, 1, o.PageServerAddress)
		b = wire.AppendBytes(b, 11, wire.AppendUint(ps, 2, uint64(o.PageServerPort)))
	}
	b = wire.AppendBool(b, 12, o.NotifyScripts)
	b = wire.AppendString(b, 13, o.Root)
	b = wire.AppendString(b, 14, o.ParentImage)
	b = wire.AppendBool(b, 15, o.TrackMem)
	b = wire.AppendBool(b, 16, o.AutoDedup)
	if o.WorkDir {
		b = wire.AppendNum(b, 17, workFD)
	}
	b = wire.AppendBool(b, 18, o.LinkRemap)
	for _, m := range o.ExternalMounts {
		b = wire.AppendBytes(b, 23, m.append(nil))
	}
	b = wire.AppendBool(b, 24, true) // manage_cgroups: the mode, 34, says more
	for _, r := range o.CgroupRoots {
		b = wire.AppendBytes(b, 25, r.append(nil))
	}
	b = wire.AppendBool(b, 26, o.RestoreSibling)
	for _, i := range o.InheritFDs {
		fd := wire.AppendBytes(nil, 1, []byte(i.Key))
		b = wire.AppendBytes(b, 27, wire.AppendNum(fd, 2, uint64(i.FD)))
	}
	b = wire.AppendNum(b, 34, uint64(o.CgroupsMode))
	for _, e := range o.External {
		b = wire.AppendBytes(b, 37, []byte(e))
	}
	b = wire.AppendUint(b, 38, uint64(o.EmptyNS))
	for _, n := range o.JoinNamespaces {
		b = wire.AppendBytes(b, 39, (&Pair{n.Type, n.File}).append(nil))
	}
	b = wire.AppendString(b, 44, o.FreezeCgroup)
	b = wire.AppendBool(b, 46, o.TCPSkipInFlight)
	b = wire.AppendBool(b, 48, o.LazyPages)
	b = wire.AppendBool(b, 50, o.OrphanPTSMaster)
	b = wire.AppendString(b, 51, o.ConfigFile)
	b = wire.AppendString(b, 53, o.LSMProfile)
	b = wire.AppendString(b, 63, o.LSMMountContext)
	if o.NftablesLock {
		b = wire.AppendNum(b, 64, 2) // criu_network_lock_method NFTABLES
	}
	return b
}

// append appends a pair: all messages of two strings have them as fields 1 and 2.
func (p *Pair) append(b []byte) []byte {
	return wire.AppendBytes(wire.AppendBytes(b, 1, []byte(p.Key)), 2, []byte(p.Value))
}

// Features are what a machine may lack (criu_features).
type Features struct{ MemTrack, LazyPages bool }

// Request is criu_req.
type Request struct {
	Type     Type
	Options  *Options // nil for types that take none
	Features Features // what a FeatureCheck asks about
}

// append appends the wire form.
func (r *Request) append(b []byte) []byte {
	b = wire.AppendNum(b, 1, uint64(r.Type))
	if r.Options != nil {
		b = wire.AppendBytes(b, 2, r.Options.append(nil))
	}
	if r.Type == FeatureCheck {
		f := wire.AppendBool(nil, 1, r.Features.MemTrack)
		b = wire.AppendBytes(b, 5, wire.AppendBool(f, 2, r.Features.LazyPages))
	}
	return b
}

// appendNotified appends the answer to a notification.
func appendNotified(b []byte, ok bool) []byte {
	b = wire.AppendNum(b, 1, uint64(notify))
	var v uint64
	if ok {
		v = 1
	}
	return wire.AppendNum(b, 3, v)
}

// Response is criu_resp.
type Response struct {
	Type    Type
	Success bool
	Errno   int
	Message string // CRIU's first error, or ""
	// Script and Pid are a notification's; Pid is also that of what was restored.
	Script   string
	Pid      int
	Features Features
	// Version is 10000 times the major and 100 times the minor version, plus the sublevel.
	Version int
}

// unmarshal decodes b.
func (r *Response) unmarshal(b []byte) error {
	return wire.Each(b, func(f wire.Field) error {
		switch {
		case f.Type == wire.Varint:
			switch f.ID {
			case 1:
				r.Type = Type(f.Num)
			case 2:
				r.Success = f.Num != 0
			case 7:
				r.Errno = int(int32(f.Num))
			}
		case f.Type != wire.Bytes:
		case f.ID == 4: // criu_restore_resp
			return wire.Each(f.Data, func(f wire.Field) error {
				number(f, 1, &r.Pid)
				return nil
			})
		case f.ID == 5: // criu_notify
			return wire.Each(f.Data, func(f wire.Field) error {
				if f.ID == 1 && f.Type == wire.Bytes {
					r.Script = string(f.Data)
				}
				number(f, 2, &r.Pid)
				return nil
			})
		case f.ID == 8: // criu_features
			return wire.Each(f.Data, func(f wire.Field) error {
				if f.Type == wire.Varint && f.ID == 1 {
					r.Features.MemTrack = f.Num != 0
				}
				if f.Type == wire.Varint && f.ID == 2 {
					r.Features.LazyPages = f.Num != 0
				}
				return nil
			})
		case f.ID == 9:
			r.Message = string(f.Data)
		case f.ID == 10: // criu_version
			var major, minor, sub int
			err := wire.Each(f.Data, func(f wire.Field) error {
				number(f, 1, &major)
				number(f, 2, &minor)
				number(f, 4, &sub)
				return nil
			})
			r.Version = major*10000 + minor*100 + sub
			return err
		}
		return nil
	})
}

func number(f wire.Field, id int, p *int) {
	if f.ID == id && f.Type == wire.Varint {
		*p = int(int32(f.Num))
	}
}
