package format

import (
	"fmt"
	"strings"
	"time"

	"cale/client"

	"github.com/docker/go-units"
)

// Image is a row of the list of images.
type Image struct {
	Containers   string
	CreatedAt    string
	CreatedSince string
	Digest       string
	ID           string
	Repository   string
	SharedSize   string
	Size         string
	Tag          string
	UniqueSize   string
	VirtualSize  string
}

// ImageHeader holds the headings.
var ImageHeader = Image{Containers: "CONTAINERS", CreatedAt: "CREATED AT", CreatedSince: "CREATED", Digest: "DIGEST", ID: "IMAGE ID",
	Repository: "REPOSITORY", SharedSize: "SHARED SIZE", Size: "SIZE", Tag: "TAG", UniqueSize: "UNIQUE SIZE", VirtualSize: "SIZE"}

// ImageTable is the usual table's template; digests adds a column.
func ImageTable(digests bool) string {
	if digests {
		return "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
	}
	return "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
}

const none = "<none>"

// NewImages makes an image's rows, one for each of its names; digests makes one
// for each name and digest.
func NewImages(i client.Image, full, digests bool, now time.Time) []Image {
	created := time.Unix(i.Created, 0)
	row := Image{ID: i.ID, Repository: none, Tag: none, Digest: none, CreatedAt: created.String(),
		Size: units.HumanSizeWithPrecision(float64(i.Size), 3), Containers: count(i.Containers), SharedSize: size(i.SharedSize), UniqueSize: "N/A"}
	row.VirtualSize = row.Size
	if i.SharedSize >= 0 {
		row.UniqueSize = size(i.Size - i.SharedSize)
	}
	if i.Created > 0 {
		row.CreatedSince = units.HumanDuration(now.Sub(created)) + " ago"
	} else {
		row.CreatedSince = "N/A"
	}
	if !full {
		row.ID = ShortID(i.ID)
	}
	digestOf := map[string][]string{}
	var order []string
	for _, d := range i.RepoDigests {
		repo, digest, ok := strings.Cut(d, "@")
		if !ok || repo == none {
			continue
		}
		if digestOf[repo] == nil {
			order = append(order, repo)
		}
		digestOf[repo] = append(digestOf[repo], digest)
	}
	var rows []Image
	tagged := map[string]bool{}
	add := func(repo, tag string, ds []string) {
		r := row
		r.Repository, r.Tag = repo, tag
		if len(ds) == 0 {
			rows = append(rows, r)
			return
		}
		for _, d := range ds {
			r.Digest = d
			rows = append(rows, r)
			if !digests {
				return
			}
		}
	}
	for _, t := range i.RepoTags {
		c := strings.LastIndexByte(t, ':')
		if c < 0 || t == "<none>:<none>" {
			continue
		}
		tagged[t[:c]] = true
		add(t[:c], t[c+1:], digestOf[t[:c]])
	}
	for _, repo := range order { // known by digest only
		if !tagged[repo] {
			add(repo, none, digestOf[repo])
		}
	}
	if len(rows) == 0 {
		rows = append(rows, row)
	}
	return rows
}

func count(n int64) string {
	if n < 0 {
		return "N/A"
	}
	return fmt.Sprint(n)
}

func size(n int64) string {
	if n < 0 {
		return "N/A"
	}
	return units.HumanSize(float64(n))
}

// Found is a row of a search's results.
type Found struct {
	Description string
	IsOfficial  string
	Name        string
	StarCount   string
}

// FoundHeader holds the headings.
var FoundHeader = Found{Description: "DESCRIPTION", IsOfficial: "OFFICIAL", Name: "NAME", StarCount: "STARS"}

// FoundTable is the usual table's template.
const FoundTable = "table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}"
