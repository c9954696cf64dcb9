package engine

import (
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"cale/runtime/cgroup"
)

// parents are the groups that containers' --cgroup-parent named and that weren't there before: they go with the last
// run below them. Which these are is written down before the runtime makes them, as empty files below Run, so that
// the next engine knows it too.
type parents struct {
	dir string // of the files, each named by its group's path, escaped

	mu   sync.Mutex
	runs map[string]string // container's id to parent
}

// take notes a run that will be below parent.
func (p *parents) take(id, parent string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.runs[id] = parent
	for _, group := range upwards(parent) {
		g, err := cgroup.Open(group, cgroup.Options{Parent: true})
		if err != nil {
			return invalid("invalid cgroup parent %q: %v", parent, err)
		}
		if g.Exists() {
			return nil // and so do those above it
		}
		name := url.PathEscape(group)
		if len(name) > 255 {
			continue // no file can have that name: the group stays
		}
		if err := os.MkdirAll(p.dir, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(p.dir, name), nil, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// keep notes a run that an engine before this one started.
func (p *parents) keep(id, parent string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.runs[id] = parent
}

// drop notes a run's end, and removes the groups that nothing is below any more.
func (p *parents) drop(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	parent, ok := p.runs[id]
	if !ok {
		return
	}
	delete(p.runs, id)
	for _, group := range upwards(parent) {
		p.remove(group)
	}
}

// sweep removes what runs left that ended while no engine looked.
func (p *parents) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return // there are none
	}
	for _, d := range entries {
		name, err := url.PathUnescape(d.Name())
		if err != nil {
			continue
		}
		for _, group := range upwards(name) {
			p.remove(group)
		}
	}
}

// remove removes one group, if it was made for a container and is free. p.mu is held: no run of ours begins below it.
func (p *parents) remove(group string) {
	note := filepath.Join(p.dir, url.PathEscape(group))
	if _, err := os.Lstat(note); err != nil {
		return
	}
	for _, parent := range p.runs {
		if strings.HasPrefix(parent+"/", group+"/") {
			return
		}
	}
	if g, err := cgroup.Open(group, cgroup.Options{Parent: true}); err == nil && g.RemoveEmpty() {
		_ = os.Remove(note)
	}
}

// upwards lists a group and those above it, the lowest first.
func upwards(group string) []string {
	var out []string
	for ; group != "/" && group != "."; group = path.Dir(group) {
		out = append(out, group)
	}
	return out
}
