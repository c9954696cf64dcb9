package build

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/platforms"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/docker/go-units"
	"github.com/moby/buildkit/client"

	"cale/image"
)

// maxHeader bounds a header's JSON, in bytes.
const maxHeader = 1 << 20

// asked is what POST /build asks for.
type asked struct {
	id, session, remote string
	attrs               map[string]string // of the Dockerfile front end
	export              client.ExportEntry
	caches              []client.CacheOptionsEntry
	inline              bool // put the cache's description into the image
	names               []string
	quiet, buildkit     bool
	allow               []string
	auth                *configfile.ConfigFile
}

// read reads the query and headers of POST /build (Docker Engine API 1.24 to
// 1.48, ImageBuild).
func read(r *http.Request) (*asked, error) {
	q := r.URL.Query()
	a := &asked{
		id: q.Get("buildid"), session: q.Get("session"), remote: q.Get("remote"), quiet: flag(q.Get("q")),
		buildkit: q.Get("version") == "2", attrs: map[string]string{},
	}
	if flag(q.Get("squash")) {
		return nil, invalid("squash is not built yet in Cale")
	}
	put := func(key, value string) {
		if value != "" {
			a.attrs[key] = value
		}
	}
	put("filename", q.Get("dockerfile"))
	put("target", q.Get("target"))
	for p := range strings.SplitSeq(q.Get("platform"), ",") {
		if _, err := platforms.Parse(p); err != nil && p != "" {
			return nil, invalid(err.Error())
		}
	}
	put("platform", q.Get("platform"))
	put("cgroup-parent", q.Get("cgroupparent"))
	for _, key := range []string{"memory", "memswap", "cpushares", "cpuperiod", "cpuquota", "cpusetcpus", "cpusetmems"} {
		if v := q.Get(key); v != "0" { // which is what clients send for none
			put(key, v)
		}
	}
	if v := q.Get("shmsize"); v != "0" {
		put("shm-size", v)
	}
	switch mode := q.Get("networkmode"); mode {
	case "", "default", "bridge":
	case "host", "none":
		a.attrs["force-network-mode"] = mode
		if mode == "host" {
			a.allow = append(a.allow, "network.host")
		}
	default:
		return nil, invalid(fmt.Sprintf("network mode %q is not supported by builds", mode))
	}
	if flag(q.Get("nocache")) {
		a.attrs["no-cache"] = ""
	}
	if flag(q.Get("pull")) {
		a.attrs["image-resolve-mode"] = "pull"
	}
	if err := a.lists(q); err != nil {
		return nil, err
	}
	if err := a.result(q); err != nil {
		return nil, err
	}
	return a, a.credentials(r)
}

// lists reads the parameters that are JSON.
func (a *asked) lists(q url.Values) error {
	var args map[string]*string
	var labels map[string]string
	var from []string
	var limits []units.Ulimit
	for key, v := range map[string]any{"buildargs": &args, "labels": &labels, "cachefrom": &from, "ulimits": &limits} {
		if s := q.Get(key); s != "" && json.Unmarshal([]byte(s), v) != nil {
			return invalid("error reading " + key + ": it is no JSON of its kind")
		}
	}
	for k, v := range args {
		if v != nil {
			a.attrs["build-arg:"+k] = *v
		}
	}
	// Compose and older clients ask for the inline cache this way.
	a.inline = flag(a.attrs["build-arg:BUILDKIT_INLINE_CACHE"])
	for k, v := range labels {
		a.attrs["label:"+k] = v
	}
	for _, ref := range from {
		a.caches = append(a.caches, client.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": ref}})
	}
	var hosts, ulimits []string
	for _, h := range q["extrahosts"] {
		// A JSON list, or (before 1.40) one to a parameter.
		var list []string
		if json.Unmarshal([]byte(h), &list) != nil {
			list = []string{h}
		}
		for _, h := range list {
			name, ip, ok := strings.Cut(h, ":")
			if !ok {
				return invalid(fmt.Sprintf("invalid extra host %q: it is host:ip", h))
			}
			hosts = append(hosts, name+"="+strings.Trim(ip, "[]"))
		}
	}
	for _, u := range limits {
		ulimits = append(ulimits, u.String())
	}
	if len(hosts) > 0 {
		a.attrs["add-hosts"] = strings.Join(hosts, ",")
	}
	if len(ulimits) > 0 {
		a.attrs["ulimit"] = strings.Join(ulimits, ",")
	}
	return nil
}

// result says where the result goes: an image with the names asked for, unless
// outputs says otherwise.
func (a *asked) result(q url.Values) error {
	for _, t := range q["t"] {
		if t == "" {
			continue
		}
		r, err := image.ParseReference(t)
		if err != nil {
			return invalid(err.Error())
		}
		if !r.Digest.IsZero() {
			return invalid("refusing to create a tag with a digest reference")
		}
		a.names = append(a.names, r.String())
	}
	a.export = client.ExportEntry{Type: Moby, Attrs: map[string]string{}}
	if s := q.Get("outputs"); s != "" {
		var list []struct {
			Type  string
			Attrs map[string]string
		}
		if err := json.Unmarshal([]byte(s), &list); err != nil {
			return invalid("error reading outputs: " + err.Error())
		}
		if len(list) > 1 {
			return invalid("multiple outputs not supported")
		}
		if len(list) == 1 {
			a.export.Type = list[0].Type
			for k, v := range list[0].Attrs {
				a.export.Attrs[k] = v
			}
			if a.export.Type == "tar" { // the client takes it apart or keeps it
				a.export.Attrs["attestation-inline"] = "false"
			}
		}
	}
	if a.export.Type == Moby && len(a.names) > 0 {
		a.export.Attrs["name"] = strings.Join(a.names, ",")
	}
	return nil
}

// Moby is the exporter of Docker's engine: into its image store.
const Moby = "moby"

// credentials reads the registries' logins that a client sends along.
func (a *asked) credentials(r *http.Request) error {
	a.auth = configfile.New("")
	h := r.Header.Get("X-Registry-Config")
	if h == "" {
		return nil
	}
	if len(h) > maxHeader {
		return invalid("X-Registry-Config is larger than a mebibyte")
	}
	raw, err := base64.URLEncoding.DecodeString(h)
	if err != nil {
		if raw, err = base64.StdEncoding.DecodeString(h); err != nil {
			return invalid("X-Registry-Config is not base64")
		}
	}
	var logins map[string]types.AuthConfig
	if err := json.Unmarshal(raw, &logins); err != nil {
		return invalid("X-Registry-Config: " + err.Error())
	}
	for host, l := range logins {
		if l.ServerAddress == "" {
			l.ServerAddress = host
		}
		a.auth.AuthConfigs[host] = l
	}
	return nil
}
