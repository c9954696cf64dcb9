package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"cale/cli/format"
	"cale/client"

	"github.com/spf13/cobra"
)

// inspector asks the engine for one kind of object, as it writes it.
type inspector struct {
	kind string
	get  func(ctx context.Context, api *client.Client, name string) ([]byte, error)
}

func inspectors(size bool, platform string, verbose bool) []inspector {
	return []inspector{
		{"container", func(ctx context.Context, api *client.Client, n string) ([]byte, error) {
			return api.ContainerInspectRaw(ctx, n, size)
		}},
		{"image", func(ctx context.Context, api *client.Client, n string) ([]byte, error) {
			return api.ImageInspectRaw(ctx, n, platform)
		}},
		{"network", func(ctx context.Context, api *client.Client, n string) ([]byte, error) {
			return api.NetworkInspectRaw(ctx, n, verbose)
		}},
		{"volume", func(ctx context.Context, api *client.Client, n string) ([]byte, error) {
			return api.VolumeInspectRaw(ctx, n)
		}},
	}
}

func (a *App) inspectCommand() *cobra.Command {
	c := &cobra.Command{Use: "inspect [OPTIONS] NAME|ID [NAME|ID...]", Args: atLeast(1), ValidArgsFunction: a.completeContainers(false)}
	f := c.Flags()
	layout := f.StringP("format", "f", "", inspectUsage)
	size := f.BoolP("size", "s", false, "Display total file sizes if the type is container")
	kind := f.String("type", "", "Only inspect objects of the given type (container, image, network, volume)")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		use := inspectors(*size, "", false)
		if f.Changed("type") {
			use = pick(use, *kind)
			if use == nil {
				return fmt.Errorf("%q is not a valid value for --type: must be container, image, network or volume", *kind)
			}
		}
		return a.inspect(cmd.Context(), use, args, *layout)
	}
	return c
}

const inspectUsage = `Format output using a custom template:
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.`

func pick(all []inspector, kind string) []inspector {
	for _, i := range all {
		if i.kind == kind {
			return []inspector{i}
		}
	}
	return nil
}

// inspectKind makes the inspect command of one kind's group.
func inspectKind(kind string) func(*App) *cobra.Command {
	return func(a *App) *cobra.Command {
		c := &cobra.Command{Use: fmt.Sprintf("inspect [OPTIONS] %s [%[1]s...]", strings.ToUpper(kind)), Args: atLeast(1)}
		f := c.Flags()
		layout := f.StringP("format", "f", "", inspectUsage)
		var size, verbose bool
		var platform string
		switch kind {
		case "container":
			f.BoolVarP(&size, "size", "s", false, "Display total file sizes")
			c.ValidArgsFunction = a.completeContainers(false)
		case "image":
			f.StringVar(&platform, "platform", "", "Inspect a specific platform of the multi-platform image (os[/arch[/variant]])")
			c.ValidArgsFunction = a.completeImages
		case "network":
			f.BoolVarP(&verbose, "verbose", "v", false, "Verbose output for diagnostics")
			c.ValidArgsFunction = a.completeNetworks
		case "volume":
			c.ValidArgsFunction = a.completeVolumes
		}
		c.RunE = func(cmd *cobra.Command, args []string) error {
			return a.inspect(cmd.Context(), pick(inspectors(size, platformJSON(platform), verbose), kind), args, *layout)
		}
		return c
	}
}

// platformJSON is os/arch[/variant] in the form of those parts of the API that
// take a platform as JSON.
func platformJSON(s string) string {
	if s == "" {
		return ""
	}
	p := struct {
		OS           string `json:"os,omitempty"`
		Architecture string `json:"architecture,omitempty"`
		Variant      string `json:"variant,omitempty"`
	}{}
	parts := append(strings.SplitN(s, "/", 3), "", "")
	p.OS, p.Architecture, p.Variant = parts[0], parts[1], parts[2]
	b, _ := json.Marshal(p)
	return string(b)
}

// inspect prints objects as one JSON array, or each through a template. Every
// inspector is tried until one knows the object.
func (a *App) inspect(ctx context.Context, use []inspector, names []string, layout string) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	var found [][]byte
	var failures []error
	for _, name := range names {
		raw, err := inspectOne(ctx, api, use, name)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		found = append(found, raw)
	}
	if err := a.printInspected(found, layout); err != nil {
		return err
	}
	for _, err := range failures {
		fmt.Fprintf(a.Err, "cale: %v\n", err)
	}
	if len(failures) > 0 {
		return &Exit{Code: 1}
	}
	return nil
}

func inspectOne(ctx context.Context, api *client.Client, use []inspector, name string) ([]byte, error) {
	for _, i := range use {
		raw, err := i.get(ctx, api, name)
		if err == nil {
			return bytes.TrimSpace(raw), nil
		}
		if !client.IsNotFound(err) || len(use) == 1 {
			return nil, err
		}
	}
	return nil, fmt.Errorf("no such object: %s", name)
}

func (a *App) printInspected(found [][]byte, layout string) error {
	if layout == "" || layout == "json" {
		array := append(append([]byte("["), bytes.Join(found, []byte(","))...), ']')
		var b bytes.Buffer
		shape := func() error { return json.Indent(&b, array, "", "    ") }
		if layout == "json" {
			shape = func() error { return json.Compact(&b, array) }
		}
		if err := shape(); err != nil {
			return err
		}
		b.WriteByte('\n')
		_, err := a.Out.Write(b.Bytes())
		return err
	}
	t, err := format.Template(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(layout))
	if err != nil {
		return err
	}
	t.Option("missingkey=error")
	for _, raw := range found {
		v, err := format.Object(raw)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := t.Execute(&b, v); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		b.WriteByte('\n')
		if _, err := a.Out.Write(b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}
