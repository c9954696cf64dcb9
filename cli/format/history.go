package format

import (
	"strconv"
	"strings"
	"time"

	"cale/client"

	"github.com/docker/go-units"
)

// Step is a row of an image's history.
type Step struct {
	Comment      string
	CreatedAt    string
	CreatedBy    string
	CreatedSince string
	ID           string
	Size         string
}

// StepHeader holds the headings.
var StepHeader = Step{Comment: "COMMENT", CreatedAt: "CREATED AT", CreatedBy: "CREATED BY", CreatedSince: "CREATED", ID: "IMAGE", Size: "SIZE"}

// StepTable is the usual table's template; human shows an age for a date.
func StepTable(human bool) string {
	created := "CreatedSince"
	if !human {
		created = "CreatedAt"
	}
	return "table {{.ID}}\t{{." + created + "}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
}

// NewStep makes a row; full keeps long values whole.
func NewStep(s client.ImageHistory, full, human bool, now time.Time) Step {
	created := time.Unix(s.Created, 0)
	r := Step{Comment: s.Comment, ID: s.ID, CreatedBy: strings.ReplaceAll(s.CreatedBy, "\t", " "), CreatedAt: created.Format(time.RFC3339),
		CreatedSince: "N/A", Size: strconv.FormatInt(s.Size, 10)}
	if s.Created > 0 {
		r.CreatedSince = units.HumanDuration(now.Sub(created)) + " ago"
	}
	if human {
		r.Size = units.HumanSizeWithPrecision(float64(s.Size), 3)
	}
	if !full {
		r.CreatedBy = Ellipsis(r.CreatedBy, 45)
		if s.ID != "<missing>" {
			r.ID = ShortID(s.ID)
		}
	}
	return r
}
