package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"time"
)

// ErrConfig is the class of image configurations that cannot be accepted.
var ErrConfig = errors.New("invalid image config")

// Config is an image configuration. Its values are the image author's; none of
// them may steer the host without the engine translating it on purpose.
type Config struct {
	Raw      []byte
	Platform Platform
	Created  *time.Time
	Author   string
	DiffIDs  []Digest // one for each layer, lowest first
	History  []History
	Run      RunConfig
}

// RunConfig is how the author wants the image to be run.
type RunConfig struct {
	User         string
	Env          []string
	Entrypoint   []string
	Cmd          []string
	WorkingDir   string
	Labels       map[string]string
	Volumes      []string // sorted
	ExposedPorts []string // sorted, "80/tcp"
	StopSignal   string
	Healthcheck  *Healthcheck
	Shell        []string
	OnBuild      []string
	ArgsEscaped  bool
}

// Healthcheck is Docker's extension. Durations are nanoseconds in JSON.
type Healthcheck struct {
	Test          []string      `json:",omitempty"`
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
}

// History is one step of how the image was built.
type History struct {
	Created    *time.Time `json:"created,omitempty"`
	CreatedBy  string     `json:"created_by,omitempty"`
	Author     string     `json:"author,omitempty"`
	Comment    string     `json:"comment,omitempty"`
	EmptyLayer bool       `json:"empty_layer,omitempty"`
}

// set is how JSON writes a set of strings: an object with empty values.
type set map[string]struct{}

func (s set) sorted() []string {
	if len(s) == 0 {
		return nil
	}
	out := make([]string, 0, len(s))
	for k := range s {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

func newSet(list []string) set {
	if len(list) == 0 {
		return nil
	}
	s := make(set, len(list))
	for _, v := range list {
		s[v] = struct{}{}
	}
	return s
}

type configDocument struct {
	Created      *time.Time `json:"created,omitempty"`
	Author       string     `json:"author,omitempty"`
	Architecture string     `json:"architecture"`
	Variant      string     `json:"variant,omitempty"`
	OS           string     `json:"os"`
	OSVersion    string     `json:"os.version,omitempty"`
	Config       *runDoc    `json:"config,omitempty"`
	RootFS       struct {
		Type    string   `json:"type"`
		DiffIDs []Digest `json:"diff_ids"`
	} `json:"rootfs"`
	History []History `json:"history,omitempty"`
}

type runDoc struct {
	User         string            `json:",omitempty"`
	ExposedPorts set               `json:",omitempty"`
	Env          []string          `json:",omitempty"`
	Entrypoint   []string          `json:",omitempty"`
	Cmd          []string          `json:",omitempty"`
	Healthcheck  *Healthcheck      `json:",omitempty"`
	Volumes      set               `json:",omitempty"`
	WorkingDir   string            `json:",omitempty"`
	Labels       map[string]string `json:",omitempty"`
	StopSignal   string            `json:",omitempty"`
	Shell        []string          `json:",omitempty"`
	OnBuild      []string          `json:",omitempty"`
	ArgsEscaped  bool              `json:",omitempty"`
}

// ParseConfig reads an image configuration, OCI or Docker.
func ParseConfig(raw []byte) (*Config, error) {
	if len(raw) > MaxConfigSize {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrConfig, len(raw), MaxConfigSize)
	}
	if err := uniqueKeys(raw); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	var d configDocument
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if d.RootFS.Type != "" && d.RootFS.Type != "layers" {
		return nil, fmt.Errorf("%w: rootfs of type %q, want \"layers\"", ErrConfig, clip(d.RootFS.Type))
	}
	for i, id := range d.RootFS.DiffIDs {
		if id.IsZero() {
			return nil, fmt.Errorf("%w: diff_ids[%d] is empty", ErrConfig, i)
		}
	}
	c := &Config{
		Raw:      raw,
		Platform: Platform{OS: d.OS, Architecture: d.Architecture, Variant: d.Variant, OSVersion: d.OSVersion},
		Created:  d.Created,
		Author:   d.Author,
		DiffIDs:  d.RootFS.DiffIDs,
		History:  d.History,
	}
	if r := d.Config; r != nil {
		c.Run = RunConfig{
			User: r.User, Env: r.Env, Entrypoint: r.Entrypoint, Cmd: r.Cmd, WorkingDir: r.WorkingDir,
			Labels: r.Labels, Volumes: r.Volumes.sorted(), ExposedPorts: r.ExposedPorts.sorted(),
			StopSignal: r.StopSignal, Healthcheck: r.Healthcheck, Shell: r.Shell, OnBuild: r.OnBuild,
			ArgsEscaped: r.ArgsEscaped,
		}
	}
	return c, nil
}

// Encode writes the configuration anew from its fields and sets Raw. Images
// that came from elsewhere keep their own Raw; this is for images made here.
func (c *Config) Encode() ([]byte, error) {
	r := &c.Run
	d := configDocument{
		Created: c.Created, Author: c.Author, OS: c.Platform.OS, Architecture: c.Platform.Architecture,
		Variant: c.Platform.Variant, OSVersion: c.Platform.OSVersion, History: c.History,
		Config: &runDoc{
			User: r.User, ExposedPorts: newSet(r.ExposedPorts), Env: r.Env, Entrypoint: r.Entrypoint, Cmd: r.Cmd,
			Healthcheck: r.Healthcheck, Volumes: newSet(r.Volumes), WorkingDir: r.WorkingDir, Labels: r.Labels,
			StopSignal: r.StopSignal, Shell: r.Shell, OnBuild: r.OnBuild, ArgsEscaped: r.ArgsEscaped,
		},
	}
	d.RootFS.Type = "layers"
	d.RootFS.DiffIDs = c.DiffIDs
	if d.RootFS.DiffIDs == nil {
		d.RootFS.DiffIDs = []Digest{}
	}
	raw, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode image config: %w", err)
	}
	c.Raw = raw
	return raw, nil
}
