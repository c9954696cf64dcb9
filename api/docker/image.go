package docker

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"cale/audit"
	"cale/engine"
	"cale/image/pull"
)

func (s *Server) imageList(w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r, "dangling", "label", "label!", "before", "since", "reference", "until")
	if err != nil {
		return err
	}
	if r.flag("identity") && !r.flag("manifests") {
		return invalid("conflicting options: identity requires manifests=1")
	}
	dangling, danglingSet, err := f.flag("dangling")
	if err != nil {
		return err
	}
	var until time.Time // all of them hold: the earliest
	for _, v := range f["until"] {
		t, err := parseTime(v, time.Now())
		if err != nil {
			return err
		}
		if until.IsZero() || t.Before(until) {
			until = t
		}
	}
	var before, since time.Time
	for name, at := range map[string]*time.Time{"before": &before, "since": &since} {
		for _, ref := range f[name] {
			img, err := s.engine.Image(r.Context(), ref)
			if err != nil {
				return err
			}
			*at = img.Created
		}
	}
	images, err := s.engine.Images(r.Context(), r.flag("all"))
	if err != nil {
		return err
	}
	shared := r.flag("shared-size")
	if shared {
		if err := s.engine.ShareSizes(images); err != nil {
			return err
		}
	}
	out := []image.Summary{}
	for _, img := range images {
		switch {
		case danglingSet && dangling != (len(img.Names) == 0),
			!f.labels(img.Labels),
			!until.IsZero() && !img.Created.Before(until),
			!before.IsZero() && !img.Created.Before(before),
			!since.IsZero() && !img.Created.After(since):
			continue
		}
		if refs := f["reference"]; len(refs) > 0 {
			img.Names = slices.DeleteFunc(slices.Clone(img.Names), func(n string) bool { return !referenceMatches(refs, n) })
			img.Digests = slices.DeleteFunc(slices.Clone(img.Digests), func(d string) bool {
				repo, _, _ := strings.Cut(d, "@")
				return !slices.ContainsFunc(refs, func(p string) bool { return globMatch(p, repo) || globMatch(p, d) })
			})
			if len(img.Names)+len(img.Digests) == 0 {
				continue
			}
		}
		sum := image.Summary{
			ID: img.ID, Created: img.Created.Unix(), Labels: img.Labels, RepoTags: orNone(img.Names), RepoDigests: orNone(img.Digests),
			Size: img.Size, SharedSize: -1, Containers: int64(img.Containers), Descriptor: imageDescriptor(&img),
		}
		if shared {
			sum.SharedSize = img.Shared
		}
		if r.flag("manifests") && !r.before("1.47") {
			if sum.Manifests, err = s.imageManifests(r, img.Target); err != nil {
				return err
			}
		}
		out = append(out, sum)
	}
	slices.SortStableFunc(out, func(a, b image.Summary) int { return int(b.Created - a.Created) })
	return writeJSON(w, http.StatusOK, out)
}

