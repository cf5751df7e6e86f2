package main

import (
	"cmp"
	"slices"

	"github.com/spf13/cobra"

	"heddle/ctl/api"
	"heddle/ctl/client"
	"heddle/ctl/config"
)

func (p *program) natCommand() *cobra.Command {
	return nounCommand("nat", "NAT, what lets containers out and in: add, list, show, remove",
		"  swctl nat add masquerade --network blue --uplink wan",
		p.natAdd(), p.natList(), p.natShow(), p.natRemove())
}

func (p *program) natAdd() *cobra.Command {
	return nounCommand("add", "Add a masquerade or a publication",
		`  swctl nat add masquerade --network blue --uplink wan
  swctl nat add publish --uplink wan --listen 8080/tcp --to web:80`,
		p.natAddMasquerade(), p.natAddPublish())
}

func (p *program) natAddMasquerade() *cobra.Command {
	spec := config.NAT{Type: config.TypeMasquerade}
	cmd := &cobra.Command{
		Use:   "masquerade --network NET --uplink UP",
		Short: "Let a network's containers out by an uplink, under its address",
		Example: `  swctl nat add masquerade --network blue --uplink wan
  swctl nat add masquerade --network blue --uplink wan --filtering endpoint-independent
  swctl nat add masquerade --network blue --uplink wan --ipv6 route`,
		Args: arguments(),
		RunE: works(0, func(cmd *cobra.Command, _ []string) error { return p.addNAT(cmd, spec) }),
	}
	f := cmd.Flags()
	f.StringVar(&spec.Network, "network", "", "`network` whose containers reach the uplink")
	f.StringVar(&spec.Uplink, "uplink", "", "`uplink` that they reach")
	f.StringVar(&spec.Mapping, "mapping", "", "endpoint-independent, or address-and-port-dependent: containers share ports towards different destinations (default endpoint-independent)")
	f.StringVar(&spec.Filtering, "filtering", "", "endpoint-independent: anybody may answer; or address-and-port-dependent: only who was spoken to (default address-and-port-dependent)")
	f.StringVar(&spec.IPv6, "ipv6", "", "translate, or route: IPv6 passes as it is, both ways (default translate)")
	_ = cmd.MarkFlagRequired("network")
	_ = cmd.MarkFlagRequired("uplink")
	complete(cmd, "network", p.networkNames())
	complete(cmd, "uplink", p.uplinkNames())
	complete(cmd, "mapping", fixed(config.EndpointIndependent, config.AddressAndPortDependent))
	complete(cmd, "filtering", fixed(config.EndpointIndependent, config.AddressAndPortDependent))
	complete(cmd, "ipv6", fixed(config.IPv6Translate, config.IPv6Route))
	return cmd
}

func (p *program) natAddPublish() *cobra.Command {
	spec := config.NAT{Type: config.TypePublish}
	cmd := &cobra.Command{
		Use:   "publish --uplink UP --listen [IP:]PORT[-PORT]/PROTO --to PORTNAME:PORT[-PORT]|IP:PORT[-PORT]",
		Short: "Lead what comes to ports of an uplink to a container",
		Example: `  swctl nat add publish --uplink wan --listen 8080/tcp --to web:80
  swctl nat add publish --uplink wan --listen 192.0.2.1:5060-5079/udp --to 198.18.0.9:5060-5079
  swctl nat add publish --uplink wan --listen '[2001:db8::1]:443/tcp' --to web:443`,
		Args: arguments(),
		RunE: works(0, func(cmd *cobra.Command, _ []string) error { return p.addNAT(cmd, spec) }),
	}
	f := cmd.Flags()
	f.StringVar(&spec.Uplink, "uplink", "", "`uplink` to whose ports it comes")
	f.StringVar(&spec.Listen, "listen", "", "`[IP:]PORT[-PORT]/PROTO` with tcp, udp or sctp; without IP on all of the uplink's addresses")
	f.StringVar(&spec.To, "to", "", "`PORTNAME:PORT[-PORT]` for the port's address, or IP:PORT[-PORT]; as many ports")
	for _, name := range []string{"uplink", "listen", "to"} {
		_ = cmd.MarkFlagRequired(name)
	}
	complete(cmd, "uplink", p.uplinkNames())
	complete(cmd, "listen", fixed())
	complete(cmd, "to", p.targets())
	return cmd
}

func (p *program) addNAT(cmd *cobra.Command, spec config.NAT) error {
	c := p.client()
	defer c.Close()
	n, err := c.AddNAT(cmd.Context(), spec)
	if err != nil {
		return err
	}
	return p.print(cmd, n, func(t *table) { natTable(t, []api.NAT{n}) })
}

func (p *program) natList() *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Short:   "List the masquerades and publications",
		Example: "  swctl nat ls",
		Args:    arguments(),
		RunE: works(0, func(cmd *cobra.Command, _ []string) error {
			c := p.client()
			defer c.Close()
			all, err := c.NATs(cmd.Context())
			if err != nil {
				return err
			}
			slices.SortFunc(all, func(a, b api.NAT) int {
				return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Uplink, b.Uplink), cmp.Compare(a.Network, b.Network),
					cmp.Compare(a.Listen, b.Listen), cmp.Compare(a.ID, b.ID))
			})
			return p.print(cmd, list(all), func(t *table) { natTable(t, all) })
		}),
	}
}

func natTable(t *table, all []api.NAT) {
	t.row("ID", "TYPE", "STATE", "NETWORK", "UPLINK", "LISTEN", "TO", "HITS")
	for i := range all {
		n := &all[i]
		t.row(n.ID, n.Type, n.State, n.Network, n.Uplink, n.Listen, n.To, n.Hits)
	}
}

func (p *program) natShow() *cobra.Command {
	return &cobra.Command{
		Use:     "show ID",
		Short:   "Show a masquerade or a publication",
		Example: "  swctl nat show 500b014917c1",
		Args:    arguments("ID"),
		RunE: works(1, func(cmd *cobra.Command, args []string) error {
			if err := config.CheckNATID(args[0]); err != nil {
				return err
			}
			c := p.client()
			defer c.Close()
			n, err := c.NAT(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return p.print(cmd, n, func(t *table) { natDetails(t, &n) })
		}),
		ValidArgsFunction: first(p.natIDs()),
	}
}

func natDetails(t *table, n *api.NAT) {
	t.row("id", n.ID)
	t.row("type", n.Type)
	t.row("state", n.State)
	if n.Reason != "" {
		t.row("reason", n.Reason)
	}
	t.row("network", n.Network)
	t.row("uplink", n.Uplink)
	if n.Type == config.TypePublish {
		t.row("listen", n.Listen)
		t.row("to", n.To)
		t.row("to-addresses", n.ToAddresses)
	} else {
		t.row("mapping", n.Mapping)
		t.row("filtering", n.Filtering)
		t.row("ipv6", n.IPv6)
	}
	t.row("hits", n.Hits)
}

func (p *program) natRemove() *cobra.Command {
	return p.removal("rm ID", "Remove a masquerade or a publication and end its connections", "  swctl nat rm 500b014917c1",
		config.CheckNATID, p.natIDs(),
		func(cmd *cobra.Command, c *client.Client, id string) error {
			return c.RemoveNAT(cmd.Context(), id)
		})
}
