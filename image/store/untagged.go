package store

import (
	"errors"

	"cale/image"
)

// An image without a tag is kept by a name that is its own digest.

// Tag points name at target, as SetName does. What the name meant before is
// kept, without a tag if it has no other.
func (s *Store) Tag(name string, target image.Descriptor) error {
	before, err := s.Resolve(name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	moved := err == nil && before.Digest != target.Digest
	if moved {
		pin := s.Pin("tag that moves")
		defer pin.Release()
		pin.Add(before.Digest)
	}
	if err := s.SetName(name, target); err != nil {
		return err
	}
	if moved {
		if err := s.KeepUntagged(before); err != nil {
			return err
		}
	}
	return s.DropUntagged(target)
}

// KeepUntagged keeps an image that may have lost its last name.
func (s *Store) KeepUntagged(d image.Descriptor) error {
	names, err := s.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if n.Target.Digest == d.Digest {
			return nil
		}
	}
	return s.SetName(d.Digest.String(), d)
}

// DropUntagged takes that name away from an image that has a tag (again).
func (s *Store) DropUntagged(d image.Descriptor) error {
	if _, err := s.Resolve(d.Digest.String()); errors.Is(err, ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	return s.RemoveName(d.Digest.String())
}
