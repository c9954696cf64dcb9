package option

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"cale/client"

	"github.com/docker/go-units"
)

// Volumes reads -v: a container's path alone is a volume without a name,
// SOURCE:TARGET[:OPTIONS] is a bind or a named volume. A source that begins
// with a dot is relative to the working directory.
func Volumes(specs []string) (anonymous map[string]struct{}, binds []string, err error) {
	anonymous = map[string]struct{}{}
	for _, s := range specs {
		source, rest, ok := strings.Cut(s, ":")
		if !ok {
			if s == "" || s == "/" {
				return nil, nil, fmt.Errorf("invalid volume specification: '%s'", s)
			}
			anonymous[s] = struct{}{}
			continue
		}
		if source == "" || rest == "" {
			return nil, nil, fmt.Errorf("invalid volume specification: '%s'", s)
		}
		if strings.HasPrefix(source, ".") {
			if source, err = filepath.Abs(source); err != nil {
				return nil, nil, err
			}
		}
		binds = append(binds, source+":"+rest)
	}
	return anonymous, binds, nil
}

// Tmpfs reads --tmpfs: PATH[:OPTIONS].
func Tmpfs(specs []string) map[string]string {
	m := map[string]string{}
	for _, s := range specs {
		path, options, _ := strings.Cut(s, ":")
		m[path] = options
	}
	return m
}

// Mount reads --mount: type=bind|volume|tmpfs|image,source=…,target=…,….
func Mount(spec string) (client.Mount, error) {
	m := client.Mount{Type: "volume"}
	parts, err := fields(spec)
	if err != nil {
		return m, err
	}
	bind, volume, image, tmpfs := &client.BindOptions{}, &client.VolumeOptions{}, &client.ImageOptions{}, &client.TmpfsOptions{}
	var hasBind, hasVolume, hasImage, hasTmpfs bool
	driver := func() *client.VolumeDriver {
		if volume.DriverConfig == nil {
			volume.DriverConfig = &client.VolumeDriver{}
		}
		return volume.DriverConfig
	}
	for _, p := range parts {
		key, value, ok := strings.Cut(p, "=")
		key = strings.ToLower(key)
		if !ok {
			switch key {
			case "readonly", "ro", "volume-nocopy", "bind-nonrecursive":
				value = "true"
			default:
				return m, fmt.Errorf("invalid field '%s' must be a key=value pair", p)
			}
		}
		switch {
		case strings.HasPrefix(key, "bind-"):
			hasBind = true
		case strings.HasPrefix(key, "volume-"):
			hasVolume = true
		case strings.HasPrefix(key, "image-"):
			hasImage = true
		case strings.HasPrefix(key, "tmpfs-"):
			hasTmpfs = true
		}
		switch key {
		case "type":
			m.Type = strings.ToLower(value)
		case "source", "src":
			m.Source = value
		case "target", "dst", "destination":
			m.Target = value
		case "readonly", "ro":
			m.ReadOnly, err = boolean(key, value)
		case "consistency":
			m.Consistency = strings.ToLower(value)
		case "bind-propagation":
			bind.Propagation = strings.ToLower(value)
		case "bind-nonrecursive":
			bind.NonRecursive, err = boolean(key, value)
		case "bind-recursive":
			switch value {
			case "enabled":
			case "disabled":
				bind.NonRecursive = true
			case "writable":
				bind.ReadOnlyNonRecursive = true
			case "readonly":
				bind.ReadOnlyForceRecursive = true
			default:
				err = fmt.Errorf("invalid value for bind-recursive: %s (must be one of enabled, disabled, writable, readonly)", value)
			}
		case "bind-create-src", "bind-create-mountpoint":
			bind.CreateMountpoint, err = boolean(key, value)
		case "volume-subpath":
			volume.Subpath = value
		case "volume-nocopy":
			volume.NoCopy, err = boolean(key, value)
		case "volume-label":
			if volume.Labels == nil {
				volume.Labels = map[string]string{}
			}
			k, v, _ := strings.Cut(value, "=")
			volume.Labels[k] = v
		case "volume-driver":
			driver().Name = value
		case "volume-opt":
			d := driver()
			if d.Options == nil {
				d.Options = map[string]string{}
			}
			k, v, _ := strings.Cut(value, "=")
			d.Options[k] = v
		case "image-subpath":
			image.Subpath = value
		case "tmpfs-size":
			if tmpfs.SizeBytes, err = units.RAMInBytes(value); err != nil {
				err = fmt.Errorf("invalid value for %s: %s", key, value)
			}
		case "tmpfs-mode":
			mode, perr := strconv.ParseUint(value, 8, 32)
			if perr != nil {
				err = fmt.Errorf("invalid value for %s: %s", key, value)
			}
			tmpfs.Mode = uint32(mode)
		default:
			err = fmt.Errorf("unexpected key '%s' in '%s'", key, p)
		}
		if err != nil {
			return m, err
		}
	}
	if m.Target == "" {
		return m, fmt.Errorf("target is required in mount %q", spec)
	}
	for _, group := range []struct {
		given bool
		kind  string
	}{{hasBind, "bind"}, {hasVolume, "volume"}, {hasImage, "image"}, {hasTmpfs, "tmpfs"}} {
		if group.given && m.Type != group.kind {
			return m, fmt.Errorf("cannot mix '%s-*' options with mount type '%s'", group.kind, m.Type)
		}
	}
	if hasBind {
		m.BindOptions = bind
	}
	if hasVolume {
		m.VolumeOptions = volume
	}
	if hasImage {
		m.ImageOptions = image
	}
	if hasTmpfs {
		m.TmpfsOptions = tmpfs
	}
	if m.Type == "bind" && strings.HasPrefix(m.Source, ".") {
		if m.Source, err = filepath.Abs(m.Source); err != nil {
			return m, err
		}
	}
	if m.Type == "bind" && m.ReadOnly && bind.ReadOnlyForceRecursive && bind.Propagation != "" && bind.Propagation != "rprivate" {
		return m, fmt.Errorf("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate'")
	}
	return m, nil
}

