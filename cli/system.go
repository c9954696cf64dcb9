package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"cale/cli/format"
	"cale/cli/option"
	"cale/client"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

func systemCommands() []entry {
	return []entry{
		{name: "check", short: "Read back what is stored, and look for damage", build: (*App).systemCheckCommand},
		{name: "df", short: "Show disk usage", build: (*App).dfCommand},
		{name: "dial-stdio", short: "Connect stdin and stdout with the engine's socket, for clients that come by ssh", build: (*App).dialStdioCommand},
		{name: "events", short: "Get real time events from the server", build: (*App).eventsCommand},
		{name: "info", short: "Display system-wide information", build: (*App).infoCommand},
		{name: "prune", short: "Remove unused data", build: (*App).systemPruneCommand},
	}
}

func (a *App) versionCommand() *cobra.Command {
	c := &cobra.Command{Use: "version [OPTIONS]", Args: noArgs}
	layout := c.Flags().StringP("format", "f", "", inspectUsage)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var v struct {
			Client struct{ Version, APIVersion, GitCommit, GoVersion, Os, Arch string }
			Server *client.ServerVersion
		}
		v.Client.Version, v.Client.GitCommit, v.Client.GoVersion = Version, Commit, runtime.Version()
		v.Client.Os, v.Client.Arch, v.Client.APIVersion = runtime.GOOS, runtime.GOARCH, client.MaxVersion
		api, err := a.client()
		if err == nil {
			var s client.ServerVersion
			if s, err = api.ServerVersion(cmd.Context()); err == nil {
				v.Server, v.Client.APIVersion = &s, api.Version()
			}
		}
		if *layout != "" {
			if perr := a.printOne(*layout, v); perr != nil {
				return perr
			}
			return err
		}
		row := func(indent int, name, value string) {
			if value != "" {
				fmt.Fprintf(a.Out, "%*s%-*s%s\n", indent, "", 20-indent, name+":", value)
			}
		}
		fmt.Fprintln(a.Out, "Client:")
		row(1, "Version", v.Client.Version)
		row(1, "API version", v.Client.APIVersion)
		row(1, "Go version", v.Client.GoVersion)
		row(1, "Git commit", v.Client.GitCommit)
		row(1, "OS/Arch", v.Client.Os+"/"+v.Client.Arch)
		if s := v.Server; s != nil {
			fmt.Fprintf(a.Out, "\nServer: %s\n", s.Platform.Name)
			for _, p := range s.Components {
				fmt.Fprintf(a.Out, " %s:\n", p.Name)
				row(2, "Version", p.Version)
				if strings.EqualFold(p.Name, "Engine") {
					row(2, "API version", fmt.Sprintf("%s (minimum version %s)", p.Details["ApiVersion"], p.Details["MinAPIVersion"]))
					row(2, "OS/Arch", p.Details["Os"]+"/"+p.Details["Arch"])
				}
				for _, k := range []struct{ key, name string }{{"GoVersion", "Go version"}, {"GitCommit", "Git commit"}, {"BuildTime", "Built"}} {
					row(2, k.name, p.Details[k.key])
				}
			}
			if len(s.Components) == 0 {
				row(1, "Version", s.Version)
				row(1, "API version", fmt.Sprintf("%s (minimum version %s)", s.APIVersion, s.MinAPIVersion))
				row(1, "Go version", s.GoVersion)
				row(1, "OS/Arch", s.Os+"/"+s.Arch)
			}
		}
		return err
	}
	return c
}

// printOne puts one value through a template, or prints it as JSON.
func (a *App) printOne(layout string, v any) error {
	if layout == "json" {
		layout = "{{json .}}"
	}
	t, err := format.Template(layout)
	if err != nil {
		return err
	}
	t.Option("missingkey=error")
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	_, err = fmt.Fprintf(a.Out, "%s\n", b.Bytes())
	return err
}

func (a *App) infoCommand() *cobra.Command {
	c := &cobra.Command{Use: "info [OPTIONS]", Args: noArgs}
	layout := c.Flags().StringP("format", "f", "", inspectUsage)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		raw, err := api.Info(cmd.Context())
		if err != nil {
			return err
		}
		if *layout == "json" {
			var b bytes.Buffer
			if err := json.Compact(&b, raw); err != nil {
				return err
			}
			_, err := fmt.Fprintf(a.Out, "%s\n", b.Bytes())
			return err
		}
		v, err := format.Object(raw)
		if err != nil {
			return err
		}
		if *layout != "" {
			return a.printOne(*layout, format.Info(v))
		}
		return a.printInfo(v)
	}
	return c
}

