package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"cale/cli/format"
	"cale/cli/option"
	"cale/client"

	"github.com/spf13/cobra"
)

func networkCommands() []entry {
	return []entry{
		{name: "connect", short: "Connect a container to a network", build: (*App).networkConnectCommand},
		{name: "create", short: "Create a network", build: (*App).networkCreateCommand},
		{name: "disconnect", short: "Disconnect a container from a network", build: (*App).networkDisconnectCommand},
		{name: "inspect", short: "Display detailed information on one or more networks", build: inspectKind("network")},
		{name: "ls", aliases: []string{"list"}, short: "List networks", build: (*App).networkListCommand},
		{name: "prune", short: "Remove all unused networks", build: pruneKind("networks", "This will remove all custom networks not used by at least one container.", "Deleted Networks:", false)},
		{name: "rm", aliases: []string{"remove"}, short: "Remove one or more networks", build: (*App).networkRemoveCommand},
	}
}

func (a *App) networkCreateCommand() *cobra.Command {
	c := &cobra.Command{Use: "create [OPTIONS] NETWORK", Args: exactly(1)}
	f := c.Flags()
	var n client.NetworkCreate
	var v4, v6 bool
	var ipamDriver string
	f.BoolVar(&n.Attachable, "attachable", false, "Enable manual container attachment")
	aux := list(f, "aux-address", "", "map", "Auxiliary IPv4 or IPv6 addresses used by Network driver")
	f.StringVarP(&n.Driver, "driver", "d", "bridge", "Driver to manage the Network")
	gateways := list(f, "gateway", "", "strings", "IPv4 or IPv6 Gateway for the master subnet")
	f.BoolVar(&n.Ingress, "ingress", false, "Create swarm routing-mesh network")
	f.BoolVar(&n.Internal, "internal", false, "Restrict external access to the network")
	ranges := list(f, "ip-range", "", "strings", "Allocate container ip from a sub-range")
	f.StringVar(&ipamDriver, "ipam-driver", "default", "IP Address Management Driver")
	ipamOptions := list(f, "ipam-opt", "", "map", "Set IPAM driver specific options")
	f.BoolVar(&v4, "ipv4", true, "Enable or disable IPv4 address assignment")
	f.BoolVar(&v6, "ipv6", false, "Enable or disable IPv6 address assignment")
	labels := list(f, "label", "", "", "Set metadata on a network")
	options := list(f, "opt", "o", "map", "Set driver specific options")
	f.StringVar(&n.Scope, "scope", "", "Control the network's scope")
	subnets := list(f, "subnet", "", "strings", "Subnet in CIDR format that represents a network segment")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		pools, err := ipamPools(subnets.Values, ranges.Values, gateways.Values, option.Map(aux.Values))
		if err != nil {
			return err
		}
		n.Name, n.Options, n.Labels = args[0], option.Map(options.Values), option.Map(labels.Values)
		n.IPAM = &client.IPAM{Driver: ipamDriver, Options: option.Map(ipamOptions.Values), Config: pools}
		if f.Changed("ipv4") {
			n.EnableIPv4 = &v4
		}
		if f.Changed("ipv6") {
			n.EnableIPv6 = &v6
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		id, warning, err := api.NetworkCreate(cmd.Context(), n)
		if err != nil {
			return err
		}
		if warning != "" {
			fmt.Fprintf(a.Err, "WARNING: %s\n", warning)
		}
		fmt.Fprintln(a.Out, id)
		return nil
	}
	return c
}

// ipamPools gives each subnet the range, gateway and other addresses that lie
// in it.
func ipamPools(subnets, ranges, gateways []string, aux map[string]string) ([]client.IPAMPool, error) {
	if len(subnets) == 0 && (len(ranges) > 0 || len(gateways) > 0 || len(aux) > 0) {
		return nil, errors.New("every ip-range, gateway or aux-address must have a corresponding subnet")
	}
	var pools []client.IPAMPool
	var prefixes []netip.Prefix
	for _, s := range commaSplit(subnets) {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("invalid subnet %s: want a block of addresses such as 10.0.0.0/24 or fd00::/64", s)
		}
		for _, other := range prefixes {
			if p.Overlaps(other) {
				return nil, errors.New("multiple overlapping subnet configuration is not supported")
			}
		}
		prefixes = append(prefixes, p)
		pools = append(pools, client.IPAMPool{Subnet: s})
	}
	find := func(a netip.Addr) *client.IPAMPool {
		for i, p := range prefixes {
			if p.Contains(a) {
				return &pools[i]
			}
		}
		return nil
	}
	for _, r := range commaSplit(ranges) {
		p, err := netip.ParsePrefix(r)
		if err != nil {
			return nil, fmt.Errorf("invalid ip-range %s: want a block of addresses such as 10.0.0.0/28", r)
		}
		pool := find(p.Addr())
		if pool == nil {
			return nil, fmt.Errorf("no matching subnet for range %s", r)
		}
		if pool.IPRange != "" {
			return nil, fmt.Errorf("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", r, pool.IPRange, pool.Subnet)
		}
		pool.IPRange = r
	}
	for _, g := range commaSplit(gateways) {
		addr, err := netip.ParseAddr(g)
		if err != nil {
			return nil, fmt.Errorf("invalid gateway %s: want an address such as 10.0.0.1", g)
		}
		pool := find(addr)
		if pool == nil {
			return nil, fmt.Errorf("no matching subnet for gateway %s", g)
		}
		if pool.Gateway != "" {
			return nil, fmt.Errorf("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", g, pool.Gateway, pool.Subnet)
		}
		pool.Gateway = g
	}
	for _, name := range option.SortedKeys(aux) {
		addr, err := netip.ParseAddr(aux[name])
		if err != nil {
			return nil, fmt.Errorf("invalid aux-address %s: %w", aux[name], err)
		}
		pool := find(addr)
		if pool == nil {
			return nil, fmt.Errorf("no matching subnet for aux-address %s", aux[name])
		}
		if pool.AuxAddresses == nil {
			pool.AuxAddresses = map[string]string{}
		}
		pool.AuxAddresses[name] = aux[name]
	}
	return pools, nil
}

