package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Object decodes an object of the API for templates: numbers without a point
// are integers, maps of strings are such, and fields that the API leaves out
// when they are empty are there with an empty value, so that
// {{if .State.Health}} and {{index .Config.Labels "x"}} work as with Docker's
// typed objects.
func Object(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("the engine's answer is not JSON: %w", err)
	}
	v = convert("", v)
	if m, ok := v.(map[string]any); ok {
		for path, fields := range optional {
			fill(m, path, fields)
		}
		if id, ok := m["Id"]; ok && m["ID"] == nil {
			m["ID"] = id
		}
	}
	return v, nil
}

// Info adds to the engine's answer to info what templates written for Docker
// name: fields that are left out when they are empty, and those that have
// another name in Docker's program than in the API. Any other name that the
// answer has not is a mistake in the template.
func Info(v any) any {
	m, ok := v.(map[string]any)
	if !ok {
		return v
	}
	for name, field := range map[string]string{"CPUCfsPeriod": "CpuCfsPeriod", "CPUCfsQuota": "CpuCfsQuota", "HTTPProxy": "HttpProxy", "HTTPSProxy": "HttpsProxy"} {
		m[name] = m[field]
	}
	for _, name := range []string{"CgroupVersion", "ClientErrors", "ClientInfo", "Containerd", "DefaultAddressPools", "DiscoveredDevices", "FirewallBackend", "NRI",
		"ProductLicense", "ServerErrors", "SystemStatus"} {
		if _, ok := m[name]; !ok {
			m[name] = nil
		}
	}
	return m
}

// stringMaps are the fields that are maps of strings even when empty.
var stringMaps = map[string]bool{"Labels": true, "Options": true, "Annotations": true, "Sysctls": true, "Tmpfs": true, "StorageOpt": true, "DriverOpts": true}

// optional are fields that the API may leave out, by the object that holds
// them.
var optional = map[string][]string{
	"": {"SizeRw", "SizeRootFs", "GraphDriver", "RepoTags", "RepoDigests", "Comment", "Author", "Parent", "DockerVersion", "VirtualSize",
		"UsageData", "CreatedAt", "Status", "Image", "ImageManifestDescriptor", "Variant", "OsVersion", "Descriptor", "Manifests"},
	"State": {"Health", "Error", "OOMKilled", "Dead"},
	"HostConfig": {"Annotations", "StorageOpt", "Tmpfs", "Sysctls", "Runtime", "Mounts", "Init", "Umask", "MaskedPaths", "ReadonlyPaths", "PidsLimit",
		"OomKillDisable", "MemorySwappiness", "DeviceRequests"},
	"Config": {"ExposedPorts", "Healthcheck", "ArgsEscaped", "NetworkDisabled", "MacAddress", "OnBuild", "StopSignal", "StopTimeout", "Shell", "Volumes",
		"Labels", "Entrypoint", "Cmd", "Env", "User", "WorkingDir", "Hostname"},
	"NetworkSettings": {"IPAddress", "Gateway", "MacAddress", "Bridge", "SandboxID", "SandboxKey", "Ports", "Networks", "GlobalIPv6Address", "EndpointID"},
}

func fill(m map[string]any, path string, fields []string) {
	if path != "" {
		next, ok := m[path].(map[string]any)
		if !ok {
			return
		}
		m = next
	} else if _, ok := m["Id"]; !ok {
		return
	}
	for _, f := range fields {
		if _, ok := m[f]; ok {
			continue
		}
		if stringMaps[f] {
			m[f] = map[string]string(nil)
		} else {
			m[f] = nil
		}
	}
}

func convert(name string, v any) any {
	switch v := v.(type) {
	case json.Number:
		if !strings.ContainsAny(v.String(), ".eE") {
			if n, err := v.Int64(); err == nil {
				return n
			}
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = convert("", v[i])
		}
		return v
	case nil:
		if stringMaps[name] {
			return map[string]string(nil)
		}
		return nil
	case map[string]any:
		if stringMaps[name] {
			if m, ok := ofStrings(v); ok {
				return m
			}
		}
		for key := range v {
			v[key] = convert(key, v[key])
		}
		return v
	}
	return v
}

// ofStrings turns a map whose values are all strings into a map of strings.
func ofStrings(v map[string]any) (map[string]string, bool) {
	m := make(map[string]string, len(v))
	for k, value := range v {
		s, ok := value.(string)
		if !ok {
			return nil, false
		}
		m[k] = s
	}
	return m, true
}
