package option

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"cale/client"
)

// Env joins environment files and -e values, files first. A name alone takes
// its value from the command line's own environment; -e of a name that is not
// set there passes the name alone, which unsets it in the container.
func Env(files, values []string) ([]string, error) {
	env := []string{}
	for _, f := range files {
		lines, err := keyValueFile(f, os.LookupEnv)
		if err != nil {
			return nil, err
		}
		env = append(env, lines...)
	}
	for _, v := range values {
		name, _, ok := strings.Cut(v, "=")
		if name == "" {
			return nil, fmt.Errorf("invalid environment variable: %s", v)
		}
		if !ok {
			if value, set := os.LookupEnv(name); set {
				v = name + "=" + value
			}
		}
		env = append(env, v)
	}
	return env, nil
}

// Labels joins label files and -l values, files first.
func Labels(files, values []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, f := range files {
		lines, err := keyValueFile(f, nil)
		if err != nil {
			return nil, err
		}
		for k, v := range Map(lines) {
			labels[k] = v
		}
	}
	for _, v := range values {
		key, value, _ := strings.Cut(v, "=")
		if key == "" {
			return nil, fmt.Errorf("invalid label '%s': empty name", v)
		}
		labels[key] = value
	}
	return labels, nil
}

// keyValueFile reads KEY=VALUE lines; values are taken as they are, quotes and
// all. A name alone is looked up, or kept when lookup is nil.
func keyValueFile(path string, lookup func(string) (string, bool)) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []string
	s := bufio.NewScanner(f)
	s.Buffer(make([]byte, 0, 64<<10), 1<<20)
	for n := 1; s.Scan(); n++ {
		b := s.Bytes()
		if n == 1 {
			b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
		}
		if !utf8.Valid(b) {
			return nil, fmt.Errorf("invalid utf8 bytes at line %d of %s: %q", n, path, b)
		}
		line := strings.TrimLeftFunc(string(b), unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		name, _, ok := strings.Cut(line, "=")
		if strings.ContainsFunc(name, unicode.IsSpace) {
			return nil, fmt.Errorf("invalid line %d of %s: variable '%s' contains whitespaces", n, path, name)
		}
		if name == "" {
			return nil, fmt.Errorf("invalid line %d of %s: no variable name on line '%s'", n, path, line)
		}
		if !ok && lookup != nil {
			value, set := lookup(name)
			if !set {
				continue
			}
			line = name + "=" + value
		}
		lines = append(lines, line)
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return lines, nil
}

// Capabilities writes names of capabilities as the API does: upper case, with
// CAP_, in order, each once; ALL stands for all others.
func Capabilities(names []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, n := range names {
		n = strings.ToUpper(strings.TrimSpace(n))
		if n == "ALL" || n == "CAP_ALL" {
			return []string{"ALL"}
		}
		if !strings.HasPrefix(n, "CAP_") {
			n = "CAP_" + n
		}
		if !seen[n] {
			seen[n] = true
			out = append(out, n)
		}
	}
	sort.Strings(out)
	return out
}

// RestartPolicy reads no, always, unless-stopped, on-failure[:TIMES].
func RestartPolicy(s string) (client.RestartPolicy, error) {
	var p client.RestartPolicy
	if s == "" {
		return p, nil
	}
	name, times, ok := strings.Cut(s, ":")
	if name == "" {
		return p, fmt.Errorf("invalid restart policy format: no policy provided before colon")
	}
	p.Name = name
	if ok {
		n, err := strconv.Atoi(times)
		if err != nil {
			return p, fmt.Errorf("invalid restart policy format: maximum retry count must be an integer")
		}
		p.MaximumRetryCount = n
	}
	return p, nil
}

// Health is what the --health flags say.
type Health struct {
	Cmd                                           string
	Interval, Timeout, StartPeriod, StartInterval time.Duration
	Retries                                       int
	OnFailure                                     string // none, kill, restart, stop
	Disable                                       bool
}

// Config returns the health check of a container, nil for the image's.
func (h Health) Config() (*client.Healthcheck, error) {
	any := h.Cmd != "" || h.Interval != 0 || h.Timeout != 0 || h.StartPeriod != 0 || h.StartInterval != 0 || h.Retries != 0
	if h.Disable {
		if any {
			return nil, fmt.Errorf("--no-healthcheck conflicts with --health-* options")
		}
		return &client.Healthcheck{Test: []string{"NONE"}}, nil
	}
	if !any {
		return nil, nil
	}
	for _, d := range []struct {
		flag string
		d    time.Duration
	}{{"interval", h.Interval}, {"timeout", h.Timeout}, {"start-period", h.StartPeriod}, {"start-interval", h.StartInterval}} {
		if d.d < 0 {
			return nil, fmt.Errorf("--health-%s cannot be negative", d.flag)
		}
	}
	if h.Retries < 0 {
		return nil, fmt.Errorf("--health-retries cannot be negative")
	}
	c := &client.Healthcheck{Interval: int64(h.Interval), Timeout: int64(h.Timeout), StartPeriod: int64(h.StartPeriod),
		StartInterval: int64(h.StartInterval), Retries: h.Retries}
	if h.Cmd != "" {
		c.Test = []string{"CMD-SHELL", h.Cmd}
	}
	return c, nil
}

// GPUs reads --gpus: all, a number, or device=…,driver=…,capabilities=….
func GPUs(spec string) (client.DeviceRequest, error) {
	r := client.DeviceRequest{}
	parts, err := fields(spec)
	if err != nil {
		return r, err
	}
	for _, p := range parts {
		key, value, ok := strings.Cut(p, "=")
		if !ok {
			key, value = "count", p
		}
		switch strings.ToLower(key) {
		case "count":
			if value == "all" {
				r.Count = -1
			} else if r.Count, err = strconv.Atoi(value); err != nil {
				return r, fmt.Errorf("count must be an integer: %q", value)
			}
		case "driver":
			r.Driver = value
		case "device":
			r.DeviceIDs = strings.Split(value, ",")
		case "capabilities":
			r.Capabilities = [][]string{append(strings.Split(value, ","), "gpu")}
		case "options":
			r.Options = Map(strings.Split(value, ","))
		default:
			return r, fmt.Errorf("unexpected key '%s' in '%s'", key, p)
		}
	}
	if r.Count == 0 && r.DeviceIDs == nil {
		r.Count = 1
	}
	if r.Capabilities == nil {
		r.Capabilities = [][]string{{"gpu"}}
	}
	return r, nil
}

// Network is one --network: where to attach and with which settings.
type Network struct {
	Name     string
	Endpoint client.EndpointSettings
	Settings bool // more than the name was given
}

// ParseNetwork reads NAME or name=NAME,alias=…,ip=…,….
func ParseNetwork(spec string) (Network, error) {
	n := Network{Name: spec}
	if !strings.Contains(spec, "=") {
		if spec == "" {
			return n, fmt.Errorf("no name set for network")
		}
		return n, nil
	}
	parts, err := fields(spec)
	if err != nil {
		return n, err
	}
	n.Name, n.Settings = "", true
	ipam := &client.EndpointIPAM{}
	for _, p := range parts {
		key, value, ok := strings.Cut(p, "=")
		if !ok {
			return n, fmt.Errorf("invalid field %s in network option", p)
		}
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "name":
			n.Name = value
		case "alias":
			n.Endpoint.Aliases = append(n.Endpoint.Aliases, value)
		case "ip":
			ipam.IPv4Address, n.Endpoint.IPAMConfig = value, ipam
		case "ip6":
			ipam.IPv6Address, n.Endpoint.IPAMConfig = value, ipam
		case "link-local-ip":
			ipam.LinkLocalIPs, n.Endpoint.IPAMConfig = append(ipam.LinkLocalIPs, value), ipam
		case "mac-address":
			if _, err := net.ParseMAC(value); err != nil {
				return n, fmt.Errorf("%s is not a valid mac address", value)
			}
			n.Endpoint.MacAddress = value
		case "driver-opt":
			if n.Endpoint.DriverOpts == nil {
				n.Endpoint.DriverOpts = map[string]string{}
			}
			k, v, _ := strings.Cut(value, "=")
			n.Endpoint.DriverOpts[k] = v
		case "gw-priority":
			if n.Endpoint.GwPriority, err = strconv.Atoi(value); err != nil {
				return n, fmt.Errorf("invalid gw-priority (%s): must be an integer", value)
			}
		default:
			return n, fmt.Errorf("invalid field key %s in network option", key)
		}
	}
	if n.Name == "" {
		return n, fmt.Errorf("network name is missing in %q", spec)
	}
	return n, nil
}
