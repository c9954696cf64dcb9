package cli

// commands is the whole command line. Order in the first group is the help's.
func commands() []entry {
	return []entry{
		{name: "run", short: "Create and run a new container from an image", build: (*App).runCommand, group: common},
		{name: "exec", short: "Execute a command in a running container", build: (*App).execCommand, group: common},
		{name: "ps", short: "List containers", build: (*App).psCommand, group: common},
		{name: "pull", short: "Download an image from a registry", build: (*App).pullCommand, group: common},
		{name: "images", short: "List images", build: (*App).imagesCommand, group: common},

		{name: "attach", short: "Attach local standard input, output, and error streams to a running container", build: (*App).attachCommand, group: other},
		{name: "create", short: "Create a new container", build: (*App).createCommand, group: other},
		{name: "logs", short: "Fetch the logs of a container", build: (*App).logsCommand, group: other},
		{name: "rm", short: "Remove one or more containers", build: (*App).rmCommand, group: other},
		{name: "start", short: "Start one or more stopped containers", build: (*App).startCommand, group: other},
	}
}
