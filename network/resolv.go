package network

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
)

// DNS is the content of a resolv.conf.
type DNS struct {
	Servers []netip.Addr
	Search  []string
	Options []string
}

// Where the host's real name servers stand if resolv.conf only names
// systemd-resolved's stub on a loopback address.
var resolvPaths = []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}

// fallbackDNS serves containers of a host that has no name server they could
// reach; Docker uses the same ones.
var fallbackDNS = []netip.Addr{netip.AddrFrom4([4]byte{8, 8, 8, 8}), netip.AddrFrom4([4]byte{8, 8, 4, 4})}

// HostDNS reads the host's resolver configuration as a container can use it:
// without name servers on loopback addresses. If none is left, public ones
// take their place.
func HostDNS() (DNS, error) { return hostDNS(resolvPaths) }

func hostDNS(paths []string) (DNS, error) {
	var result DNS
	for i, path := range paths {
		d, err := readResolv(path)
		if err != nil {
			if os.IsNotExist(err) {
				continue
			}
			return DNS{}, fmt.Errorf("read the host's DNS configuration: %w", err)
		}
		usable := d.Servers[:0]
		for _, a := range d.Servers {
			// A link-local server's zone means nothing inside the container.
			if !a.IsLoopback() && a.Zone() == "" && !a.IsUnspecified() {
				usable = append(usable, a)
			}
		}
		d.Servers = usable
		if i == 0 {
			result = d
		}
		if len(usable) > 0 {
			result.Servers = usable
			return result, nil
		}
	}
	result.Servers = append([]netip.Addr(nil), fallbackDNS...)
	return result, nil
}

func readResolv(path string) (DNS, error) {
	f, err := os.Open(path)
	if err != nil {
		return DNS{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return DNS{}, err
	}
	return ParseResolv(b), nil
}

// ParseResolv reads a resolv.conf, see resolv.conf(5). What it does not
// understand it skips, as resolvers do.
func ParseResolv(b []byte) DNS {
	var d DNS
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0][0] == '#' || f[0][0] == ';' {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil {
				d.Servers = append(d.Servers, a)
			}
		case "search", "domain":
			d.Search = append([]string(nil), f[1:]...) // the last one counts
		case "options":
			d.Options = append(d.Options, f[1:]...)
		}
	}
	return d
}

// WriteResolv returns a resolv.conf.
func WriteResolv(d DNS) []byte {
	var b bytes.Buffer
	for _, a := range d.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if len(d.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(d.Search, " "))
	}
	if len(d.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(d.Options, " "))
	}
	return b.Bytes()
}

// HostEntry is one line of a hosts file.
type HostEntry struct {
	Addr  netip.Addr
	Names []string
}

const loopbackHosts = "127.0.0.1\tlocalhost\n" +
	"::1\tlocalhost ip6-localhost ip6-loopback\n" +
	"fe00::\tip6-localnet\n" +
	"ff00::\tip6-mcastprefix\n" +
	"ff02::1\tip6-allnodes\n" +
	"ff02::2\tip6-allrouters\n"

// WriteHosts returns a container's hosts file: the loopback lines, then
// entries. Entries without an address or a name are left out.
func WriteHosts(entries []HostEntry) []byte {
	b := bytes.NewBufferString(loopbackHosts)
	for _, e := range entries {
		if e.Addr.IsValid() && len(e.Names) > 0 {
			fmt.Fprintf(b, "%s\t%s\n", e.Addr, strings.Join(e.Names, " "))
		}
	}
	return b.Bytes()
}
