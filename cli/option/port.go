package option

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"cale/client"
)

// Ports reads published ports (-p): [[IP:][HOSTPORT]:]PORT[/PROTOCOL] with
// ranges, or target=PORT,published=PORT,protocol=…. It returns the container's
// ports and, for each, where it is published.
func Ports(specs []string) (map[string]struct{}, map[string][]client.PortBinding, error) {
	exposed := map[string]struct{}{}
	bindings := map[string][]client.PortBinding{}
	for _, spec := range specs {
		if strings.Contains(spec, "=") {
			short, err := longPort(spec)
			if err != nil {
				return nil, nil, err
			}
			spec = short
		}
		if err := publish(spec, exposed, bindings); err != nil {
			return nil, nil, err
		}
	}
	return exposed, bindings, nil
}

func publish(spec string, exposed map[string]struct{}, bindings map[string][]client.PortBinding) error {
	ip, hostPort, containerPort := splitPort(spec)
	containerPort, proto, _ := strings.Cut(containerPort, "/")
	if proto == "" {
		proto = "tcp"
	}
	proto = strings.ToLower(proto)
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return fmt.Errorf("invalid proto: %s", proto)
	}
	if ip != "" {
		bare := strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]")
		if _, err := netip.ParseAddr(bare); err != nil {
			return fmt.Errorf("invalid IP address: %s", ip)
		}
		ip = bare
	}
	if containerPort == "" {
		return fmt.Errorf("no port specified: %s<empty>", spec)
	}
	first, last, err := portRange(containerPort)
	if err != nil {
		return fmt.Errorf("invalid containerPort: %s", containerPort)
	}
	hostFirst, hostLast := 0, 0
	if hostPort != "" {
		if hostFirst, hostLast, err = portRange(hostPort); err != nil {
			return fmt.Errorf("invalid hostPort: %s", hostPort)
		}
		// One container port may be given a range to choose from.
		if hostLast-hostFirst != last-first && first != last {
			return fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", containerPort, hostPort)
		}
	}
	for p := first; p <= last; p++ {
		key := strconv.Itoa(p) + "/" + proto
		b := client.PortBinding{HostIP: ip}
		switch {
		case hostPort == "":
		case first == last && hostFirst != hostLast:
			b.HostPort = hostPort
		default:
			b.HostPort = strconv.Itoa(hostFirst + p - first)
		}
		exposed[key] = struct{}{}
		bindings[key] = append(bindings[key], b)
	}
	return nil
}

// splitPort takes IP:HOST:CONTAINER apart from the right, since an address may
// hold colons.
func splitPort(spec string) (ip, host, container string) {
	i := strings.LastIndexByte(spec, ':')
	if i < 0 {
		return "", "", spec
	}
	container, rest := spec[i+1:], spec[:i]
	i = strings.LastIndexByte(rest, ':')
	if i < 0 {
		return "", rest, container
	}
	return rest[:i], rest[i+1:], container
}

func portRange(s string) (first, last int, err error) {
	a, b, isRange := strings.Cut(s, "-")
	if first, err = port(a); err != nil {
		return 0, 0, err
	}
	if !isRange {
		return first, first, nil
	}
	if last, err = port(b); err != nil {
		return 0, 0, err
	}
	if last < first {
		return 0, 0, fmt.Errorf("invalid range: %s", s)
	}
	return first, last, nil
}

func port(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	return int(n), err
}

func longPort(spec string) (string, error) {
	parts, err := fields(spec)
	if err != nil {
		return "", err
	}
	target, published, proto := "", "", "tcp"
	for _, p := range parts {
		key, value, ok := strings.Cut(p, "=")
		if !ok || value == "" {
			return "", fmt.Errorf("invalid publish opts format (should be name=value but got '%s')", p)
		}
		switch strings.ToLower(key) {
		case "target":
			target = value
		case "published":
			published = value
		case "protocol":
			proto = value
		case "mode":
			if value != "ingress" && value != "host" {
				return "", fmt.Errorf("invalid publish mode %q: must be ingress or host", value)
			}
		default:
			return "", fmt.Errorf("invalid publish key %q in '%s'", key, spec)
		}
	}
	if target == "" {
		return "", fmt.Errorf("invalid publish option '%s': target is missing", spec)
	}
	return published + ":" + target + "/" + proto, nil
}

// Expose reads --expose: PORT[-PORT][/PROTOCOL].
func Expose(specs []string, into map[string]struct{}) error {
	for _, s := range specs {
		ports, proto, _ := strings.Cut(s, "/")
		if proto == "" {
			proto = "tcp"
		}
		first, last, err := portRange(ports)
		if err != nil || strings.Contains(s, ":") {
			return fmt.Errorf("invalid port format for --expose: %s", s)
		}
		for p := first; p <= last; p++ {
			into[strconv.Itoa(p)+"/"+strings.ToLower(proto)] = struct{}{}
		}
	}
	return nil
}
