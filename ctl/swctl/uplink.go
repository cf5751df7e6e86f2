package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"heddle/ctl/api"
	"heddle/ctl/client"
	"heddle/ctl/config"
)

func (p *program) uplinkCommand() *cobra.Command {
	return nounCommand("uplink", "Uplinks, the ways out of the host: add, list, show, remove",
		"  swctl uplink add wan --interface eth0",
		p.uplinkAdd(), p.uplinkList(), p.uplinkShow(), p.uplinkRemove())
}

func (p *program) uplinkAdd() *cobra.Command {
	var spec config.Uplink
	var hops []string
	cmd := &cobra.Command{
		Use:   "add NAME --interface IF",
		Short: "Add an uplink: a way out of the host by an interface",
		Long: `Add an uplink, by which nat add lets containers out and in.

A shared one uses the interface's MAC and addresses together with the host: a
range of ports and what is published are swd's, everything else stays the
host's. An own one has a MAC and addresses of its own on the interface.`,
		Example: `  swctl uplink add wan --interface eth0
  swctl uplink add wan --interface eth0 --ports 50000-60999
  swctl uplink add dmz --interface eth1 --mode own --address 203.0.113.2/24 --next-hop 203.0.113.1`,
		Args: arguments("NAME"),
		RunE: works(1, func(cmd *cobra.Command, args []string) error {
			spec.Name = args[0]
			for _, s := range hops {
				hop, err := config.ParseGateway(s)
				if err != nil {
					return fmt.Errorf("--next-hop: %w", err)
				}
				spec.NextHops = append(spec.NextHops, hop)
			}
			c := p.client()
			defer c.Close()
			u, err := c.AddUplink(cmd.Context(), spec)
			if err != nil {
				return err
			}
			return p.print(cmd, u, func(t *table) { uplinkTable(t, []api.Uplink{u}) })
		}),
		ValidArgsFunction: fixed(),
	}
	f := cmd.Flags()
	f.StringVar(&spec.Interface, "interface", "", "`name` of the interface by which it leaves the host")
	f.StringVar(&spec.Mode, "mode", "", "shared or own (default shared)")
	f.StringSliceVar(&spec.Addresses, "address", nil, "address as `CIDR`; wanted with own, else the interface's by default; may be repeated")
	f.StringSliceVar(&hops, "next-hop", nil, "`IP` of the router, one of each family (default with shared: the interface's routes)")
	f.StringVar(&spec.Ports, "ports", "", fmt.Sprintf("ports `A-B` that connections from inside are given (default %s, with own %s)",
		config.DefaultSharedPorts, config.DefaultOwnPorts))
	f.StringVar(&spec.MAC, "mac", "", "`MAC` address, with own (default: one made from the uplink's name)")
	_ = cmd.MarkFlagRequired("interface")
	complete(cmd, "mode", fixed(config.ModeShared, config.ModeOwn))
	for _, free := range []string{"interface", "address", "next-hop", "ports", "mac"} {
		complete(cmd, free, fixed())
	}
	return cmd
}

func (p *program) uplinkList() *cobra.Command {
	return listing(p, "List the uplinks with their counters", "  swctl uplink ls",
		func(o *api.Uplink) string { return o.Name }, (*client.Client).Uplinks, uplinkTable)
}

func uplinkTable(t *table, all []api.Uplink) {
	t.row("NAME", "INTERFACE", "MODE", "STATE", "ADDRESSES", "NEXT-HOPS", "PORTS", "RX-FRAMES", "RX-BYTES", "TX-FRAMES", "TX-BYTES", "DROPS")
	for i := range all {
		u := &all[i]
		hops := make([]string, len(u.NextHops))
		for i, h := range u.NextHops {
			hops[i] = h.Address
		}
		t.row(u.Name, u.Interface, u.Mode, u.State, u.Addresses, hops, u.Ports, u.RxFrames, u.RxBytes, u.TxFrames, u.TxBytes, sum(u.Drops))
	}
}

func (p *program) uplinkShow() *cobra.Command {
	return showing(p, "Show an uplink", "  swctl uplink show wan", p.uplinkNames(),
		(*client.Client).Uplink, uplinkDetails)
}

func uplinkDetails(t *table, u *api.Uplink) {
	t.row("name", u.Name)
	t.row("interface", u.Interface)
	t.row("mode", u.Mode)
	t.row("state", u.State)
	if u.Reason != "" {
		t.row("reason", u.Reason)
	}
	t.row("mac", u.MAC)
	t.row("addresses", u.Addresses)
	for _, h := range u.NextHops {
		t.row("next-hop", strings.TrimSpace(h.Address+" "+h.MAC)+" "+h.State)
	}
	t.row("ports", u.Ports)
	t.row("mtu", u.MTU)
	t.row("rx-frames", u.RxFrames)
	t.row("rx-bytes", u.RxBytes)
	t.row("tx-frames", u.TxFrames)
	t.row("tx-bytes", u.TxBytes)
	t.row("drops", sum(u.Drops))
	for _, reason := range slices.Sorted(maps.Keys(u.Drops)) {
		t.row("drops-"+reason, u.Drops[reason])
	}
}

func (p *program) uplinkRemove() *cobra.Command {
	return p.removal("rm NAME", "Remove an uplink that no NAT uses", "  swctl uplink rm wan", config.CheckName, p.uplinkNames(),
		func(cmd *cobra.Command, c *client.Client, name string) error {
			return c.RemoveUplink(cmd.Context(), name)
		})
}
