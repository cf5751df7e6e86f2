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

func (p *program) portCommand() *cobra.Command {
	return nounCommand("port", "Ports: add, list, show, remove",
		"  swctl port add web --network blue --netns /run/netns/web --ip 198.18.0.2/24",
		p.portAdd(), p.portList(), p.portShow(), p.portRemove())
}

func (p *program) portAdd() *cobra.Command {
	var spec config.Port
	cmd := &cobra.Command{
		Use:   "add NAME --network NET",
		Short: "Add a port: make a container's interface, or take one that exists",
		Long: `Add a port to a network.

A tap or veth port makes its interface in the namespace that --netns, --pid or
--container names; a tap port without any of them makes it in swd's own. A
packet port takes an interface that exists.`,
		Example: `  swctl port add web --network blue --netns /run/netns/web --ip 198.18.0.2/24
  swctl port add db --network blue --container db --kind veth --ip auto --default-route
  swctl port add host --network blue --kind tap --ifname heddle0 --ip 198.18.0.1/24
  swctl port add lan --network blue --kind packet --interface enp3s0`,
		Args: arguments("NAME"),
		RunE: works(1, func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("pid") && spec.PID <= 0 {
				return fmt.Errorf("--pid: %d is no process id", spec.PID)
			}
			spec.Name = args[0]
			c := p.client()
			defer c.Close()
			port, err := c.AddPort(cmd.Context(), spec)
			if err != nil {
				return err
			}
			return p.print(cmd, port, func(t *table) { portTable(t, []api.Port{port}) })
		}),
		ValidArgsFunction: fixed(),
	}
	f := cmd.Flags()
	f.StringVar(&spec.Network, "network", "", "`network` that the port is on")
	f.StringVar(&spec.NetNS, "netns", "", "`path` of the container's namespace, as /run/netns/web")
	f.IntVar(&spec.PID, "pid", 0, "`process` in the container's namespace: when it ends the port goes down")
	f.StringVar(&spec.Container, "container", "", "name or `ID` of a Docker or podman container, followed through its restarts")
	f.StringVar(&spec.Kind, "kind", "", "tap, veth or packet (default tap)")
	f.StringVar(&spec.IfName, "ifname", "", "`name` of the interface to make (default eth0 in a container)")
	f.StringVar(&spec.Interface, "interface", "", "`name` of the existing interface of a packet port")
	f.StringSliceVar(&spec.IPs, "ip", nil, "address as `CIDR`, or auto for a free one of the network's subnets; may be repeated")
	f.StringVar(&spec.MAC, "mac", "", "`MAC` address (default: one made from the port's name)")
	f.BoolVar(&spec.DefaultRoute, "default-route", false, "set the default route by the network's gateway")
	_ = cmd.MarkFlagRequired("network")
	cmd.MarkFlagsMutuallyExclusive("netns", "pid", "container")
	complete(cmd, "network", p.networkNames())
	complete(cmd, "kind", fixed(config.KindTAP, config.KindVeth, config.KindPacket))
	for _, free := range []string{"pid", "container", "ifname", "interface", "ip", "mac"} {
		complete(cmd, free, fixed())
	}
	return cmd
}

func (p *program) portList() *cobra.Command {
	return listing(p, "List the ports with their counters", "  swctl port ls",
		func(o *api.Port) string { return o.Name }, (*client.Client).Ports, portTable)
}

func portTable(t *table, all []api.Port) {
	t.row("NAME", "KIND", "NETWORK", "STATE", "IFNAME", "MAC", "IPS", "RX-FRAMES", "RX-BYTES", "TX-FRAMES", "TX-BYTES", "DROPS")
	for i := range all {
		p := &all[i]
		t.row(p.Name, p.Kind, p.Network, p.State, p.IfName, p.MAC, p.IPs, p.RxFrames, p.RxBytes, p.TxFrames, p.TxBytes, sum(p.Drops))
	}
}

// sum adds up counts by reason.
func sum(drops map[string]uint64) (all uint64) {
	for _, n := range drops {
		all += n
	}
	return all
}

func (p *program) portShow() *cobra.Command {
	return showing(p, "Show a port", "  swctl port show web", p.portNames(),
		(*client.Client).Port, portDetails)
}

func portDetails(t *table, p *api.Port) {
	t.row("name", p.Name)
	t.row("kind", p.Kind)
	t.row("network", p.Network)
	t.row("state", p.State)
	if p.Reason != "" {
		t.row("reason", p.Reason)
	}
	switch {
	case p.NetNS != "":
		t.row("netns", p.NetNS)
	case p.PID != 0:
		t.row("pid", p.PID)
	case p.Container != "":
		t.row("container", p.Container)
	}
	t.row("ifname", p.IfName)
	t.row("mac", p.MAC)
	t.row("ips", p.IPs)
	t.row("mtu", p.MTU)
	t.row("rx-frames", p.RxFrames)
	t.row("rx-bytes", p.RxBytes)
	t.row("tx-frames", p.TxFrames)
	t.row("tx-bytes", p.TxBytes)
	t.row("drops", sum(p.Drops))
	for _, reason := range slices.Sorted(maps.Keys(p.Drops)) {
		t.row("drops-"+reason, p.Drops[reason])
	}
}

func (p *program) portRemove() *cobra.Command {
	return p.removal("rm NAME", "Remove a port and the interface that was made for it", "  swctl port rm web", config.CheckName, p.portNames(),
		func(cmd *cobra.Command, c *client.Client, name string) error {
			return c.RemovePort(cmd.Context(), name)
		})
}
