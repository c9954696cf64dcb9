package format

import (
	"fmt"
	"strings"
	"time"

	"cale/client"

	"github.com/docker/go-units"
)

// Event is an event as templates see it: the API's fields, and those of the
// API's older form.
type Event struct {
	Status   string       `json:"status,omitempty"`
	ID       string       `json:"id,omitempty"`
	From     string       `json:"from,omitempty"`
	Type     string       `json:"Type"`
	Action   string       `json:"Action"`
	Actor    client.Actor `json:"Actor"`
	Scope    string       `json:"scope,omitempty"`
	Time     int64        `json:"time,omitempty"`
	TimeNano int64        `json:"timeNano,omitempty"`
}

// Line is the event as one line: when, what, whose, and its attributes.
func (e Event) Line() string {
	t := time.Unix(0, e.TimeNano)
	if e.TimeNano == 0 {
		t = time.Unix(e.Time, 0)
	}
	parts := []string{t.Format("2006-01-02T15:04:05.000000000Z07:00"), e.Type, e.Action, e.Actor.ID}
	if len(e.Actor.Attributes) > 0 {
		var attributes []string
		for _, k := range sortedKeys(e.Actor.Attributes) {
			attributes = append(attributes, k+"="+e.Actor.Attributes[k])
		}
		parts = append(parts, "("+strings.Join(attributes, ", ")+")")
	}
	return strings.Join(parts, " ")
}

// UsageRow is a row of the disk usage: one kind of object.
type UsageRow struct {
	Active      string
	Reclaimable string
	Size        string
	TotalCount  string
	Type        string
}

// UsageHeader holds the headings.
var UsageHeader = UsageRow{Active: "ACTIVE", Reclaimable: "RECLAIMABLE", Size: "SIZE", TotalCount: "TOTAL", Type: "TYPE"}

// UsageTable is the usual table's template.
const UsageTable = "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"

// Usage makes the rows of the disk usage.
func Usage(du client.DiskUsage) []UsageRow {
	row := func(kind string, total, active int, bytes, free int64, percent bool) UsageRow {
		free = max(free, 0)
		r := UsageRow{Type: kind, TotalCount: fmt.Sprint(total), Active: fmt.Sprint(active), Size: units.HumanSize(float64(bytes)), Reclaimable: units.HumanSize(float64(free))}
		if percent && bytes > 0 {
			r.Reclaimable += fmt.Sprintf(" (%d%%)", free*100/bytes)
		}
		return r
	}
	var active int
	var used int64
	for _, i := range du.Images {
		if i.Containers > 0 {
			active++
			if i.SharedSize < 0 || i.Size < 0 {
				continue
			}
			used += i.Size - i.SharedSize
		}
	}
	rows := []UsageRow{row("Images", len(du.Images), active, du.LayersSize, du.LayersSize-used, true)}
	var size, free int64
	active = 0
	for _, c := range du.Containers {
		size += c.SizeRw
		if c.State == "running" || c.State == "paused" || c.State == "restarting" {
			active++
		} else {
			free += c.SizeRw
		}
	}
	rows = append(rows, row("Containers", len(du.Containers), active, size, free, true))
	size, free, active = 0, 0, 0
	for _, v := range du.Volumes {
		if v.UsageData == nil {
			continue
		}
		if v.UsageData.RefCount > 0 {
			active++
		} else if v.UsageData.Size > 0 {
			free += v.UsageData.Size
		}
		size += max(v.UsageData.Size, 0)
	}
	rows = append(rows, row("Local Volumes", len(du.Volumes), active, size, free, true))
	size, free, active = 0, 0, 0
	for _, b := range du.BuildCache {
		if b.InUse {
			active++
		}
		if !b.Shared {
			size += b.Size
			if !b.InUse {
				free += b.Size
			}
		}
	}
	return append(rows, row("Build Cache", len(du.BuildCache), active, size, free, false))
}

// CacheRecord is a row of the build cache.
type CacheRecord struct{ CacheType, CreatedSince, ID, LastUsedSince, Shared, Size, UsageCount string }

// CacheHeader holds the headings.
var CacheHeader = CacheRecord{CacheType: "CACHE TYPE", CreatedSince: "CREATED", ID: "CACHE ID", LastUsedSince: "LAST USED",
	Shared: "SHARED", Size: "SIZE", UsageCount: "USAGE"}

// CacheTable is the usual table's template.
const CacheTable = "table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}"

// NewCacheRecord makes the row of a record.
func NewCacheRecord(b client.CacheRecord, now time.Time) CacheRecord {
	since := func(t *time.Time) string {
		if t == nil || t.IsZero() {
			return ""
		}
		return units.HumanDuration(now.Sub(*t)) + " ago"
	}
	id := b.ID
	if len(id) > 12 {
		id = id[:12]
	}
	if b.InUse {
		id += "*"
	}
	return CacheRecord{CacheType: b.Type, CreatedSince: since(&b.CreatedAt), ID: id, LastUsedSince: since(b.LastUsedAt),
		Shared: fmt.Sprint(b.Shared), Size: units.HumanSize(float64(b.Size)), UsageCount: fmt.Sprint(b.UsageCount)}
}

// Holder is a row of what holds an image or a blob.
type Holder struct{ Kind, Name, Through string }

// HolderHeader holds the headings.
var HolderHeader = Holder{Kind: "HELD BY", Name: "NAME", Through: "THROUGH"}

// HolderTable is the usual table's template.
const HolderTable = "table {{.Kind}}\t{{.Name}}\t{{.Through}}"
