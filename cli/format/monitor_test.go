package format

import (
	"strings"
	"testing"

	"cale/client"
)

// Rates are between two samples, whatever time was between them; a counter that started anew is no rate.
func TestWatched(t *testing.T) {
	sample := func(at string, read, written uint64) (s client.Stats) {
		s.Read = at
		s.Block.Bytes = append(s.Block.Bytes, struct {
			Op    string `json:"op"`
			Value uint64 `json:"value"`
		}{"Read", read}, struct {
			Op    string `json:"op"`
			Value uint64 `json:"value"`
		}{"write", written})
		return s
	}
	w := NewWatched("id", "web", "Up", 2, sample("2026-01-01T00:00:02.5Z", 3000, 10), sample("2026-01-01T00:00:00.5Z", 1000, 500))
	if w.Read != 1000 || w.Write != 0 || !w.Known {
		t.Errorf("%+v", w)
	}
	if w := NewWatched("id", "web", "Up", 0, sample("2026-01-01T00:00:02Z", 3000, 10), client.Stats{}); w.Read != 0 {
		t.Errorf("one sample has a rate: %+v", w)
	}
	head, line := WatchedHeader(12), w.Line(12)
	if strings.Index(head, "STATUS") != strings.Index(line, "Up") {
		t.Errorf("the columns don't line up:\n%s\n%s", head, line)
	}
	if line := (Watched{Name: "gone", Status: "Exited (0)"}).Line(12); strings.Contains(line, "0B") {
		t.Errorf("a container that doesn't run uses nothing known: %q", line)
	}
}

func TestSortWatched(t *testing.T) {
	for _, o := range Orders {
		rows := []Watched{{Name: "b"}, {Name: "a"}, {Name: "busy", CPU: 9, Memory: 9, Read: 9, Rx: 9, Tasks: 9,
			Pressure: &client.Pressure{IO: &client.Waiting{Some: client.WaitingShare{Avg10: 9}}}}}
		SortWatched(rows, o, false)
		want := "busy a b"
		if o.Name == "name" {
			want = "a b busy"
		}
		got := rows[0].Name + " " + rows[1].Name + " " + rows[2].Name
		if got != want {
			t.Errorf("by %s: %s", o.Name, got)
		}
	}
}
