package main

import (
	"fmt"
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
	f.Uint32Var(&spec.VNI, "vni", 0, "VXLAN network identifier, 1 to 16777215 (default: one derived from the name)")
	f.StringSliceVar(&subnets, "subnet", nil, "subnet `CIDR` that --ip auto takes addresses from; may be repeated")
	f.StringSliceVar(&gateways, "gateway", nil, "`IP` of the default route, one of each family")
	f.IntVar(&spec.MTU, "mtu", 0, fmt.Sprintf("longest L3 packet in bytes (default %d)", config.DefaultMTU))
	f.DurationVar(&ageing, "ageing", 0, fmt.Sprintf("how long a silent MAC stays known (default %s)", config.DefaultAgeing))
	f.IntVar(&spec.MaxMACs, "max-macs", 0, "most entries in the FDB (default: swd's own bound)")
	f.BoolVar(&spec.Isolated, "isolated", false, "ports reach the gateway only, not each other")
	return cmd
}

func (p *program) networkList() *cobra.Command {
	return listing(p, "List the networks", "  swctl network ls",
		func(o *api.Network) string { return o.Name }, (*client.Client).Networks, networkTable)
}

func networkTable(t *table, all []api.Network) {
	t.row("NAME", "VNI", "SUBNETS", "GATEWAYS", "MTU", "ISOLATED", "PORTS", "MACS")
	for i := range all {
		n := &all[i]
		t.row(n.Name, n.VNI, n.Subnets, n.Gateways, n.MTU, n.Isolated, len(n.Ports), n.MACs)
	}
}

func (p *program) networkShow() *cobra.Command {
	return showing(p, "Show a network", "  swctl network show blue", p.networkNames(),
		(*client.Client).Network, networkDetails)
}

func networkDetails(t *table, n *api.Network) {
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
}

func (p *program) networkRemove() *cobra.Command {
	return p.removal("rm NAME", "Remove a network on which no ports are", "  swctl network rm blue", config.CheckName, p.networkNames(),
		func(cmd *cobra.Command, c *client.Client, name string) error {
			return c.RemoveNetwork(cmd.Context(), name)
		})
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