func (a *App) printInfo(v any) error {
	m, _ := v.(map[string]any)
	w := a.Out
	fmt.Fprintf(w, "Client:\n Version:    %s\n\nServer:\n", Version)
	for _, r := range []struct{ label, key string }{
		{"Containers", "Containers"}, {" Running", "ContainersRunning"}, {" Paused", "ContainersPaused"}, {" Stopped", "ContainersStopped"},
		{"Images", "Images"}, {"Server Version", "ServerVersion"}, {"Storage Driver", "Driver"}, {"Logging Driver", "LoggingDriver"},
		{"Cgroup Driver", "CgroupDriver"}, {"Cgroup Version", "CgroupVersion"}, {"Default Runtime", "DefaultRuntime"}, {"Init Binary", "InitBinary"},
		{"Kernel Version", "KernelVersion"}, {"Operating System", "OperatingSystem"}, {"OSType", "OSType"}, {"Architecture", "Architecture"},
		{"CPUs", "NCPU"}, {"Total Memory", "MemTotal"}, {"Name", "Name"}, {"ID", "ID"}, {"Data Root", "DockerRootDir"}, {"Debug Mode", "Debug"},
		{"HTTP Proxy", "HttpProxy"}, {"HTTPS Proxy", "HttpsProxy"}, {"No Proxy", "NoProxy"},
	} {
		value, ok := m[r.key]
		if !ok || value == nil || value == "" {
			continue
		}
		if n, isInt := value.(int64); isInt && r.key == "MemTotal" {
			value = units.BytesSize(float64(n))
		}
		fmt.Fprintf(w, " %s: %v\n", r.label, value)
		if r.key == "Driver" {
			if pairs, ok := m["DriverStatus"].([]any); ok {
				for _, p := range pairs {
					if kv, ok := p.([]any); ok && len(kv) == 2 {
						fmt.Fprintf(w, "  %v: %v\n", kv[0], kv[1])
					}
				}
			}
		}
	}
	if opts, ok := m["SecurityOptions"].([]any); ok && len(opts) > 0 {
		fmt.Fprintln(w, " Security Options:")
		for _, o := range opts {
			fmt.Fprintf(w, "  %v\n", strings.TrimPrefix(fmt.Sprint(o), "name="))
		}
	}
	if warnings, ok := m["Warnings"].([]any); ok {
		for _, o := range warnings {
			fmt.Fprintln(a.Err, o)
		}
	}
	return nil
}

func (a *App) eventsCommand() *cobra.Command {
	c := &cobra.Command{Use: "events [OPTIONS]", Args: noArgs}
	f := c.Flags()
	filter := addFilter(f, "Filter output based on conditions provided")
	layout := f.String("format", "", inspectUsage)
	since := f.String("since", "", "Show all events created since timestamp")
	until := f.String("until", "", "Stream events until this timestamp")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		now := time.Now()
		from, err := option.Time(*since, now)
		if err != nil {
			return fmt.Errorf("invalid value for \"since\": %w", err)
		}
		to, err := option.Time(*until, now)
		if err != nil {
			return fmt.Errorf("invalid value for \"until\": %w", err)
		}
		shape := *layout
		if shape == "json" {
			shape = "{{json .}}"
		}
		t, err := format.Template(shape)
		if err != nil {
			return err
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		r, err := api.Events(cmd.Context(), from, to, filter)
		if err != nil {
			return err
		}
		defer r.Close()
		for d := json.NewDecoder(r); ; {
			var raw json.RawMessage
			if err := d.Decode(&raw); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			var e format.Event
			if err := json.Unmarshal(raw, &e); err != nil {
				return err
			}
			if shape == "" {
				fmt.Fprintln(a.Out, e.Line())
				continue
			}
			var b bytes.Buffer
			if err := t.Execute(&b, e); err != nil {
				return fmt.Errorf("template parsing error: %w", err)
			}
			fmt.Fprintf(a.Out, "%s\n", b.Bytes())
		}
	}
	return c
}

func (a *App) dfCommand() *cobra.Command {
	c := &cobra.Command{Use: "df [OPTIONS]", Args: noArgs}
	f := c.Flags()
	verbose := f.BoolP("verbose", "v", false, "Show detailed information on space usage")
	layout := f.String("format", "", formatUsage)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		du, err := api.DiskUsage(cmd.Context())
		if err != nil {
			return err
		}
		if *verbose && *layout == "" {
			return a.dfVerbose(du)
		}
		shape := *layout
		if shape == "" || shape == "table" {
			shape = format.UsageTable
		}
		return format.Write(a.Out, shape, format.UsageHeader, format.Usage(du))
	}
	return c
}

func (a *App) dfVerbose(du client.DiskUsage) error {
	now := time.Now()
	fmt.Fprint(a.Out, "Images space usage:\n\n")
	var images []format.Image
	for _, i := range du.Images {
		// One row each: two names of an image take no more.
		images = append(images, format.NewImages(i, false, false, now)[0])
	}
	err := format.Write(a.Out, "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}", format.ImageHeader, images)
	if err != nil {
		return err
	}
	fmt.Fprint(a.Out, "\nContainers space usage:\n\n")
	var containers []format.Container
	for _, c := range du.Containers {
		c.SizeRootFs = 0
		containers = append(containers, format.NewContainer(c, false, now))
	}
	err = format.Write(a.Out, "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}", format.ContainerHeader, containers)
	if err != nil {
		return err
	}
	fmt.Fprint(a.Out, "\nLocal Volumes space usage:\n\n")
	var volumes []format.Volume
	for _, v := range du.Volumes {
		volumes = append(volumes, format.NewVolume(v))
	}
	if err := format.Write(a.Out, "table {{.Name}}\t{{.Links}}\t{{.Size}}", format.VolumeHeader, volumes); err != nil {
		return err
	}
	var records []format.CacheRecord
	var size int64
	for _, b := range du.BuildCache {
		if !b.Shared {
			size += b.Size
		}
		records = append(records, format.NewCacheRecord(b, now))
	}
	fmt.Fprintf(a.Out, "\nBuild cache usage: %s\n\n", units.HumanSize(float64(size)))
	return format.Write(a.Out, format.CacheTable, format.CacheHeader, records)
}