func orNone(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// referenceMatches says whether a name is meant by any pattern: a name, a repository, or either with * and ?; Docker
// Hub's with or without what its names leave out.
func referenceMatches(patterns []string, name string) bool {
	repo, _, _ := cutTag(name)
	full := fullRepository(repo)
	return slices.ContainsFunc(patterns, func(p string) bool {
		return globMatch(p, name) || globMatch(p, repo) || globMatch(p, full) || globMatch(p, full+strings.TrimPrefix(name, repo))
	})
}

// fullRepository is a repository's name with what names of Docker Hub's leave out.
func fullRepository(repo string) string {
	if host, _, ok := strings.Cut(repo, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		return repo
	}
	return "docker.io/" + familiarPath(repo)
}

// cutTag splits repository:tag.
func cutTag(name string) (repo, tag string, ok bool) {
	i := strings.LastIndexByte(name, ':')
	if i < 0 || strings.Contains(name[i:], "/") {
		return name, "", false
	}
	return name[:i], name[i+1:], true
}

func (s *Server) imageInspect(w http.ResponseWriter, r *request) error {
	platform, err := r.platform()
	if err != nil {
		return err
	}
	img, err := s.engine.ImageFor(r.Context(), r.name(), platform)
	if err != nil {
		return err
	}
	c := &img.Config
	cfg := &dockerspec.DockerOCIImageConfig{
		ImageConfig: ocispec.ImageConfig{
			User: c.User, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, WorkingDir: c.WorkingDir, Labels: c.Labels, StopSignal: c.StopSignal,
		},
		DockerOCIImageConfigExt: dockerspec.DockerOCIImageConfigExt{OnBuild: c.OnBuild, Shell: c.Shell},
	}
	for _, v := range c.Volumes {
		if cfg.Volumes == nil {
			cfg.Volumes = map[string]struct{}{}
		}
		cfg.Volumes[v] = struct{}{}
	}
	for p := range portSet(c.Exposed) {
		if cfg.ExposedPorts == nil {
			cfg.ExposedPorts = map[string]struct{}{}
		}
		cfg.ExposedPorts[p.String()] = struct{}{}
	}
	if h := c.Health; h != nil {
		cfg.Healthcheck = &dockerspec.HealthcheckConfig{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries}
	}
	manifests, target := []image.ManifestSummary(nil), imageDescriptor(&img)
	if r.flag("manifests") {
		if platform != "" {
			return invalid("conflicting options: manifests and platform options cannot both be set")
		}
		if manifests, err = s.imageManifests(r, r.name()); err != nil {
			return err
		}
	}
	if platform != "" {
		target = &ocispec.Descriptor{MediaType: img.Manifest.MediaType, Digest: digest.Digest(img.Manifest.Digest.String()), Size: img.Manifest.Size,
			Platform: &ocispec.Platform{OS: img.OS, Architecture: img.Architecture, Variant: img.Variant}}
	}
	return writeJSON(w, http.StatusOK, image.InspectResponse{
		ID: img.ID, RepoTags: orNone(img.Names), RepoDigests: orNone(img.Digests), Created: stamp(img.Created), Author: img.Author, Comment: img.Comment, Descriptor: target, Manifests: manifests,
		Config: cfg, Architecture: img.Architecture, Variant: img.Variant, Os: img.OS, Size: img.Size,
		RootFS: image.RootFS{Type: "layers", Layers: img.Layers},
	})
}

// imageDescriptor says what an image's name points at.
func imageDescriptor(img *engine.Image) *ocispec.Descriptor {
	return &ocispec.Descriptor{MediaType: img.MediaType, Digest: digest.Digest(img.Target), Size: img.TargetSize}
}

func (s *Server) imageHistory(w http.ResponseWriter, r *request) error {
	platform, err := r.platform()
	if err != nil {
		return err
	}
	steps, err := s.engine.ImageHistory(r.Context(), r.name(), platform)
	if err != nil {
		return err
	}
	out := make([]image.HistoryResponseItem, 0, len(steps))
	for _, h := range steps {
		out = append(out, image.HistoryResponseItem{ID: h.ID, Comment: h.Comment, Created: h.Created.Unix(), CreatedBy: h.CreatedBy, Size: h.Size, Tags: h.Tags})
	}
	return writeJSON(w, http.StatusOK, out)
}

func (s *Server) imageTag(w http.ResponseWriter, r *request) error {
	repo, tag := r.text("repo"), r.text("tag")
	if repo == "" {
		return invalid("the repository's name is empty")
	}
	if tag != "" {
		repo += ":" + tag
	}
	if err := s.engine.TagImage(r.Context(), r.name(), repo); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func removed(steps []engine.RemovedImage) []image.DeleteResponse {
	out := []image.DeleteResponse{}
	for _, st := range steps {
		out = append(out, image.DeleteResponse{Untagged: st.Untagged, Deleted: st.Deleted})
	}
	return out
}

func (s *Server) imageRemove(w http.ResponseWriter, r *request) error {
	if r.URL.Query().Has("platforms") {
		return s.imagePartRemove(w, r)
	}
	steps, err := s.engine.RemoveImage(r.detached(), r.name(), r.flag("force"), !r.flag("noprune"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, removed(steps))
}

func (s *Server) imagePrune(w http.ResponseWriter, r *request) error {
	f, err := parseFilters(r, "dangling", "label", "label!", "until")
	if err != nil {
		return err
	}
	dangling, set, err := f.flag("dangling")
	if err != nil {
		return err
	}
	until, err := f.until(time.Now())
	if err != nil {
		return err
	}
	p, err := s.engine.PruneImages(r.detached(), set && !dangling, func(i engine.Image) bool {
		return f.labels(i.Labels) && (until.IsZero() || i.Created.Before(until))
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, image.PruneReport{ImagesDeleted: removed(p.Removed), SpaceReclaimed: uint64(p.Bytes)})
}

// progress writes Docker's stream of JSON messages. Its methods may be called from any goroutine.
type progress struct {
	mu   sync.Mutex
	w    http.ResponseWriter
	sent bool
	last map[string]time.Time

	entry *audit.Entry // told of an error that is told in the stream
}

// progressEvery bounds how often one layer's bytes are told.
const progressEvery = 100 * time.Millisecond

func (p *progress) message(m jsonstream.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.sent {
		p.w.Header().Set("Content-Type", "application/json")
		p.w.WriteHeader(http.StatusOK)
		p.sent = true
	}
	_ = writeBody(p.w, m)
}

func (p *progress) bytes(id, status string, current, total int64) {
	p.mu.Lock()
	now := time.Now()
	key := id + status
	if p.last == nil {
		p.last = map[string]time.Time{}
	}
	skip := current > 0 && current < total && now.Sub(p.last[key]) < progressEvery
	if !skip {
		p.last[key] = now
	}
	p.mu.Unlock()
	if skip {
		return
	}
	m := jsonstream.Message{ID: id, Status: status}
	if total > 0 && current > 0 {
		m.Progress = &jsonstream.Progress{Current: current, Total: total}
	}
	p.message(m)
}

// end tells how it went: before anything was sent an error still gets its own status.
func (p *progress) end(err error) error {
	p.mu.Lock()
	sent := p.sent
	p.mu.Unlock()
	if err == nil {
		return nil
	}
	if !sent {
		return err
	}
	p.entry.End(err)
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = writeBody(p.w, map[string]any{"errorDetail": map[string]string{"message": err.Error()}, "error": err.Error()})
	return nil
}

func (s *Server) imagePush(w http.ResponseWriter, r *request) error {
	name := r.name()
	if tag := r.text("tag"); tag != "" {
		name += ":" + tag
	}
	creds, err := credentials(r)
	if err != nil {
		return err
	}
	platform, err := r.platform()
	if err != nil {
		return err
	}
	p := &progress{w: w, entry: entryOf(r.Context())}
	repo, _, _ := cutTag(name)
	var begun sync.Once
	digest, size, err := s.engine.Push(r.Context(), name, platform, creds, func(e pull.Event) {
		begun.Do(func() {
			p.message(jsonstream.Message{Status: "The push refers to repository [" + fullRepository(repo) + "]"})
		})
		p.bytes(e.ID, e.Status, e.Current, e.Total)
	})
	if err != nil {
		return p.end(err)
	}
	_, tag, ok := cutTag(name)
	if !ok {
		tag = "latest"
	}
	p.message(jsonstream.Message{Status: tag + ": digest: " + digest + " size: " + strconv.FormatInt(size, 10)})
	raw, err := json.Marshal(map[string]any{"Tag": tag, "Digest": digest, "Size": size})
	if err != nil {
		return err
	}
	aux := json.RawMessage(raw)
	p.message(jsonstream.Message{Aux: &aux})
	return nil
}
