package cli

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	"cale/cli/format"
	"cale/cli/option"
	"cale/client"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// stopLike makes stop and restart.
func (a *App) stopLike(verb string) *cobra.Command {
	c := &cobra.Command{Use: verb + " [OPTIONS] CONTAINER [CONTAINER...]", Args: atLeast(1), ValidArgsFunction: a.completeContainers(verb == "stop")}
	f := c.Flags()
	signal := f.StringP("signal", "s", "", "Signal to send to the container")
	seconds := f.IntP("timeout", "t", 0, "Seconds to wait before killing the container")
	f.IntVar(seconds, "time", 0, "Seconds to wait before killing the container")
	f.MarkHidden("time")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		var wait *int
		if f.Changed("timeout") || f.Changed("time") {
			wait = seconds
		}
		return a.each(args, func(id string) (string, error) {
			err := api.ContainerStop(cmd.Context(), verb, id, *signal, wait)
			if client.IsNotModified(err) {
				err = nil // it is stopped, as was wanted
			}
			return id, err
		})
	}
	return c
}

func (a *App) stopCommand() *cobra.Command    { return a.stopLike("stop") }
func (a *App) restartCommand() *cobra.Command { return a.stopLike("restart") }

func (a *App) killCommand() *cobra.Command {
	c := &cobra.Command{Use: "kill [OPTIONS] CONTAINER [CONTAINER...]", Args: atLeast(1), ValidArgsFunction: a.completeContainers(true)}
	signal := c.Flags().StringP("signal", "s", "", "Signal to send to the container (default KILL)")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return a.each(args, func(id string) (string, error) { return id, api.ContainerKill(cmd.Context(), id, *signal) })
	}
	c.RegisterFlagCompletionFunc("signal", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for s := unix.Signal(1); s < 32; s++ {
			names = append(names, unix.SignalName(s))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
	return c
}

// simple makes pause and unpause.
func (a *App) simple(verb string) *cobra.Command {
	c := &cobra.Command{Use: verb + " CONTAINER [CONTAINER...]", Args: atLeast(1), ValidArgsFunction: a.completeContainers(true)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return a.each(args, func(id string) (string, error) { return id, api.ContainerPost(cmd.Context(), id, verb) })
	}
	return c
}

func (a *App) pauseCommand() *cobra.Command   { return a.simple("pause") }
func (a *App) unpauseCommand() *cobra.Command { return a.simple("unpause") }

func (a *App) waitCommand() *cobra.Command {
	c := &cobra.Command{Use: "wait CONTAINER [CONTAINER...]", Args: atLeast(1), ValidArgsFunction: a.completeContainers(true)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return a.each(args, func(id string) (string, error) {
			e, err := api.ContainerWait(cmd.Context(), id, "", nil)
			if err != nil {
				return "", err
			}
			return fmt.Sprint(e.StatusCode), nil
		})
	}
	return c
}

func (a *App) renameCommand() *cobra.Command {
	c := &cobra.Command{Use: "rename CONTAINER NEW_NAME", Args: exactly(2), ValidArgsFunction: a.completeContainers(false)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return api.ContainerRename(cmd.Context(), args[0], strings.TrimSpace(args[1]))
	}
	return c
}

func (a *App) updateCommand() *cobra.Command {
	c := &cobra.Command{Use: "update [OPTIONS] CONTAINER [CONTAINER...]", Args: atLeast(1), ValidArgsFunction: a.completeContainers(false)}
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
	c.RunE = func(cmd *cobra.Command, args []string) error {
		changed := false
		for _, name := range []string{"memory", "memory-reservation", "memory-swap", "kernel-memory", "cpus", "cpu-shares", "cpu-period", "cpu-quota",
			"cpu-rt-period", "cpu-rt-runtime", "cpuset-cpus", "cpuset-mems", "blkio-weight", "pids-limit", "restart"} {
			changed = changed || f.Changed(name)
		}
		if !changed {
			return errors.New("you must provide one or more flags when using this command")
		}
		var err error
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
			warnings, err := api.ContainerUpdate(cmd.Context(), id, u)
			for _, w := range warnings {
				fmt.Fprintf(a.Err, "WARNING: %s\n", w)
			}
			return id, err
		})
	}
	return c
}

func (a *App) topCommand() *cobra.Command {
	c := &cobra.Command{Use: "top CONTAINER [ps OPTIONS]", Args: atLeast(1), ValidArgsFunction: a.completeContainers(true)}
	c.Flags().SetInterspersed(false)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		t, err := api.ContainerTop(cmd.Context(), args[0], strings.Join(args[1:], " "))
		if err != nil {
			return err
		}
		return format.Processes(a.Out, append([][]string{t.Titles}, t.Processes...))
	}
	return c
}

func (a *App) portCommand() *cobra.Command {
	c := &cobra.Command{Use: "port CONTAINER [PRIVATE_PORT[/PROTO]]", Args: between(1, 2), ValidArgsFunction: a.completeContainers(true)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		d, err := api.ContainerInspect(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if len(args) == 2 {
			port := args[1]
			if !strings.Contains(port, "/") {
				port += "/tcp"
			}
			bindings := d.NetworkSettings.Ports[port]
			if len(bindings) == 0 {
				return fmt.Errorf("no public port '%s' published for %s", port, args[0])
			}
			for _, b := range bindings {
				fmt.Fprintln(a.Out, address(b))
			}
			return nil
		}
		var lines []string
		for port, bindings := range d.NetworkSettings.Ports {
			for _, b := range bindings {
				lines = append(lines, port+" -> "+address(b))
			}
		}
		sort.Strings(lines)
		for _, l := range lines {
			fmt.Fprintln(a.Out, l)
		}
		return nil
	}
	return c
}

func address(b client.PortBinding) string {
	if strings.Contains(b.HostIP, ":") {
		return "[" + b.HostIP + "]:" + b.HostPort
	}
	return b.HostIP + ":" + b.HostPort
}

func (a *App) diffCommand() *cobra.Command {
	c := &cobra.Command{Use: "diff CONTAINER", Args: exactly(1), ValidArgsFunction: a.completeContainers(false)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		changes, err := api.ContainerDiff(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		for _, ch := range changes {
			kind := "?"
			if ch.Kind >= 0 && ch.Kind < 3 {
				kind = "CAD"[ch.Kind : ch.Kind+1]
			}
			fmt.Fprintln(a.Out, kind, ch.Path)
		}
		return nil
	}
	return c
}
