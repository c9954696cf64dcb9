package cli

// commands is the whole command line. Order in the first group is the help's.
func commands() []entry {
	return []entry{
		{name: "run", short: "Create and run a new container from an image", build: (*App).runCommand, group: common},
		{name: "exec", short: "Execute a command in a running container", build: (*App).execCommand, group: common},
		{name: "ps", short: "List containers", build: (*App).psCommand, group: common},
		{name: "build", short: "Build an image from a Dockerfile", build: (*App).buildCommand, group: common},
		{name: "pull", short: "Download an image from a registry", build: (*App).pullCommand, group: common},
		{name: "push", short: "Upload an image to a registry", build: (*App).pushCommand, group: common},
		{name: "images", short: "List images", build: (*App).imagesCommand, group: common},
		{name: "search", short: "Search a registry for images", build: (*App).searchCommand, group: common},
		{name: "login", short: "Authenticate to a registry", build: (*App).loginCommand, group: common},
		{name: "logout", short: "Log out from a registry", build: (*App).logoutCommand, group: common},
		{name: "version", short: "Show version information", build: (*App).versionCommand, group: common},
		{name: "info", short: "Display system-wide information", build: (*App).infoCommand, group: common},

		{name: "checkpoint", short: "Manage checkpoints", build: group(checkpointCommands), group: management},
		{name: "builder", short: "Manage builds", build: group(builderCommands), group: management},
		{name: "container", short: "Manage containers", build: group(containerCommands), group: management},
		{name: "image", short: "Manage images", build: group(imageCommands), group: management},
		{name: "manifest", short: "Manage images of several platforms", build: group(manifestCommands), group: management},
		{name: "network", short: "Manage networks", build: group(networkCommands), group: management},
		{name: "registry", short: "Serve this engine's images as a registry", build: (*App).registryCommand, group: management},
		{name: "system", short: "Manage the engine", build: group(systemCommands), group: management},
		{name: "trust", short: "Manage what images must be signed by", build: group(trustCommands), group: management},
		{name: "volume", short: "Manage volumes", build: group(volumeCommands), group: management},

		{name: "attach", short: "Attach local standard input, output, and error streams to a running container", build: (*App).attachCommand, group: other},
		{name: "commit", short: "Create a new image from a container's changes", build: (*App).commitCommand, group: other},
		{name: "cp", short: "Copy files/folders between a container and the local filesystem", build: (*App).cpCommand, group: other},
		{name: "create", short: "Create a new container", build: (*App).createCommand, group: other},
		{name: "diff", short: "Inspect changes to files or directories on a container's filesystem", build: (*App).diffCommand, group: other},
		{name: "events", short: "Get real time events from the server", build: (*App).eventsCommand, group: other},
		{name: "explain", short: "Tell why a container ended, did not start, or is refused things", build: (*App).explainCommand, group: other},
		{name: "export", short: "Export a container's filesystem as a tar archive", build: (*App).exportCommand, group: other},
		{name: "history", short: "Show the history of an image", build: (*App).historyCommand, group: other},
		{name: "import", short: "Import the contents from a tarball to create a filesystem image", build: (*App).importCommand, group: other},
		{name: "inspect", short: "Return low-level information on the engine's objects", build: (*App).inspectCommand, group: other},
		{name: "kill", short: "Kill one or more running containers", build: (*App).killCommand, group: other},
		{name: "load", short: "Load an image from a tar archive or STDIN", build: (*App).loadCommand, group: other},
		{name: "logs", short: "Fetch the logs of a container", build: (*App).logsCommand, group: other},
		{name: "monitor", short: "Watch what containers use and how they fare, live on a terminal", build: (*App).monitorCommand, group: other},
		{name: "pause", short: "Pause all processes within one or more containers", build: (*App).pauseCommand, group: other},
		{name: "port", short: "List port mappings or a specific mapping for the container", build: (*App).portCommand, group: other},
		{name: "rename", short: "Rename a container", build: (*App).renameCommand, group: other},
		{name: "restart", short: "Restart one or more containers", build: (*App).restartCommand, group: other},
		{name: "rm", short: "Remove one or more containers", build: (*App).rmCommand, group: other},
		{name: "rmi", short: "Remove one or more images", build: (*App).rmiCommand, group: other},
		{name: "save", short: "Save one or more images to a tar archive (streamed to STDOUT by default)", build: (*App).saveCommand, group: other},
		{name: "start", short: "Start one or more stopped containers", build: (*App).startCommand, group: other},
		{name: "stats", short: "Display a live stream of container(s) resource usage statistics", build: (*App).statsCommand, group: other},
		{name: "stop", short: "Stop one or more running containers", build: (*App).stopCommand, group: other},
		{name: "tag", short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", build: (*App).tagCommand, group: other},
		{name: "top", short: "Display the running processes of a container", build: (*App).topCommand, group: other},
		{name: "unpause", short: "Unpause all processes within one or more containers", build: (*App).unpauseCommand, group: other},
		{name: "update", short: "Update configuration of one or more containers", build: (*App).updateCommand, group: other},
		{name: "wait", short: "Block until one or more containers stop, then print their exit codes", build: (*App).waitCommand, group: other},
	}
}

// same takes commands of the top level into a group, under the same names.
func same(names ...string) []entry {
	var table []entry
	for _, e := range commands() {
		for _, n := range names {
			if e.name == n {
				e.group = ""
				table = append(table, e)
			}
		}
	}
	return table
}

func containerCommands() []entry {
	return append(same("attach", "commit", "cp", "create", "diff", "exec", "explain", "export", "kill", "logs", "monitor", "pause", "port", "rename", "restart",
		"run", "start", "stats", "stop", "top", "unpause", "update", "wait"),
		entry{name: "inspect", short: "Display detailed information on one or more containers", build: inspectKind("container")},
		entry{name: "ls", aliases: []string{"ps", "list"}, short: "List containers", build: (*App).psCommand},
		entry{name: "prune", short: "Remove all stopped containers", build: pruneKind("containers", "This will remove all stopped containers.", "Deleted Containers:", true)},
		entry{name: "rm", aliases: []string{"remove"}, short: "Remove one or more containers", build: (*App).rmCommand})
}

func imageCommands() []entry {
	return append(same("build", "history", "import", "load", "pull", "push", "save", "tag"),
		entry{name: "inspect", short: "Display detailed information on one or more images", build: inspectKind("image")},
		entry{name: "ls", aliases: []string{"list"}, short: "List images", build: (*App).imagesCommand},
		entry{name: "prune", short: "Remove unused images", build: (*App).imagePruneCommand},
		entry{name: "rm", aliases: []string{"remove"}, short: "Remove one or more images", build: (*App).rmiCommand},
		entry{name: "sign", short: "Sign an image in its registry", build: (*App).imageSignCommand},
		entry{name: "verify", short: "Tell whether an image is signed as it must be", build: (*App).imageVerifyCommand},
		entry{name: "why", short: "Tell what holds an image, a blob or a layer", build: (*App).imageWhyCommand})
}
