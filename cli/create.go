package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"cale/cli/option"
	"cale/client"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// createFlags are the flags that run and create share.
type createFlags struct {
	config     client.Config
	host       client.HostConfig
	health     option.Health
	env        *option.List
	envFile    *option.List
	label      *option.List
	labelFile  *option.List
	publish    *option.List
	expose     *option.List
	volume     *option.List
	mount      *option.List
	tmpfs      *option.List
	network    *option.List
	alias      *option.List
	dns        *option.List
	device     *option.List
	gpus       *option.List
	ulimit     *option.List
	attach     *option.List
	annotation *option.List
	sysctl     *option.List
	logOpt     *option.List
	storageOpt *option.List
	linkLocal  *option.List
	readBps    *option.List
	writeBps   *option.List
	readIOps   *option.List
	writeIOps  *option.List
	weights    *option.List

	memory, swap, reservation, kernelMemory, shm, ioBandwidth option.Bytes
	cpus                                                      option.CPUs

	name, platform, pull, cidFile, entrypoint, restart, ip, ip6, mac string
	quiet, initProcess, oomKillDisable, apiSocket, trust             bool
	interactive                                                      bool
	swappiness, pidsLimit, ioIOps                                    int64
	stopTimeout                                                      int

	flags *pflag.FlagSet
}

// list adds a flag that may be given several times.
func list(f *pflag.FlagSet, name, short, kind, usage string) *option.List {
	l := option.NewList(kind, nil)
	f.VarP(l, name, short, usage)
	return l
}

// listInto adds such a flag that fills a slice.
type listInto struct {
	into *[]string
}

func (l listInto) Set(s string) error { *l.into = append(*l.into, s); return nil }
func (l listInto) String() string     { return "" }
func (l listInto) Type() string       { return "list" }

