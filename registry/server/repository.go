package server

import (
	"errors"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"cale/image"
	"cale/image/store"
)

// domains are those whose names a read finds, in order; the first own of them
// are this registry's.
func (g *registry) domains() (list []string, own int) {
	list = append([]string{g.opts.Domain}, g.opts.Aliases...)
	own = len(list)
	if !slices.Contains(list, image.DefaultDomain) {
		list = append(list, image.DefaultDomain)
	}
	return list, own
}

// owned tells whether names with a domain are this registry's.
func (g *registry) owned(domain string) bool {
	list, own := g.domains()
	return slices.Contains(list[:own], domain)
}

// name is how the store calls a tag: as it is there already, or else as the
// client calls it whose request had this host.
func (g *registry) name(host, repo, tag string) (string, error) {
	list, own := g.domains()
	for _, domain := range list[:own] {
		name := image.Reference{Domain: domain, Path: repo, Tag: tag}.String()
		if _, err := g.store.Resolve(name); !errors.Is(err, store.ErrNotFound) {
			return name, err
		}
	}
	if !g.owned(host) {
		host = g.opts.Domain
	}
	return image.Reference{Domain: host, Path: repo, Tag: tag}.String(), nil
}

// leasePrefix begins the leases that hold a repository's untagged manifests.
func (g *registry) leasePrefix() string { return "registry/" + g.opts.Domain + "/" }

func (g *registry) lease(repo string, d image.Digest) string {
	return g.leasePrefix() + repo + "@" + d.String()
}

// entry is one way to a manifest: by tag, or held by a lease.
type entry struct {
	domain string
	repo   string
	tag    string // empty for a lease
	target image.Digest
}

func (e entry) name() string {
	return image.Reference{Domain: e.domain, Path: e.repo, Tag: e.tag}.String()
}

// entries lists the entries of a repository, or of all when repo is empty.
func (g *registry) entries(repo string) ([]entry, error) {
	names, err := g.store.Names()
	if err != nil {
		return nil, err
	}
	var list []entry
	domains, _ := g.domains()
	for _, n := range names {
		domain, rest, ok := strings.Cut(n.Name, "/")
		if !ok || !slices.Contains(domains, domain) || !strings.HasPrefix(rest, repo) {
			continue
		}
		ref, err := image.ParseReference(n.Name)
		if err != nil || ref.Domain != domain || (repo != "" && ref.Path != repo) {
			continue
		}
		list = append(list, entry{domain, ref.Path, ref.Tag, n.Target.Digest})
	}
	for id, digests := range g.store.Leases() {
		rest, ok := strings.CutPrefix(id, g.leasePrefix())
		path, _, _ := strings.Cut(rest, "@")
		if !ok || (repo != "" && path != repo) {
			continue
		}
		for _, d := range digests {
			list = append(list, entry{g.opts.Domain, path, "", d})
		}
	}
	return list, nil
}

// each visits all manifests of a repository until visit says stop.
func (g *registry) each(repo string, visit func(*document) bool) error {
	list, err := g.entries(repo)
	if err != nil {
		return err
	}
	seen := map[image.Digest]bool{}
	for _, e := range list {
		if more, err := g.walk(e.target, seen, visit); !more || err != nil {
			return err
		}
	}
	return nil
}

// hasManifest tells whether a digest is a manifest of the repository.
func (g *registry) hasManifest(repo string, d image.Digest) (found bool, err error) {
	err = g.each(repo, func(doc *document) bool {
		found = doc.desc.Digest == d
		return !found
	})
	return found, err
}

// refersTo tells whether a manifest of the repository refers to a blob.
func (g *registry) refersTo(repo string, d image.Digest) (found bool, err error) {
	err = g.each(repo, func(doc *document) bool {
		for _, b := range doc.blobs {
			if b.Digest == d {
				found = true
				return false
			}
		}
		return true
	})
	return found, err
}

// hasBlob tells whether a blob may be read from the repository.
func (g *registry) hasBlob(repo string, d image.Digest) (bool, error) {
	if _, err := g.store.Known(d); err != nil {
		return false, nil
	}
	if g.recent.has(repo, d) {
		return true, nil
	}
	if found, err := g.refersTo(repo, d); found || err != nil {
		return found, err
	}
	return g.hasManifest(repo, d)
}

// tagList is the sorted tags of a repository, and whether there is such a one.
func (g *registry) tagList(repo string) (tags []string, known bool, err error) {
	list, err := g.entries(repo)
	if err != nil {
		return nil, false, err
	}
	seen := map[string]bool{"": true}
	for _, e := range list {
		if !seen[e.tag] {
			seen[e.tag] = true
			tags = append(tags, e.tag)
		}
	}
	sort.Strings(tags)
	return tags, len(list) > 0 || g.recent.knows(repo), nil
}

const (
	// recentTime is how long an uploaded blob waits for its manifest.
	recentTime = time.Hour
	// maxRecent bounds how many wait.
	maxRecent = 20000
)

// recent remembers which blobs were uploaded to which repository, and keeps
// them from being collected until a manifest refers to them.
type recent struct {
	store *store.Store
	mu    sync.Mutex
	all   map[string]map[image.Digest]*held // by repository
	n     int
	timer *time.Timer // set while anything is held
}

type held struct {
	pin   *store.Pin
	until time.Time
}

func (c *recent) init(s *store.Store) {
	c.store = s
	c.all = map[string]map[image.Digest]*held{}
}

// add remembers a blob. It must be called before the blob is looked for or
// stored, so that no collection comes between.
func (c *recent) add(repo string, d image.Digest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	until := time.Now().Add(recentTime)
	if h := c.all[repo][d]; h != nil {
		h.until = until
		return nil
	}
	if c.n >= maxRecent {
		return &problem{429, "TOOMANYREQUESTS", "too many blobs wait for their manifest"}
	}
	h := &held{pin: c.store.Pin("the registry: a blob of " + repo + " that waits for its manifest"), until: until}
	h.pin.Add(d)
	if c.all[repo] == nil {
		c.all[repo] = map[image.Digest]*held{}
	}
	c.all[repo][d] = h
	c.n++
	if c.timer == nil {
		c.timer = time.AfterFunc(recentTime, c.sweep)
	}
	return nil
}

func (c *recent) has(repo string, d image.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[repo][d] != nil
}

func (c *recent) knows(repo string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.all[repo]) > 0
}

// remove forgets a blob, and tells whether it was known.
func (c *recent) remove(repo string, d image.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drop(repo, d)
}

func (c *recent) drop(repo string, d image.Digest) bool {
	h := c.all[repo][d]
	if h == nil {
		return false
	}
	h.pin.Release()
	c.n--
	delete(c.all[repo], d)
	if len(c.all[repo]) == 0 {
		delete(c.all, repo)
	}
	return true
}

// sweep forgets what has waited too long.
func (c *recent) sweep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for repo, blobs := range c.all {
		for d, h := range blobs {
			if now.After(h.until) {
				c.drop(repo, d)
			}
		}
	}
	c.timer = nil
	if c.n > 0 {
		c.timer = time.AfterFunc(recentTime/4, c.sweep)
	}
}
