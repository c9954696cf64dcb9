package image

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Platform is what an image runs on, in Go's names for systems and machines.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
	OSVersion    string `json:"os.version,omitempty"`
}

// ErrNoPlatform is the class of "this image is not built for that platform".
var ErrNoPlatform = errors.New("no matching manifest")

// Host is the platform of this machine.
func Host() Platform {
	p := Platform{OS: "linux", Architecture: runtime.GOARCH}
	switch p.Architecture {
	case "arm64":
		p.Variant = "v8"
	case "arm":
		p.Variant = "v7"
		var u unix.Utsname
		if unix.Uname(&u) == nil {
			switch m := unix.ByteSliceToString(u.Machine[:]); {
			case strings.HasPrefix(m, "armv5"):
				p.Variant = "v5"
			case strings.HasPrefix(m, "armv6"):
				p.Variant = "v6"
			}
		}
	}
	return p
}

// ParsePlatform reads "os[/architecture[/variant]]" or an architecture alone
// (of linux), with the usual other names of machines (x86_64, aarch64, armhf).
func ParsePlatform(s string) (Platform, error) {
	bad := func() (Platform, error) {
		return Platform{}, fmt.Errorf("invalid platform %q: want os/architecture[/variant]", clip(s))
	}
	parts := strings.Split(strings.ToLower(s), "/")
	if len(parts) > 3 {
		return bad()
	}
	for _, p := range parts {
		if p == "" || len(p) > 64 || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
			return bad()
		}
	}
	switch len(parts) {
	case 1:
		switch parts[0] {
		case "linux", "windows", "darwin", "freebsd":
			h := Host()
			return Platform{OS: parts[0], Architecture: h.Architecture, Variant: h.Variant}, nil
		}
		p := Platform{OS: "linux", Architecture: parts[0]}.normal()
		if !slices.Contains(architectures, p.Architecture) {
			return Platform{}, fmt.Errorf("%q: unknown operating system or architecture", clip(s))
		}
		return p, nil
	case 2:
		return Platform{OS: parts[0], Architecture: parts[1]}.normal(), nil
	}
	return Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}.normal(), nil
}

// architectures are those that can be named alone.
var architectures = []string{"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x", "wasm"}

// String is "os/architecture[/variant]".
func (p Platform) String() string {
	if p.OS == "" && p.Architecture == "" {
		return "unknown"
	}
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// normal maps other names onto Go's and fills the variant that none means.
func (p Platform) normal() Platform {
	p.OS, p.Architecture, p.Variant = strings.ToLower(p.OS), strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	if p.OS == "macos" {
		p.OS = "darwin"
	}
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "i386", "i486", "i586", "i686", "x86":
		p.Architecture = "386"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	if len(p.Variant) == 1 && p.Variant[0] >= '0' && p.Variant[0] <= '9' {
		p.Variant = "v" + p.Variant
	}
	switch {
	case p.Architecture == "arm" && p.Variant == "":
		p.Variant = "v7"
	case p.Architecture == "arm64" && p.Variant == "":
		p.Variant = "v8"
	case p.Architecture == "amd64" && p.Variant == "v1":
		p.Variant = ""
	}
	return p
}

// Score tells how well something built for offer runs on p: 0 not at all,
// else more is better. Lower variants of one machine run on higher ones; 32
// bit programs run on the 64 bit machine, but only if nothing better exists.
func (p Platform) Score(offer Platform) int {
	p, offer = p.normal(), offer.normal()
	if p.OS != offer.OS || offer.Architecture == "" {
		return 0
	}
	have, want := variantNumber(p), variantNumber(offer)
	switch {
	case p.Architecture == offer.Architecture:
		if p.Variant == offer.Variant {
			return 200
		}
		if have == 0 || want == 0 || want > have {
			return 0
		}
		return 100 + want
	case p.Architecture == "amd64" && offer.Architecture == "386":
		return 1
	case p.Architecture == "arm64" && offer.Architecture == "arm" && want > 0 && want <= 8:
		return want
	}
	return 0
}

// variantNumber is the N of "vN", 1 where none means the base, or 0.
func variantNumber(p Platform) int {
	if p.Variant == "" {
		return 1
	}
	v := p.Variant
	if len(v) == 2 && v[0] == 'v' && v[1] >= '1' && v[1] <= '9' {
		return int(v[1] - '0')
	}
	return 0
}
