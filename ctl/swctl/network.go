package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"heddle/ctl/api"
	"heddle/ctl/client"
	"heddle/ctl/config"
)

func (p *program) networkCommand() *cobra.Command {
	return nounCommand("network", "Networks: add, list, show, remove",
		"  swctl network add blue --subnet 198.18.0.0/24 --gateway 198.18.0.1",
		p.networkAdd(), p.networkList(), p.networkShow(), p.networkRemove())
}

func (p *program) networkAdd() *cobra.Command {
	var spec config.Network
	var subnets, gateways []string
	var ageing time.Duration
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a network",
		Example: `  swctl network add blue
  swctl network add blue --subnet 198.18.0.0/24 --gateway 198.18.0.1 --subnet 2001:db8::/64
  swctl network add guests --isolated --max-macs 1000`,
		Args: arguments("NAME"),
		RunE: works(1, func(cmd *cobra.Command, args []string) error {
			spec.Name, spec.Ageing = args[0], config.Duration(ageing)
			for _, s := range subnets {
				subnet, err := config.ParseSubnet(s)
				if err != nil {
					return fmt.Errorf("--subnet: %w", err)
				}
				spec.Subnets = append(spec.Subnets, subnet)
			}
			for _, s := range gateways {
				gateway, err := config.ParseGateway(s)
				if err != nil {
					return fmt.Errorf("--gateway: %w", err)
				}
				spec.Gateways = append(spec.Gateways, gateway)
			}
			c := p.client()
			defer c.Close()
			n, err := c.AddNetwork(cmd.Context(), spec)
			if err != nil {
				return err
			}
			return p.print(cmd, n, func(t *table) { networkTable(t, []api.Network{n}) })
		}),
		ValidArgsFunction: fixed(),
	}
	f := cmd.Flags()
	f.Uint32Var(&spec.VNI, "vni", 0, "VXLAN network identifier, 1 to 16777215 (default: the lowest that is free)")
	f.StringSliceVar(&subnets, "subnet", nil, "subnet `CIDR` that --ip auto takes addresses from; may be repeated")
	f.StringSliceVar(&gateways, "gateway", nil, "`IP` of the default route, one of each family")
	f.IntVar(&spec.MTU, "mtu", 0, fmt.Sprintf("longest L3 packet in bytes (default %d)", config.DefaultMTU))
	f.DurationVar(&ageing, "ageing", 0, fmt.Sprintf("how long a silent MAC stays known (default %s)", config.DefaultAgeing))
	f.IntVar(&spec.MaxMACs, "max-macs", 0, "most entries in the FDB (default: swd's own bound)")
	f.BoolVar(&spec.Isolated, "isolated", false, "ports reach the gateway only, not each other")
	return cmd
}

func (p *program) networkList() *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Short:   "List the networks",
		Example: "  swctl network ls",
		Args:    arguments(),
		RunE: works(0, func(cmd *cobra.Command, _ []string) error {
			c := p.client()
			defer c.Close()
			all, err := c.Networks(cmd.Context())
			if err != nil {
				return err
			}
			slices.SortFunc(all, func(a, b api.Network) int { return strings.Compare(a.Name, b.Name) })
			return p.print(cmd, list(all), func(t *table) { networkTable(t, all) })
		}),
	}
}

func networkTable(t *table, all []api.Network) {
	t.row("NAME", "VNI", "SUBNETS", "GATEWAYS", "MTU", "ISOLATED", "PORTS", "MACS")
	for i := range all {
		n := &all[i]
		t.row(n.Name, n.VNI, n.Subnets, n.Gateways, n.MTU, n.Isolated, len(n.Ports), n.MACs)
	}
}

func (p *program) networkShow() *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a network",
		Example: "  swctl network show blue",
		Args:    arguments("NAME"),
		RunE: works(1, func(cmd *cobra.Command, args []string) error {
			if err := config.CheckName(args[0]); err != nil {
				return err
			}
			c := p.client()
			defer c.Close()
			n, err := c.Network(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return p.print(cmd, n, func(t *table) {
				t.row("name", n.Name)
				t.row("vni", n.VNI)
				t.row("subnets", n.Subnets)
				t.row("gateways", n.Gateways)
				t.row("mtu", n.MTU)
				t.row("ageing-seconds", seconds(n.AgeingSeconds))
				t.row("max-macs", n.MaxMACs)
				t.row("isolated", n.Isolated)
				t.row("ports", n.Ports)
				t.row("macs", n.MACs)
			})
		}),
		ValidArgsFunction: first(p.networkNames()),
	}
}

func (p *program) networkRemove() *cobra.Command {
	return p.removal("rm NAME", "Remove a network on which no ports are", "  swctl network rm blue", config.CheckName, p.networkNames(),
		func(cmd *cobra.Command, c *client.Client, name string) error {
			return c.RemoveNetwork(cmd.Context(), name)
		})
}

// removal makes the rm of a noun whose objects are known by what use says and
// check finds good.
func (p *program) removal(use, short, example string, check func(string) error, names completer, remove func(*cobra.Command, *client.Client, string) error) *cobra.Command {
	var ifExists bool
	cmd := &cobra.Command{
		Use:     use,
		Short:   short,
		Example: example + "\n" + example + " --if-exists",
		Args:    arguments(strings.TrimPrefix(use, "rm ")),
		RunE: works(1, func(cmd *cobra.Command, args []string) error {
			if err := check(args[0]); err != nil {
				return err
			}
			c := p.client()
			defer c.Close()
			return unlessGone(ifExists, remove(cmd, c, args[0]))
		}),
		ValidArgsFunction: first(names),
	}
	ifExistsFlag(cmd, &ifExists)
	return cmd
}

func ifExistsFlag(cmd *cobra.Command, ifExists *bool) {
	cmd.Flags().BoolVar(ifExists, "if-exists", false, "it is no error if there is none")
}

// unlessGone takes swd's answer that there is no such object for success if
// that was asked for.
func unlessGone(ifExists bool, err error) error {
	if ifExists && client.NotFound(err) {
		return nil
	}
	return err
}
