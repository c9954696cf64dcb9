package cli

import (
	"strings"

	"cale/client"

	"github.com/spf13/cobra"
)

type completer = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// running tells the engine only if it runs: completion starts none.
func (a *App) running() *client.Client {
	if a.host == "" {
		a.host = "unix://" + a.run + "/docker.sock"
	}
	api, err := a.client()
	if err != nil {
		return nil
	}
	return api
}

// completeContainers offers containers' names, of running ones only if asked.
func (a *App) completeContainers(runningOnly bool) completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		api := a.running()
		if api == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		containers, err := api.ContainerList(cmd.Context(), client.List{All: !runningOnly})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, c := range containers {
			for _, n := range c.Names {
				names = append(names, strings.TrimPrefix(n, "/"))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeImages offers images' names as the first argument.
func (a *App) completeImages(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	api := a.running()
	if api == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	images, err := api.ImageList(cmd.Context(), false, false, nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, i := range images {
		names = append(names, i.RepoTags...)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeVolumes and completeNetworks offer names.
func (a *App) completeVolumes(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if api := a.running(); api != nil {
		volumes, _, _ := api.VolumeList(cmd.Context(), nil)
		for _, v := range volumes {
			names = append(names, v.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *App) completeNetworks(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if api := a.running(); api != nil {
		networks, _ := api.NetworkList(cmd.Context(), nil)
		for _, n := range networks {
			names = append(names, n.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// first offers what c does as the first argument only, and files after it.
func first(c completer) completer {
	return func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return c(cmd, args, start)
	}
}
