package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"heddle/ctl/api"
	"heddle/ctl/client"
	"heddle/ctl/config"
)

func (p *program) peerCommand() *cobra.Command {
	return nounCommand("peer", "Static peers, hosts that networks reach by VXLAN: add, list, show, remove",
		"  swctl peer add host2 --address 192.0.2.2",
		p.peerAdd(), p.peerList(), p.peerShow(), p.peerRemove())
}

func (p *program) peerAdd() *cobra.Command {
	var spec config.Peer
	cmd := &cobra.Command{
		Use:   "add NAME --address IP[:PORT]",
		Short: "Add a static peer: a host with which networks are shared by VXLAN",
		Long: `Add a static peer: a host with which networks are shared by VXLAN.

It may be another swd, the kernel's vxlan device, Open vSwitch or a switch. A
network is the same on both if its VNI is. Which MACs are there is learnt from
what comes, and what is for nobody known is sent to all peers. Hosts that run swd
find each other by themselves in a mesh: see swctl mesh.`,
		Example: `  swctl peer add host2 --address 192.0.2.2
  swctl peer add tor1 --address '[2001:db8::2]:4789' --network blue --network red`,
		Args: arguments("NAME"),
		RunE: works(1, func(cmd *cobra.Command, args []string) error {
			spec.Name = args[0]
			c := p.client()
			defer c.Close()
			peer, err := c.AddPeer(cmd.Context(), spec)
			if err != nil {
				return err
			}
			return p.print(cmd, peer, func(t *table) { peerTable(t, []api.Peer{peer}) })
		}),
		ValidArgsFunction: fixed(),
	}
	f := cmd.Flags()
	f.StringVar(&spec.Address, "address", "", fmt.Sprintf("`IP[:PORT]` of its VTEP (default port %d)", config.VXLANPort))
	f.StringSliceVar(&spec.Networks, "network", nil, "`network` that it shares; may be repeated (default: all)")
	_ = cmd.MarkFlagRequired("address")
	complete(cmd, "address", fixed())
	complete(cmd, "network", p.networkNames())
	return cmd
}

func (p *program) peerList() *cobra.Command {
	return listing(p, "List the static peers with their counters", "  swctl peer ls",
		func(o *api.Peer) string { return o.Name }, (*client.Client).Peers, peerTable)
}

func peerTable(t *table, all []api.Peer) {
	t.row("NAME", "ADDRESS", "STATE", "NETWORKS", "MTU", "RX-FRAMES", "RX-BYTES", "TX-FRAMES", "TX-BYTES", "DROPS")
	for i := range all {
		o := &all[i]
		t.row(o.Name, o.Address, o.State, o.Networks, o.MTU, o.RxFrames, o.RxBytes, o.TxFrames, o.TxBytes, sum(o.Drops))
	}
}

func (p *program) peerShow() *cobra.Command {
	return showing(p, "Show a static peer", "  swctl peer show host2", p.peerNames(),
		(*client.Client).Peer, peerDetails)
}

func peerDetails(t *table, o *api.Peer) {
	t.row("name", o.Name)
	t.row("address", o.Address)
	t.row("state", o.State)
	if o.Reason != "" {
		t.row("reason", o.Reason)
	}
	t.row("networks", o.Networks)
	t.row("mtu", o.MTU)
	t.row("rx-frames", o.RxFrames)
	t.row("rx-bytes", o.RxBytes)
	t.row("tx-frames", o.TxFrames)
	t.row("tx-bytes", o.TxBytes)
	t.row("drops", sum(o.Drops))
	for _, reason := range slices.Sorted(maps.Keys(o.Drops)) {
		t.row("drops-"+reason, o.Drops[reason])
	}
}

func (p *program) peerRemove() *cobra.Command {
	return p.removal("rm NAME", "Remove a static peer", "  swctl peer rm host2", config.CheckName, p.peerNames(),
		func(cmd *cobra.Command, c *client.Client, name string) error {
			return c.RemovePeer(cmd.Context(), name)
		})
}
