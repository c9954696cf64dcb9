package cli

import (
	"context"
	"errors"
	"fmt"

	"cale/cli/option"
	"cale/client"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const updateLong = `Update configuration of one or more containers.

Limits, ports, networks and mounts of a running container change at once; a mount that the kernel or the runtime can't
change meanwhile does with the next start, and a warning says so.`

func (a *App) updateCommand() *cobra.Command {
	c := &cobra.Command{Use: "update [OPTIONS] CONTAINER [CONTAINER...]", Args: atLeast(1), ValidArgsFunction: a.completeContainers(false)}
	c.Long = updateLong
	f := c.Flags()
	var u client.UpdateConfig
	r := &u.Resources
	memory, reservation, kernel, swap := option.Bytes{}, option.Bytes{}, option.Bytes{}, option.Bytes{Unlimited: true}
	var cpus option.CPUs
	f.VarP(&memory, "memory", "m", "Memory limit")
	f.Var(&reservation, "memory-reservation", "Memory soft limit")
	f.Var(&swap, "memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
	f.Var(&kernel, "kernel-memory", "Kernel memory limit")
	f.Var(&cpus, "cpus", "Number of CPUs")
	f.Int64VarP(&r.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	f.Int64Var(&r.CPUPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	f.Int64Var(&r.CPUQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	f.Int64Var(&r.CPURealtimePeriod, "cpu-rt-period", 0, "Limit the CPU real-time period in microseconds")
	f.Int64Var(&r.CPURealtimeRuntime, "cpu-rt-runtime", 0, "Limit the CPU real-time runtime in microseconds")
	f.StringVar(&r.CpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	f.StringVar(&r.CpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	f.Uint16Var(&r.BlkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	pids := f.Int64("pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	restart := f.String("restart", "", "Restart policy to apply when a container exits")
	alter := addAlterFlags(f)
	c.RegisterFlagCompletionFunc("network-add", a.completeNetworks)
	c.RegisterFlagCompletionFunc("network-rm", a.completeNetworks)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		altered, err := alter.read()
		if err != nil {
			return err
		}
		changed := false
		for _, name := range []string{"memory", "memory-reservation", "memory-swap", "kernel-memory", "cpus", "cpu-shares", "cpu-period", "cpu-quota",
			"cpu-rt-period", "cpu-rt-runtime", "cpuset-cpus", "cpuset-mems", "blkio-weight", "pids-limit", "restart"} {
			changed = changed || f.Changed(name)
		}
		if !changed && altered == nil {
			return errors.New("you must provide one or more flags when using this command")
		}
		if u.RestartPolicy, err = option.RestartPolicy(*restart); err != nil {
			return err
		}
		r.Memory, r.MemoryReservation, r.MemorySwap, r.KernelMemory, r.NanoCPUs = memory.Value, reservation.Value, swap.Value, kernel.Value, cpus.Value
		if f.Changed("pids-limit") {
			r.PidsLimit = pids
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		return a.each(args, func(id string) (string, error) {
			var warnings []string
			if changed {
				var err error
				if warnings, err = api.ContainerUpdate(cmd.Context(), id, u); err != nil {
					return "", err
				}
			}
			if altered != nil {
				more, err := altered.apply(cmd.Context(), api, id)
				if err != nil {
					return "", err
				}
				warnings = append(warnings, more...)
			}
			for _, w := range warnings {
				fmt.Fprintf(a.Err, "WARNING: %s\n", w)
			}
			return id, nil
		})
	}
	return c
}

// alterFlags are those that change what Docker lets be chosen at a container's
// creation only.
type alterFlags struct {
	ports, noPorts, volumes, mounts, noMounts, networks, noNetworks *option.List
}

func addAlterFlags(f *pflag.FlagSet) *alterFlags {
	return &alterFlags{
		ports:      list(f, "publish-add", "", "", "Publish a container's port(s) to the host, as run --publish does"),
		noPorts:    list(f, "publish-rm", "", "", "Publish a port no more: [[IP:]HOSTPORT:]PORT[/PROTOCOL]"),
		volumes:    list(f, "volume-add", "", "", "Mount a volume or a host's path, as run --volume does"),
		mounts:     list(f, "mount-add", "", "mount", "Mount what run --mount can"),
		noMounts:   list(f, "mount-rm", "", "path", "Unmount what is mounted on a path of the container's"),
		networks:   list(f, "network-add", "", "network", "Connect to a network, as run --network does"),
		noNetworks: list(f, "network-rm", "", "network", "Disconnect from a network"),
	}
}

// altered is what the flags said.
type altered struct {
	change     client.Alteration
	changes    bool
	connected  []option.Network
	disconnect []string
}

// read gives what the flags ask for, nil if that is nothing.
func (f *alterFlags) read() (*altered, error) {
	a := &altered{disconnect: f.noNetworks.Values}
	for _, l := range []*option.List{f.ports, f.noPorts, f.volumes, f.mounts, f.noMounts} {
		a.changes = a.changes || len(l.Values) > 0
	}
	for _, text := range f.networks.Values {
		n, err := option.ParseNetwork(text)
		if err != nil {
			return nil, fmt.Errorf("invalid argument %q for \"--network-add\" flag: %w", text, err)
		}
		a.connected = append(a.connected, n)
	}
	if !a.changes && len(a.connected)+len(a.disconnect) == 0 {
		return nil, nil
	}
	var err error
	if _, a.change.AddPorts, err = option.Ports(f.ports.Values); err != nil {
		return nil, err
	}
	if _, a.change.RemovePorts, err = option.Ports(f.noPorts.Values); err != nil {
		return nil, err
	}
	anonymous, binds, err := option.Volumes(f.volumes.Values)
	if err != nil {
		return nil, err
	}
	for target := range anonymous {
		binds = append(binds, target)
	}
	a.change.AddBinds, a.change.RemoveMounts = binds, f.noMounts.Values
	for _, text := range f.mounts.Values {
		m, err := option.Mount(text)
		if err != nil {
			return nil, err
		}
		a.change.AddMounts = append(a.change.AddMounts, m)
	}
	return a, nil
}

// apply changes one container.
func (a *altered) apply(ctx context.Context, api *client.Client, id string) (warnings []string, err error) {
	for _, n := range a.disconnect {
		if err := api.NetworkDisconnect(ctx, n, id, false); err != nil {
			return nil, err
		}
	}
	for _, n := range a.connected {
		if err := api.NetworkConnect(ctx, n.Name, id, &n.Endpoint); err != nil {
			return nil, err
		}
	}
	if !a.changes {
		return nil, nil
	}
	return api.ContainerAlter(ctx, id, a.change)
}
