package command

import (
	"fmt"
	"maps"
	"os"
	"strings"

	"github.com/moby/buildkit/client"
	buildctl "github.com/moby/buildkit/cmd/buildctl/build"

	"cale/image"
)

// exports are where the result goes: into the image store, if nothing else was
// said.
func (f *flags) exports() ([]client.ExportEntry, error) {
	var names []string
	for _, t := range f.tags {
		r, err := image.ParseReference(t)
		if err != nil {
			return nil, fmt.Errorf("invalid tag %q: %w", t, err)
		}
		names = append(names, r.String())
	}
	outputs := f.outputs
	if f.push {
		outputs = append(outputs, "type=registry")
	}
	if len(outputs) == 0 || f.load {
		outputs = append(outputs, "type=image")
	}
	var out []client.ExportEntry
	for _, o := range outputs {
		e, err := f.export(o, names)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

func (f *flags) export(o string, names []string) (e client.ExportEntry, err error) {
	fields := strings.Split(o, ",")
	kind, dest := "", ""
	for _, v := range fields {
		k, value, _ := strings.Cut(v, "=")
		switch k {
		case "type":
			kind = value
		case "dest":
			dest = value
		}
	}
	switch {
	case !strings.Contains(o, "="): // a folder, or an archive on the standard output
		o = "type=local,dest=" + o
		if fields[0] == "-" {
			o = "type=tar,dest=-"
		}
	case kind == "registry":
		o = strings.Replace(o, "type=registry", "type=image,push=true", 1)
	case kind == "docker" && dest == "", kind == "oci" && dest == "" && isTerminal(os.Stdout):
		// Without a place to go it is for the image store, which is here.
		o = strings.Replace(o, "type="+kind, "type=image", 1)
	}
	list, err := buildctl.ParseOutput([]string{o})
	if err != nil {
		return e, err
	}
	e = list[0]
	if e.Type == client.ExporterLocal || e.Type == client.ExporterTar {
		return e, nil
	}
	attrs := maps.Clone(e.Attrs)
	if attrs == nil {
		attrs = map[string]string{}
	}
	if attrs["name"] == "" && len(names) > 0 {
		attrs["name"] = strings.Join(names, ",")
	}
	if e.Type == client.ExporterImage && attrs["push"] == "" && attrs["name"] == "" {
		// The result is kept, as an image without a name.
		attrs["dangling-name-prefix"] = "untagged"
	}
	for _, a := range f.annotations {
		k, v, ok := strings.Cut(a, "=")
		if !ok {
			return e, fmt.Errorf("invalid annotation %q: it is key=value", a)
		}
		key, err := annotationKey(k)
		if err != nil {
			return e, err
		}
		attrs[key] = v
	}
	e.Attrs = attrs
	return e, nil
}

// annotationKey reads "[TYPE[,TYPE]…:]KEY".
func annotationKey(k string) (string, error) {
	kinds, key, ok := strings.Cut(k, ":")
	if !ok {
		return "annotation." + k, nil
	}
	switch kinds {
	case "manifest":
		return "annotation." + key, nil
	case "index":
		return "annotation-index." + key, nil
	case "manifest-descriptor":
		return "annotation-manifest-descriptor." + key, nil
	case "index-descriptor":
		return "annotation-index-descriptor." + key, nil
	}
	return "", fmt.Errorf("invalid annotation %q: its type is manifest, index, manifest-descriptor or index-descriptor", k)
}

func isTerminal(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