func boolean(key, value string) (bool, error) {
	b, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("invalid value for %s: %s", key, value)
	}
	return b, nil
}

// Device reads --device: PATH[:CONTAINERPATH[:rwm]] or a CDI name
// (vendor/class=name), which has no device path.
func Device(s string) (d client.Device, cdi bool, err error) {
	if !strings.HasPrefix(s, "/") && strings.Contains(s, "=") {
		return d, true, nil
	}
	parts := strings.Split(s, ":")
	d = client.Device{PathOnHost: parts[0], PathInContainer: parts[0], CgroupPermissions: "rwm"}
	switch len(parts) {
	case 3:
		d.PathInContainer, d.CgroupPermissions = parts[1], parts[2]
		if !deviceMode(parts[2]) {
			return d, false, fmt.Errorf("invalid device mode: %s", parts[2])
		}
	case 2:
		if deviceMode(parts[1]) {
			d.CgroupPermissions = parts[1]
		} else {
			d.PathInContainer = parts[1]
		}
	case 1:
	default:
		return d, false, fmt.Errorf("invalid device specification: %s", s)
	}
	if d.PathOnHost == "" {
		return d, false, fmt.Errorf("invalid device specification: %s", s)
	}
	return d, false, nil
}

func deviceMode(s string) bool {
	seen := ""
	for _, c := range s {
		if !strings.ContainsRune("rwm", c) || strings.ContainsRune(seen, c) {
			return false
		}
		seen += string(c)
	}
	return s != ""
}

// Throttle reads PATH:RATE; bytes takes units on the rate.
func Throttle(s string, bytes bool) (client.ThrottleDevice, error) {
	path, rate, ok := strings.Cut(s, ":")
	if !ok || rate == "" {
		return client.ThrottleDevice{}, fmt.Errorf("bad format: %s", s)
	}
	if !strings.HasPrefix(path, "/dev/") {
		return client.ThrottleDevice{}, fmt.Errorf("bad format for device path: %s", s)
	}
	if bytes {
		n, err := units.RAMInBytes(rate)
		if err != nil || n < 0 {
			return client.ThrottleDevice{}, fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb", s)
		}
		return client.ThrottleDevice{Path: path, Rate: uint64(n)}, nil
	}
	n, err := strconv.ParseUint(rate, 10, 64)
	if err != nil {
		return client.ThrottleDevice{}, fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>. Number must be a positive integer", s)
	}
	return client.ThrottleDevice{Path: path, Rate: n}, nil
}

// Weight reads PATH:WEIGHT.
func Weight(s string) (client.WeightDevice, error) {
	path, weight, ok := strings.Cut(s, ":")
	n, err := strconv.ParseUint(weight, 10, 16)
	if !ok || err != nil || !strings.HasPrefix(path, "/dev/") || n > 0 && (n < 10 || n > 1000) {
		return client.WeightDevice{}, fmt.Errorf("invalid weight for device: %s", s)
	}
	return client.WeightDevice{Path: path, Weight: uint16(n)}, nil
}

// SeccompProfile reads the file of a seccomp=FILE security option, since the
// engine may not see the user's files the same way.
func SeccompProfile(value string) (string, error) {
	switch value {
	case "unconfined", "builtin", "":
		return value, nil
	}
	b, err := os.ReadFile(value)
	if err != nil {
		return "", fmt.Errorf("opening seccomp profile (%s) failed: %w", value, err)
	}
	return string(b), nil
}
