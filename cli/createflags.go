package cli

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"cale/cli/option"
	"cale/client"

	"github.com/spf13/pflag"
)

func (c *createFlags) processFlags(f *pflag.FlagSet) {
	conf, host := &c.config, &c.host
	c.attach = list(f, "attach", "a", "", "Attach to STDIN, STDOUT or STDERR")
	f.BoolVarP(&c.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	f.BoolVarP(&conf.Tty, "tty", "t", false, "Allocate a pseudo-TTY")
	c.env = list(f, "env", "e", "", "Set environment variables")
	c.envFile = list(f, "env-file", "", "", "Read in a file of environment variables")
	c.label = list(f, "label", "l", "", "Set meta data on a container")
	c.labelFile = list(f, "label-file", "", "", "Read in a line delimited file of labels")
	c.annotation = list(f, "annotation", "", "map", "Add an annotation to the container (passed through to the OCI runtime)")
	f.StringVar(&c.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	f.StringVarP(&conf.User, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	f.Var(listInto{&host.GroupAdd}, "group-add", "Add additional groups to join")
	f.StringVarP(&conf.WorkingDir, "workdir", "w", "", "Working directory inside the container")
	f.BoolVar(&c.initProcess, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	f.StringVar(&conf.StopSignal, "stop-signal", "", "Signal to stop the container")
	f.IntVar(&c.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	f.StringVar(&c.restart, "restart", "no", "Restart policy to apply when a container exits")
	f.BoolVar(&host.AutoRemove, "rm", false, "Automatically remove the container and its associated anonymous volumes when it exits")
	f.StringVar(&host.LogConfig.Type, "log-driver", "", "Logging driver for the container")
	c.logOpt = list(f, "log-opt", "", "", "Log driver options")
	f.StringVar(&c.health.Cmd, "health-cmd", "", "Command to run to check health")
	f.DurationVar(&c.health.Interval, "health-interval", 0, "Time between running the check (ms|s|m|h) (default 0s)")
	f.DurationVar(&c.health.Timeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h) (default 0s)")
	f.DurationVar(&c.health.StartPeriod, "health-start-period", 0, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)")
	f.DurationVar(&c.health.StartInterval, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h) (default 0s)")
	f.IntVar(&c.health.Retries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	f.StringVar(&c.health.OnFailure, "health-on-failure", "none", `What to do with an unhealthy container ("none", "kill", "restart", "stop")`)
	f.BoolVar(&c.health.Disable, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
}

func (c *createFlags) networkFlags(f *pflag.FlagSet) {
	conf, host := &c.config, &c.host
	c.publish = list(f, "publish", "p", "", "Publish a container's port(s) to the host")
	f.BoolVarP(&host.PublishAllPorts, "publish-all", "P", false, "Publish all exposed ports to random ports")
	c.expose = list(f, "expose", "", "", "Expose a port or a range of ports")
	c.network = list(f, "network", "", "network", "Connect a container to a network")
	f.Var(c.network, "net", "Connect a container to a network")
	c.alias = list(f, "network-alias", "", "", "Add network-scoped alias for the container")
	f.Var(c.alias, "net-alias", "Add network-scoped alias for the container")
	f.MarkHidden("net")
	f.MarkHidden("net-alias")
	c.linkLocal = list(f, "link-local-ip", "", "", "Container IPv4/IPv6 link-local addresses")
	f.Var(listInto{&host.Links}, "link", "Add link to another container")
	f.StringVar(&c.ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	f.StringVar(&c.ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	f.StringVar(&c.mac, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	f.StringVarP(&conf.Hostname, "hostname", "h", "", "Container host name")
	f.StringVar(&conf.Domainname, "domainname", "", "Container NIS domain name")
	f.Var(listInto{&host.ExtraHosts}, "add-host", "Add a custom host-to-IP mapping (host:ip)")
	c.dns = option.NewList("", option.Address)
	f.Var(c.dns, "dns", "Set custom DNS servers")
	f.Var(listInto{&host.DNSOptions}, "dns-option", "Set DNS options")
	f.Var(listInto{&host.DNSOptions}, "dns-opt", "Set DNS options")
	f.MarkHidden("dns-opt")
	f.Var(listInto{&host.DNSSearch}, "dns-search", "Set custom DNS search domains")
}

func (c *createFlags) storageFlags(f *pflag.FlagSet) {
	host := &c.host
	c.volume = list(f, "volume", "v", "", "Bind mount a volume")
	c.mount = list(f, "mount", "", "mount", "Attach a filesystem mount to the container")
	c.tmpfs = list(f, "tmpfs", "", "", "Mount a tmpfs directory")
	f.Var(listInto{&host.VolumesFrom}, "volumes-from", "Mount volumes from the specified container(s)")
	f.StringVar(&host.VolumeDriver, "volume-driver", "", "Optional volume driver for the container")
	c.storageOpt = list(f, "storage-opt", "", "", "Storage driver options for the container")
	f.BoolVar(&host.ReadonlyRootfs, "read-only", false, "Mount the container's root filesystem as read only")
	f.Var(&c.shm, "shm-size", "Size of /dev/shm")
	f.BoolVar(&c.apiSocket, "use-api-socket", false, "Bind mount the engine's API socket at /var/run/docker.sock")
}

func (c *createFlags) resourceFlags(f *pflag.FlagSet) {
	r := &c.host.Resources
	f.VarP(&c.memory, "memory", "m", "Memory limit")
	f.Var(&c.swap, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	f.Var(&c.reservation, "memory-reservation", "Memory soft limit")
	f.Var(&c.kernelMemory, "kernel-memory", "Kernel memory limit")
	f.Int64Var(&c.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	f.BoolVar(&c.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	f.IntVar(&c.host.OomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	f.Var(&c.cpus, "cpus", "Number of CPUs")
	f.Int64VarP(&r.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	f.Int64Var(&r.CPUPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	f.Int64Var(&r.CPUQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	f.Int64Var(&r.CPURealtimePeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	f.Int64Var(&r.CPURealtimeRuntime, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	f.StringVar(&r.CpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	f.StringVar(&r.CpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	f.Int64Var(&r.CPUCount, "cpu-count", 0, "CPU count (Windows only)")
	f.Int64Var(&r.CPUPercent, "cpu-percent", 0, "CPU percent (Windows only)")
	f.Var(&c.ioBandwidth, "io-maxbandwidth", "Maximum IO bandwidth limit for the system drive (Windows only)")
	f.Int64Var(&c.ioIOps, "io-maxiops", 0, "Maximum IOps limit for the system drive (Windows only)")
	f.Int64Var(&c.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	f.StringVar(&r.CgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	f.Uint16Var(&r.BlkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	c.weights = list(f, "blkio-weight-device", "", "", "Block IO weight (relative device weight)")
	c.readBps = list(f, "device-read-bps", "", "", "Limit read rate (bytes per second) from a device")
	c.readIOps = list(f, "device-read-iops", "", "", "Limit read rate (IO per second) from a device")
	c.writeBps = list(f, "device-write-bps", "", "", "Limit write rate (bytes per second) to a device")
	c.writeIOps = list(f, "device-write-iops", "", "", "Limit write rate (IO per second) to a device")
	c.device = list(f, "device", "", "", "Add a host device to the container")
	f.Var(listInto{&r.DeviceCgroupRules}, "device-cgroup-rule", "Add a rule to the cgroup allowed devices list")
	c.gpus = list(f, "gpus", "", "gpu-request", "GPU devices to add to the container ('all' to pass all GPUs)")
	c.ulimit = list(f, "ulimit", "", "ulimit", "Ulimit options")
}

func (c *createFlags) isolationFlags(f *pflag.FlagSet) {
	host := &c.host
	f.BoolVar(&host.Privileged, "privileged", false, "Give extended privileges to this container")
	f.Var(listInto{&host.CapAdd}, "cap-add", "Add Linux capabilities")
	f.Var(listInto{&host.CapDrop}, "cap-drop", "Drop Linux capabilities")
	f.Var(listInto{&host.SecurityOpt}, "security-opt", "Security Options")
	c.sysctl = list(f, "sysctl", "", "map", "Sysctl options")
	f.StringVar(&host.PidMode, "pid", "", "PID namespace to use")
	f.StringVar(&host.IpcMode, "ipc", "", "IPC mode to use")
	f.StringVar(&host.UTSMode, "uts", "", "UTS namespace to use")
	f.StringVar(&host.UsernsMode, "userns", "", `User namespace to use ("host", "auto" for ids nobody else has, "auto:size=N")`)
	f.StringVar(&host.CgroupnsMode, "cgroupns", "", "Cgroup namespace to use (host|private)")
	f.StringVar(&host.Runtime, "runtime", "", "Runtime to use for this container")
	f.StringVar(&host.Isolation, "isolation", "", "Container isolation technology")
	f.BoolVar(&c.trust, "disable-content-trust", true, "Skip image verification")
}

// buildNetwork fills in ports and networks. The first network takes the
// settings of --ip, --network-alias and their like.
func (c *createFlags) buildNetwork(conf *client.Config, host *client.HostConfig) (*client.NetworkingConfig, error) {
	exposed, bindings, err := option.Ports(c.publish.Values)
	if err != nil {
		return nil, err
	}
	if err := option.Expose(c.expose.Values, exposed); err != nil {
		return nil, err
	}
	conf.ExposedPorts, host.PortBindings = exposed, bindings
	host.DNS = nil
	for _, s := range c.dns.Values {
		host.DNS = append(host.DNS, strings.TrimSpace(s))
	}

	specs := c.network.Values
	if len(specs) == 0 {
		specs = []string{"default"}
	}
	endpoints := map[string]*client.EndpointSettings{}
	for i, spec := range specs {
		n, err := option.ParseNetwork(spec)
		if err != nil {
			return nil, fmt.Errorf("invalid argument %q for \"--network\" flag: %w", spec, err)
		}
		if endpoints[n.Name] != nil {
			return nil, fmt.Errorf("network %q is specified multiple times", n.Name)
		}
		if i > 0 && userDefined(n.Name) != userDefined(host.NetworkMode) {
			return nil, errors.New("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		}
		if i == 0 {
			host.NetworkMode = n.Name
			if err := c.endpointFlags(&n); err != nil {
				return nil, err
			}
		}
		if n.Settings || len(specs) > 1 {
			endpoints[n.Name] = &n.Endpoint
		}
	}
	return &client.NetworkingConfig{EndpointsConfig: endpoints}, nil
}

// userDefined tells the networks that users make from the built-in modes.
func userDefined(mode string) bool {
	switch mode {
	case "default", "bridge", "host", "none":
		return false
	}
	return !strings.HasPrefix(mode, "container:")
}

func (c *createFlags) endpointFlags(n *option.Network) error {
	e := &n.Endpoint
	if n.Settings && (len(c.alias.Values) > 0 || c.ip != "" || c.ip6 != "" || c.mac != "" || len(c.linkLocal.Values) > 0) {
		return errors.New("conflicting options: cannot specify settings of a network both in --network and by a flag of their own")
	}
	if len(c.alias.Values) > 0 {
		e.Aliases, n.Settings = c.alias.Values, true
	}
	if c.mac != "" {
		if _, err := net.ParseMAC(c.mac); err != nil {
			return fmt.Errorf("%s is not a valid mac address", c.mac)
		}
		e.MacAddress, n.Settings = c.mac, true
	}
	if c.ip != "" || c.ip6 != "" || len(c.linkLocal.Values) > 0 {
		n.Settings = true
		e.IPAMConfig = &client.EndpointIPAM{IPv4Address: c.ip, IPv6Address: c.ip6, LinkLocalIPs: c.linkLocal.Values}
	}
	return nil
}