func addCreateFlags(f *pflag.FlagSet) *createFlags {
	c := &createFlags{flags: f, swap: option.Bytes{Unlimited: true}, reservation: option.Bytes{}}
	f.SetInterspersed(false)
	f.StringVar(&c.name, "name", "", "Assign a name to the container")
	f.StringVar(&c.platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
	f.StringVar(&c.pull, "pull", "missing", `Pull image before running ("always", "missing", "never")`)
	f.BoolVarP(&c.quiet, "quiet", "q", false, "Suppress the pull output")
	f.StringVar(&c.cidFile, "cidfile", "", "Write the container ID to the file")
	c.processFlags(f)
	c.networkFlags(f)
	c.storageFlags(f)
	c.resourceFlags(f)
	c.isolationFlags(f)
	return c
}

// checkRefusals refuses values that nothing is made of.
func (c *createFlags) checkRefusals() error {
	switch c.pull {
	case "always", "missing", "never", "":
	default:
		return fmt.Errorf("invalid pull option: '%s': must be one of \"always\", \"missing\" or \"never\"", c.pull)
	}
	if !c.trust {
		return errors.New("--disable-content-trust=false: image signatures by content trust are not supported")
	}
	return nil
}

// build turns the flags into the API's request.
func (c *createFlags) build(a *App, image string, command []string) (*client.Config, *client.HostConfig, *client.NetworkingConfig, error) {
	fail := func(err error) (*client.Config, *client.HostConfig, *client.NetworkingConfig, error) {
		return nil, nil, nil, err
	}
	if err := c.checkRefusals(); err != nil {
		return fail(err)
	}
	conf, host := &c.config, &c.host
	conf.Image = image
	if len(command) > 0 {
		conf.Cmd = command
	}
	if err := c.buildProcess(conf, host); err != nil {
		return fail(err)
	}
	if err := c.buildStorage(a, conf, host); err != nil {
		return fail(err)
	}
	if err := c.buildResources(host); err != nil {
		return fail(err)
	}
	networking, err := c.buildNetwork(conf, host)
	if err != nil {
		return fail(err)
	}
	if w, h, ok := terminalSize(a.Out); ok && conf.Tty {
		host.ConsoleSize = [2]uint{h, w}
	}
	return conf, host, networking, nil
}

func (c *createFlags) buildProcess(conf *client.Config, host *client.HostConfig) error {
	var err error
	if conf.Env, err = option.Env(c.envFile.Values, c.env.Values); err != nil {
		return err
	}
	if conf.Labels, err = option.Labels(c.labelFile.Values, c.label.Values); err != nil {
		return err
	}
	if c.flags.Changed("entrypoint") {
		// An empty one resets the image's.
		conf.Entrypoint = []string{c.entrypoint}
	}
	if c.flags.Changed("stop-timeout") {
		conf.StopTimeout = &c.stopTimeout
	}
	if c.flags.Changed("init") {
		host.Init = &c.initProcess
	}
	if conf.Healthcheck, err = c.health.Config(); err != nil {
		return err
	}
	if host.RestartPolicy, err = option.RestartPolicy(c.restart); err != nil {
		return err
	}
	if host.AutoRemove && host.RestartPolicy.Name != "" && host.RestartPolicy.Name != "no" {
		return errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	conf.OpenStdin = c.interactive
	if len(c.attach.Values) == 0 {
		conf.AttachStdin, conf.AttachStdout, conf.AttachStderr = c.interactive, true, true
	}
	for _, s := range c.attach.Values {
		switch strings.ToLower(s) {
		case "stdin":
			conf.AttachStdin = true
		case "stdout":
			conf.AttachStdout = true
		case "stderr":
			conf.AttachStderr = true
		default:
			return fmt.Errorf("invalid argument %q for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR", s)
		}
	}
	conf.StdinOnce = conf.OpenStdin && conf.AttachStdin
	for _, pairs := range []struct {
		flag   string
		values []string
		into   *map[string]string
	}{{"annotation", c.annotation.Values, &host.Annotations}, {"sysctl", c.sysctl.Values, &host.Sysctls},
		{"storage-opt", c.storageOpt.Values, &host.StorageOpt}} {
		for _, v := range pairs.values {
			if err := option.CheckPair(v); err != nil {
				return fmt.Errorf("--%s: %w", pairs.flag, err)
			}
		}
		if len(pairs.values) > 0 {
			*pairs.into = option.Map(pairs.values)
		}
	}
	if on := c.health.OnFailure; on != "none" {
		if host.Annotations == nil {
			host.Annotations = map[string]string{}
		}
		host.Annotations["cale.health-on-failure"] = on
	}
	if host.LogConfig.Type == "none" && len(c.logOpt.Values) > 0 {
		return errors.New("invalid logging opts for driver none")
	}
	host.LogConfig.Config = option.Map(c.logOpt.Values)
	return c.buildSecurity(host)
}

func (c *createFlags) buildSecurity(host *client.HostConfig) error {
	host.CapAdd, host.CapDrop = option.Capabilities(host.CapAdd), option.Capabilities(host.CapDrop)
	opts := host.SecurityOpt
	host.SecurityOpt = nil
	for _, o := range opts {
		key, value, ok := strings.Cut(o, "=")
		if !ok {
			key, value, ok = strings.Cut(o, ":")
		}
		switch {
		case !ok && o != "no-new-privileges":
			return fmt.Errorf("invalid --security-opt: %q", o)
		case key == "systempaths":
			if value != "unconfined" {
				return fmt.Errorf("invalid --security-opt: %q: systempaths can only be unconfined", o)
			}
			host.MaskedPaths, host.ReadonlyPaths = []string{}, []string{}
			continue
		case key == "seccomp":
			profile, err := option.SeccompProfile(value)
			if err != nil {
				return err
			}
			o = "seccomp=" + profile
		}
		host.SecurityOpt = append(host.SecurityOpt, o)
	}
	return nil
}

func (c *createFlags) buildStorage(a *App, conf *client.Config, host *client.HostConfig) error {
	var err error
	if conf.Volumes, host.Binds, err = option.Volumes(c.volume.Values); err != nil {
		return err
	}
	for _, s := range c.mount.Values {
		m, err := option.Mount(s)
		if err != nil {
			return fmt.Errorf("invalid argument %q for \"--mount\" flag: %w", s, err)
		}
		host.Mounts = append(host.Mounts, m)
	}
	if c.apiSocket {
		socket, err := filepath.Abs(filepath.Join(a.run, "docker.sock"))
		if err != nil {
			return err
		}
		host.Mounts = append(host.Mounts, client.Mount{Type: "bind", Source: socket, Target: "/var/run/docker.sock"})
	}
	if len(c.tmpfs.Values) > 0 {
		host.Tmpfs = option.Tmpfs(c.tmpfs.Values)
	}
	host.ShmSize = c.shm.Value
	return nil
}

func (c *createFlags) buildResources(host *client.HostConfig) error {
	r := &host.Resources
	r.Memory, r.MemorySwap, r.MemoryReservation = c.memory.Value, c.swap.Value, c.reservation.Value
	r.KernelMemory, r.NanoCPUs, r.IOMaximumBandwidth, r.IOMaximumIOps = c.kernelMemory.Value, c.cpus.Value, c.ioBandwidth.Value, c.ioIOps
	if c.flags.Changed("memory-swappiness") {
		if c.swappiness != -1 && (c.swappiness < 0 || c.swappiness > 100) {
			return fmt.Errorf("invalid value: %d. Valid memory swappiness range is 0-100", c.swappiness)
		}
		r.MemorySwappiness = &c.swappiness
	}
	if c.flags.Changed("pids-limit") {
		r.PidsLimit = &c.pidsLimit
	}
	if c.oomKillDisable {
		r.OomKillDisable = &c.oomKillDisable
	}
	for _, s := range c.device.Values {
		d, cdi, err := option.Device(s)
		switch {
		case err != nil:
			return err
		case cdi:
			r.DeviceRequests = append(r.DeviceRequests, client.DeviceRequest{Driver: "cdi", DeviceIDs: []string{s}})
		default:
			r.Devices = append(r.Devices, d)
		}
	}
	for _, s := range c.gpus.Values {
		g, err := option.GPUs(s)
		if err != nil {
			return fmt.Errorf("invalid argument %q for \"--gpus\" flag: %w", s, err)
		}
		r.DeviceRequests = append(r.DeviceRequests, g)
	}
	for _, s := range c.ulimit.Values {
		u, err := units.ParseUlimit(s)
		if err != nil {
			return fmt.Errorf("invalid argument %q for \"--ulimit\" flag: %w", s, err)
		}
		r.Ulimits = append(r.Ulimits, client.Ulimit{Name: u.Name, Hard: u.Hard, Soft: u.Soft})
	}
	for _, t := range []struct {
		values []string
		bytes  bool
		into   *[]client.ThrottleDevice
	}{{c.readBps.Values, true, &r.BlkioDeviceReadBps}, {c.writeBps.Values, true, &r.BlkioDeviceWriteBps},
		{c.readIOps.Values, false, &r.BlkioDeviceReadIOps}, {c.writeIOps.Values, false, &r.BlkioDeviceWriteIOps}} {
		for _, s := range t.values {
			d, err := option.Throttle(s, t.bytes)
			if err != nil {
				return err
			}
			*t.into = append(*t.into, d)
		}
	}
	for _, s := range c.weights.Values {
		w, err := option.Weight(s)
		if err != nil {
			return err
		}
		r.BlkioWeightDevice = append(r.BlkioWeightDevice, w)
	}
	return nil
}

// openCIDFile reserves the file of --cidfile.
func openCIDFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to create the container ID file: %w", err)
	}
	return f, nil
}
