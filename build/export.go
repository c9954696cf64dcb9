package build

import (
	"context"
	"maps"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/worker"
)

// storing is a worker that has Docker's exporter too: "moby", into the image
// store of the engine.
type storing struct{ worker.Worker }

// Exporter implements worker.Worker.
func (w storing) Exporter(name string, sm *session.Manager) (exporter.Exporter, error) {
	if name != "moby" {
		return w.Worker.Exporter(name, sm)
	}
	e, err := w.Worker.Exporter(client.ExporterImage, sm)
	return moby{e}, err
}

// moby is the image exporter, but for an image without a name: it is kept.
type moby struct{ exporter.Exporter }

// Resolve implements exporter.Exporter.
func (m moby) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	if attrs["name"] == "" {
		attrs = maps.Clone(attrs)
		if attrs == nil {
			attrs = map[string]string{}
		}
		attrs["dangling-name-prefix"] = "untagged"
	}
	return m.Exporter.Resolve(ctx, id, attrs)
}
