package cli

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"cale/client"
)

// workingHealth adds Buildah's flags of an image's health check; the function
// puts what they say into a configuration.
func workingHealth(f *pflag.FlagSet) func(*client.Config) error {
	check := f.String("healthcheck", "", "Set the health check (\"CMD command\", a JSON list that begins with \"CMD\" or \"CMD-SHELL\", or NONE)")
	interval := f.Duration("healthcheck-interval", 0, "Time between health checks")
	timeout := f.Duration("healthcheck-timeout", 0, "Time that a health check may take")
	start := f.Duration("healthcheck-start-period", 0, "Time from the start during which health checks may fail")
	retries := f.Int("healthcheck-retries", 0, "Failures of a row after which the container is unhealthy")
	return func(cfg *client.Config) error {
		if f.Changed("healthcheck") {
			test, err := healthTest(*check)
			if err != nil {
				return err
			}
			cfg.Healthcheck = &client.Healthcheck{Test: test}
		}
		set := func(name string, put func(*client.Healthcheck)) error {
			if !f.Changed(name) {
				return nil
			}
			if cfg.Healthcheck == nil {
				return fmt.Errorf("--%s: the image has no health check, and there is no --healthcheck", name)
			}
			put(cfg.Healthcheck)
			return nil
		}
		for name, put := range map[string]func(*client.Healthcheck){
			"healthcheck-interval":     func(h *client.Healthcheck) { h.Interval = int64(*interval) },
			"healthcheck-timeout":      func(h *client.Healthcheck) { h.Timeout = int64(*timeout) },
			"healthcheck-start-period": func(h *client.Healthcheck) { h.StartPeriod = int64(*start) },
			"healthcheck-retries":      func(h *client.Healthcheck) { h.Retries = *retries },
		} {
			if err := set(name, put); err != nil {
				return err
			}
		}
		return nil
	}
}

// healthTest reads what is to be run: a line is the shell's.
func healthTest(s string) ([]string, error) {
	var list []string
	switch word, rest, _ := strings.Cut(strings.TrimSpace(s), " "); {
	case s == "NONE":
		return []string{"NONE"}, nil
	case word == "CMD" && strings.TrimSpace(rest) != "":
		if json.Unmarshal([]byte(rest), &list) == nil {
			return append([]string{"CMD"}, list...), nil
		}
		return []string{"CMD-SHELL", strings.TrimSpace(rest)}, nil
	case json.Unmarshal([]byte(s), &list) == nil && len(list) > 1 && (list[0] == "CMD" || list[0] == "CMD-SHELL"):
		return list, nil
	}
	return nil, fmt.Errorf("invalid --healthcheck %q: it is NONE, \"CMD command\", or a JSON list that begins with \"CMD\" or \"CMD-SHELL\"", s)
}

// workingPushCommand is push, and gives the image its name at the registry before
// if one is given.
func (a *App) workingPushCommand() *cobra.Command {
	c := a.pushCommand()
	push := c.RunE
	c.Use, c.Args = "push [OPTIONS] IMAGE [DESTINATION]", cobra.RangeArgs(1, 2)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			return push(cmd, args)
		}
		to := strings.TrimPrefix(args[1], "docker://")
		if strings.Contains(to, ":/") {
			return fmt.Errorf("destination %s: images are pushed to registries (docker://NAME); \"cale save\" writes archives", args[1])
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		name, tag, _ := splitName(to)
		if tag == "" {
			tag = "latest"
		}
		if err := api.ImageTag(cmd.Context(), args[0], name, tag); err != nil {
			return err
		}
		return push(cmd, []string{name + ":" + tag})
	}
	return c
}