func commaSplit(values []string) []string {
	var out []string
	for _, v := range values {
		out = append(out, strings.Split(v, ",")...)
	}
	return out
}

func (a *App) networkListCommand() *cobra.Command {
	c := &cobra.Command{Use: "ls [OPTIONS]", Args: noArgs}
	f := c.Flags()
	filter := addFilter(f, `Provide filter values (e.g. "driver=bridge")`)
	layout := f.String("format", "", formatUsage)
	full := f.Bool("no-trunc", false, "Do not truncate the output")
	quiet := f.BoolP("quiet", "q", false, "Only display network IDs")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		networks, err := api.NetworkList(cmd.Context(), filter)
		if err != nil {
			return err
		}
		rows := make([]format.Network, len(networks))
		for i, n := range networks {
			rows[i] = format.NewNetwork(n, *full)
		}
		format.SortNetworks(rows)
		shape := *layout
		if shape == "" || shape == "table" {
			shape = format.NetworkTable
			if *quiet {
				shape = "{{.ID}}"
			}
		}
		return format.Write(a.Out, shape, format.NetworkHeader, rows)
	}
	return c
}

func (a *App) networkRemoveCommand() *cobra.Command {
	c := &cobra.Command{Use: "rm NETWORK [NETWORK...]", Args: atLeast(1), ValidArgsFunction: a.completeNetworks}
	force := c.Flags().BoolP("force", "f", false, "Do not error if the network does not exist")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return a.each(args, func(name string) (string, error) {
			err := api.NetworkRemove(cmd.Context(), name)
			if *force && client.IsNotFound(err) {
				return "", nil
			}
			return name, err
		})
	}
	return c
}

func (a *App) networkConnectCommand() *cobra.Command {
	c := &cobra.Command{Use: "connect [OPTIONS] NETWORK CONTAINER", Args: exactly(2), ValidArgsFunction: a.completeNetworks}
	f := c.Flags()
	var e client.EndpointSettings
	var ip client.EndpointIPAM
	alias := list(f, "alias", "", "strings", "Add network-scoped alias for the container")
	driverOpts := list(f, "driver-opt", "", "strings", "driver options for the network")
	f.IntVar(&e.GwPriority, "gw-priority", 0, "Highest gw-priority provides the default gateway. Accepts positive and negative values")
	f.StringVar(&ip.IPv4Address, "ip", "", `IPv4 address (e.g., "172.30.100.104")`)
	f.StringVar(&ip.IPv6Address, "ip6", "", `IPv6 address (e.g., "2001:db8::33")`)
	links := list(f, "link", "", "", "Add link to another container")
	local := list(f, "link-local-ip", "", "strings", "Add a link-local address for the container")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ip.LinkLocalIPs = local.Values
		if ip.IPv4Address != "" || ip.IPv6Address != "" || len(ip.LinkLocalIPs) > 0 {
			e.IPAMConfig = &ip
		}
		e.Aliases, e.Links = commaSplit(alias.Values), links.Values
		if len(driverOpts.Values) > 0 {
			e.DriverOpts = option.Map(driverOpts.Values)
		}
		api, err := a.client()
		if err != nil {
			return err
		}
		return api.NetworkConnect(cmd.Context(), args[0], args[1], &e)
	}
	return c
}

func (a *App) networkDisconnectCommand() *cobra.Command {
	c := &cobra.Command{Use: "disconnect [OPTIONS] NETWORK CONTAINER", Args: exactly(2), ValidArgsFunction: a.completeNetworks}
	force := c.Flags().BoolP("force", "f", false, "Force the container to disconnect from a network")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := a.client()
		if err != nil {
			return err
		}
		return api.NetworkDisconnect(cmd.Context(), args[0], args[1], *force)
	}
	return c
}
