package metrics

import (
	"testing"
	"unicode/utf8"
)

// A container names its interfaces itself: none of the names may spoil the page for the others.
func TestLabelsOfContainers(t *testing.T) {
	var p page
	p.sample("x", 1.5, "id", "a", "interface", "e\xff\"\\\n")
	if got, want := p.String(), "x{id=\"a\",interface=\"e\uFFFD\\\"\\\\\\n\"} 1.5\n"; got != want || !utf8.ValidString(got) {
		t.Errorf("%q, want %q", got, want)
	}
}
