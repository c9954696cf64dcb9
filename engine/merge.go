package engine

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"cale/image"
)

// mergeVolumes gives the clean absolute paths, each once. What isn't one is left out: it comes from image data.
func mergeVolumes(lists ...[]string) []string {
	var out []string
	seen := map[string]bool{}
	for _, l := range lists {
		for _, v := range l {
			if !strings.HasPrefix(v, "/") {
				v = "/" + v
			}
			if v = path.Clean(v); v != "/" && !seen[v] {
				seen[v] = true
				out = append(out, v)
			}
		}
	}
	slices.Sort(out)
	return out
}

// maxImagePorts bounds what the ranges of an image's ports are spelt out to: every port of every protocol, once.
const maxImagePorts = 3 << 16

func mergePorts(fromImage []string, s *Spec) []Port {
	var out []Port
	seen := map[Port]bool{}
	add := func(p Port) {
		if p.Protocol == "" {
			p.Protocol = "tcp"
		}
		if !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	spelt := 0
	for _, text := range fromImage {
		ports, err := parsePorts(text)
		if err != nil {
			continue // image data: what makes no sense is no port
		}
		// Nor may ranges that say the same again and again keep the engine busy.
		if spelt += len(ports); spelt > maxImagePorts {
			break
		}
		for _, p := range ports {
			add(p)
		}
	}
	for _, p := range s.Exposed {
		add(p)
	}
	for _, p := range s.Network.Publish {
		add(p.Port)
	}
	slices.SortFunc(out, func(a, b Port) int {
		if a.Number != b.Number {
			return int(a.Number) - int(b.Number)
		}
		return strings.Compare(a.Protocol, b.Protocol)
	})
	return out
}

// parsePorts reads "80", "80/udp" or "8000-8010/tcp".
func parsePorts(text string) ([]Port, error) {
	number, protocol, _ := strings.Cut(text, "/")
	if protocol == "" {
		protocol = "tcp"
	}
	protocol = strings.ToLower(protocol)
	if protocol != "tcp" && protocol != "udp" && protocol != "sctp" {
		return nil, fmt.Errorf("port %q: no such protocol", text)
	}
	lo, hi, isRange := strings.Cut(number, "-")
	first, err := strconv.ParseUint(lo, 10, 16)
	if err != nil || first == 0 {
		return nil, fmt.Errorf("port %q: not a port number", text)
	}
	last := first
	if isRange {
		if last, err = strconv.ParseUint(hi, 10, 16); err != nil || last < first {
			return nil, fmt.Errorf("port %q: not a port range", text)
		}
	}
	var ports []Port
	for n := first; n <= last; n++ {
		ports = append(ports, Port{Number: uint16(n), Protocol: protocol})
	}
	return ports, nil
}

// mergeHealth takes the client's values where it gave any, the image's where not.
func mergeHealth(s *Health, from *image.Healthcheck) *Health {
	var h Health
	if from != nil {
		h = Health{Test: from.Test, Interval: from.Interval, Timeout: from.Timeout, StartPeriod: from.StartPeriod,
			StartInterval: from.StartInterval, Retries: from.Retries}
	}
	if s != nil {
		if len(s.Test) > 0 {
			h.Test = s.Test
		}
		if s.Interval != 0 {
			h.Interval = s.Interval
		}
		if s.Timeout != 0 {
			h.Timeout = s.Timeout
		}
		if s.StartPeriod != 0 {
			h.StartPeriod = s.StartPeriod
		}
		if s.StartInterval != 0 {
			h.StartInterval = s.StartInterval
		}
		if s.Retries != 0 {
			h.Retries = s.Retries
		}
	}
	if len(h.Test) == 0 && h.Interval == 0 && h.Timeout == 0 && h.StartPeriod == 0 && h.Retries == 0 {
		return nil
	}
	return &h
}

func checkHealth(h *Health) error {
	if h == nil {
		return nil
	}
	if len(h.Test) > 0 {
		switch h.Test[0] {
		case "", "NONE", "CMD", "CMD-SHELL":
		default:
			return invalid("Unknown healthcheck type %q (expected 'CMD')", h.Test[0])
		}
	}
	const least = 1000 * 1000 // ns
	for _, d := range []struct {
		name string
		v    int64
	}{{"Interval", int64(h.Interval)}, {"Timeout", int64(h.Timeout)}, {"StartPeriod", int64(h.StartPeriod)}, {"StartInterval", int64(h.StartInterval)}} {
		if d.v != 0 && d.v < least {
			return invalid("%s in Healthcheck cannot be less than 1ms", d.name)
		}
	}
	if h.Retries < 0 {
		return invalid("Retries in Healthcheck cannot be negative")
	}
	return nil
}
