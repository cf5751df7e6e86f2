package main

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"heddle/ctl/api"
	"heddle/ctl/client"
	"heddle/ctl/config"
)

func (p *program) meshCommand() *cobra.Command {
	return nounCommand("mesh", "The mesh, in which hosts that run swd find each other: join, leave, status, members, keys",
		`  swctl mesh join 192.0.2.2
  swctl mesh members`,
		p.meshJoin(), p.meshLeave(), p.meshStatus(), p.meshMembers(), p.meshKey())
}

func (p *program) meshJoin() *cobra.Command {
	return &cobra.Command{
		Use:   "join ADDR[:PORT]…",
		Short: "Join the mesh that any of these hosts is a member of",
		Long: `Join the mesh that any of these hosts is a member of. One that answers is
enough; the addresses are remembered and asked again when swd starts. A host's
name is looked up here and now; its addresses are what is remembered. In a mesh,
hosts share those networks that both have, by name unless they have VNIs, and
tell each other which MACs and IP addresses they have.`,
		Example: `  swctl mesh join 192.0.2.2
  swctl mesh join host2.example
  swctl mesh join 192.0.2.2 '[2001:db8::3]:7946'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("ADDR is missing")
			}
			return nil
		},
		RunE: works(0, func(cmd *cobra.Command, args []string) error {
			c := p.client()
			defer c.Close()
			tries, err := joinTries(cmd.Context(), net.DefaultResolver.LookupNetIP, args)
			if err != nil {
				return err
			}
			m, err := c.JoinMesh(cmd.Context(), config.Mesh{Join: tries[0]})
			if err != nil && len(tries) > 1 {
				first := err
				if m, err = c.JoinMesh(cmd.Context(), config.Mesh{Join: tries[1]}); err != nil {
					err = first // That of the family that is tried first is likelier to be of use.
				}
			}
			if err != nil {
				return err
			}
			return p.print(cmd, m, func(t *table) { meshTable(t, &m) })
		}),
		ValidArgsFunction: fixed(),
	}
}

func (p *program) meshLeave() *cobra.Command {
	return &cobra.Command{
		Use:     "leave",
		Short:   "Leave the mesh, and forget whom to join",
		Example: "  swctl mesh leave",
		Args:    arguments(),
		RunE: works(0, func(cmd *cobra.Command, _ []string) error {
			c := p.client()
			defer c.Close()
			return c.LeaveMesh(cmd.Context())
		}),
	}
}

func (p *program) meshStatus() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show this host's membership",
		Example: "  swctl mesh status",
		Args:    arguments(),
		RunE: works(0, func(cmd *cobra.Command, _ []string) error {
			c := p.client()
			defer c.Close()
			m, err := c.Mesh(cmd.Context())
			if err != nil {
				return err
			}
			return p.print(cmd, m, func(t *table) { meshTable(t, &m) })
		}),
	}
}

func meshTable(t *table, m *api.Mesh) {
	t.row("node", m.Node)
	t.row("state", m.State)
	if m.Reason != "" {
		t.row("reason", m.Reason)
	}
	t.row("listen", m.Listen)
	t.row("vtep", m.VTEP)
	t.row("encrypted", m.Encrypted)
	t.row("join", m.Join)
	t.row("members-up", m.MembersUp)
	t.row("members", m.Members)
	t.row("endpoints-local", m.EndpointsLocal)
	t.row("endpoints-remote", m.EndpointsRemote)
	t.row("refused", m.Refused)
	t.row("tx-messages", m.TxMessages)
	t.row("tx-bytes", m.TxBytes)
	t.row("rx-messages", m.RxMessages)
	t.row("rx-bytes", m.RxBytes)
}

func (p *program) meshMembers() *cobra.Command {
	var endpoints bool
	cmd := &cobra.Command{
		Use:   "members",
		Short: "List the members with their round trip, path MTU and what they announce",
		Example: `  swctl mesh members
  swctl mesh members --endpoints`,
		Args: arguments(),
		RunE: works(0, func(cmd *cobra.Command, _ []string) error {
			c := p.client()
			defer c.Close()
			all, err := c.Members(cmd.Context(), endpoints)
			if err != nil {
				return err
			}
			slices.SortFunc(all, func(a, b api.Member) int { return strings.Compare(a.Name, b.Name) })
			return p.print(cmd, list(all), func(t *table) {
				if endpoints {
					endpointTable(t, all)
				} else {
					memberTable(t, all)
				}
			})
		}),
	}
	cmd.Flags().BoolVar(&endpoints, "endpoints", false, "list the MACs and IP addresses that they announce")
	return cmd
}

func memberTable(t *table, all []api.Member) {
	t.row("NAME", "ADDRESS", "STATE", "VTEP", "NETWORKS", "RTT-MS", "MTU", "MACS", "RX-FRAMES", "TX-FRAMES", "SELF", "REASON")
	for i := range all {
		m := &all[i]
		rtt := ""
		if m.RTTSeconds > 0 {
			rtt = fmt.Sprintf("%.3f", m.RTTSeconds*1000)
		}
		t.row(m.Name, m.Address, m.State, m.VTEP, m.Networks, rtt, m.MTU, m.MACs, m.RxFrames, m.TxFrames, m.Self, m.Reason)
	}
}

func endpointTable(t *table, all []api.Member) {
	t.row("MEMBER", "NETWORK", "VNI", "MAC", "IPS")
	for i := range all {
		for _, e := range all[i].Endpoints {
			t.row(all[i].Name, e.Network, e.VNI, e.MAC, e.IPs)
		}
	}
}

func (p *program) meshKey() *cobra.Command {
	return nounCommand("key", "The keys of the mesh: list, add, activate, retire",
		`  swctl mesh key add /etc/heddle/next.key
  swctl mesh key ls`,
		p.keyList(), p.keyAdd(), p.keyActivate(), p.keyRetire())
}

func keyTable(t *table, all []api.Key) {
	t.row("ID", "ACTIVE")
	for _, k := range all {
		t.row(k.ID, k.Active)
	}
}

func (p *program) keyList() *cobra.Command {
	return listing(p, "List the keys that swd takes, and the one that it encrypts with", "  swctl mesh key ls",
		func(k *api.Key) string { return k.ID }, (*client.Client).Keys, keyTable)
}

func (p *program) keyAdd() *cobra.Command {
	return &cobra.Command{
		Use:   "add FILE",
		Short: "Have swd take what is encrypted with a key, - for stdin",
		Long: `Have swd take what is encrypted with the key in a file: 16, 24 or 32 random
bytes in Base64. To change a mesh's key, add the next one on every host, then
activate it on every host, then retire the one before.`,
		Example: `  head -c 32 /dev/urandom | base64 > next.key
  swctl mesh key add next.key`,
		Args: arguments("FILE"),
		RunE: works(1, func(cmd *cobra.Command, args []string) error {
			text, err := readFile(cmd, args[0])
			if err != nil {
				return err
			}
			keys, err := config.ParseMeshKeys(text)
			if err == nil && len(keys) > 1 {
				err = fmt.Errorf("%d keys are in it: add one at a time", len(keys))
			}
			if err != nil {
				return err
			}
			c := p.client()
			defer c.Close()
			k, err := c.AddKey(cmd.Context(), api.MeshKey{Key: config.FormatMeshKey(keys[0])})
			if err != nil {
				return err
			}
			return p.print(cmd, k, func(t *table) { keyTable(t, []api.Key{k}) })
		}),
	}
}

func (p *program) keyActivate() *cobra.Command {
	return &cobra.Command{
		Use:     "activate ID",
		Short:   "Have swd encrypt with a key that it takes; every member needs to take it",
		Example: "  swctl mesh key activate 3f1b2c4d",
		Args:    arguments("ID"),
		RunE: works(1, func(cmd *cobra.Command, args []string) error {
			c := p.client()
			defer c.Close()
			k, err := c.ActivateKey(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return p.print(cmd, k, func(t *table) { keyTable(t, []api.Key{k}) })
		}),
		ValidArgsFunction: first(p.keyIDs()),
	}
}

func (p *program) keyRetire() *cobra.Command {
	return &cobra.Command{
		Use:     "retire ID",
		Short:   "Have swd forget a key; every member needs to encrypt with another",
		Example: "  swctl mesh key retire 3f1b2c4d",
		Args:    arguments("ID"),
		RunE: works(1, func(cmd *cobra.Command, args []string) error {
			c := p.client()
			defer c.Close()
			return c.RetireKey(cmd.Context(), args[0])
		}),
		ValidArgsFunction: first(p.keyIDs()),
	}
}
