package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"cale/image"
)

// Holder is something that keeps content from being collected: a name, a
// lease, or work of this process (a Pin), of which exactly one is set.
type Holder struct {
	Name  string
	Lease string
	Work  string
	// Path goes from what is held to what was asked for, both included.
	Path []image.Digest
}

// Holders lists what keeps any of the digests, those of blobs or of unpacked
// layers: names first, then leases, each by name.
func (s *Store) Holders(ctx context.Context, want ...image.Digest) ([]Holder, error) {
	names, err := s.Names()
	if err != nil {
		return nil, err
	}
	w := walker{m: marker{s: s}, want: want, children: map[image.Digest][]image.Digest{}}
	var out []Holder
	add := func(h Holder, roots ...image.Digest) error {
		h.Path, err = w.path(ctx, roots)
		if err != nil {
			return fmt.Errorf("look for what holds %s: %w", want[0], err)
		}
		if h.Path != nil {
			out = append(out, h)
		}
		return nil
	}
	for _, n := range names {
		if err := add(Holder{Name: n.Name}, n.Target.Digest); err != nil {
			return nil, err
		}
	}
	for id, digests := range s.Leases() {
		if strings.HasPrefix(id, Only) {
			for _, d := range digests {
				if slices.Contains(want, d) {
					out = append(out, Holder{Lease: id, Path: []image.Digest{d}})
				}
			}
			continue
		}
		if err := add(Holder{Lease: id}, digests...); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	type pinned struct {
		who string
		all []image.Digest
	}
	var pins []pinned
	for p := range s.pins {
		var all []image.Digest
		for d := range p.set {
			all = append(all, d)
		}
		pins = append(pins, pinned{p.who, all})
	}
	s.mu.Unlock()
	for _, p := range pins {
		if err := add(Holder{Work: p.who}, p.all...); err != nil {
			return nil, err
		}
	}
	rank := func(h Holder) string {
		switch {
		case h.Name != "":
			return "0" + h.Name
		case h.Lease != "":
			return "1" + h.Lease
		}
		return "2" + h.Work
	}
	slices.SortStableFunc(out, func(a, b Holder) int { return strings.Compare(rank(a), rank(b)) })
	return out, nil
}

// walker looks for ways through documents, each of which it reads once.
type walker struct {
	m        marker
	want     []image.Digest
	children map[image.Digest][]image.Digest
}

// path is a shortest way from one of the roots to what is wanted, nil if there
// is none.
func (w *walker) path(ctx context.Context, roots []image.Digest) ([]image.Digest, error) {
	from := map[image.Digest]image.Digest{} // how each was reached; roots from nothing
	var todo []image.Digest
	reach := func(d, by image.Digest) {
		if _, known := from[d]; !known && !d.IsZero() {
			from[d] = by
			todo = append(todo, d)
		}
	}
	for _, d := range roots {
		reach(d, image.Digest{})
	}
	for len(todo) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d := todo[0]
		todo = todo[1:]
		if slices.Contains(w.want, d) {
			var path []image.Digest
			for ; !d.IsZero(); d = from[d] {
				path = append(path, d)
			}
			slices.Reverse(path)
			return path, nil
		}
		next, known := w.children[d]
		if !known {
			var err error
			if next, err = w.m.children(d); err != nil {
				return nil, err
			}
			w.children[d] = next
		}
		for _, c := range next {
			reach(c, d)
		}
	}
	return nil, nil
}
