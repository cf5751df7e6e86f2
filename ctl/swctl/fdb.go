package main

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"heddle/ctl/api"
	"heddle/ctl/config"
)

func (p *program) fdbCommand() *cobra.Command {
	return nounCommand("fdb", "The FDB, which MAC is behind which port: list, add, remove, flush",
		"  swctl fdb ls --network blue",
		p.fdbList(), p.fdbAdd(), p.fdbRemove(), p.fdbFlush())
}

func (p *program) fdbList() *cobra.Command {
	var network string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the entries",
		Example: `  swctl fdb ls
  swctl fdb ls --network blue`,
		Args: arguments(),
		RunE: works(0, func(cmd *cobra.Command, _ []string) error {
			c := p.client()
			defer c.Close()
			all, err := c.FDB(cmd.Context(), network)
			if err != nil {
				return err
			}
			slices.SortFunc(all, func(a, b api.Entry) int {
				return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.MAC, b.MAC))
			})
			return p.print(cmd, list(all), func(t *table) { fdbTable(t, all) })
		}),
	}
	cmd.Flags().StringVar(&network, "network", "", "only this network's")
	complete(cmd, "network", p.networkNames())
	return cmd
}

func fdbTable(t *table, all []api.Entry) {
	t.row("MAC", "NETWORK", "PORT", "STATIC", "AGE-SECONDS")
	for i := range all {
		e := &all[i]
		t.row(e.MAC, e.Network, e.Port, e.Static, seconds(e.AgeSeconds))
	}
}

func (p *program) fdbAdd() *cobra.Command {
	var spec config.Static
	cmd := &cobra.Command{
		Use:     "add MAC --network NET --port P",
		Short:   "Add a static entry, which neither ages nor moves",
		Example: "  swctl fdb add 02:00:00:00:00:05 --network blue --port web",
		Args:    arguments("MAC"),
		RunE: works(1, func(cmd *cobra.Command, args []string) error {
			spec.MAC = args[0]
			c := p.client()
			defer c.Close()
			e, err := c.AddStatic(cmd.Context(), spec)
			if err != nil {
				return err
			}
			return p.print(cmd, e, func(t *table) { fdbTable(t, []api.Entry{e}) })
		}),
		ValidArgsFunction: fixed(),
	}
	cmd.Flags().StringVar(&spec.Network, "network", "", "`network` of the entry")
	cmd.Flags().StringVar(&spec.Port, "port", "", "`port` behind which the address is")
	_ = cmd.MarkFlagRequired("network")
	_ = cmd.MarkFlagRequired("port")
	complete(cmd, "network", p.networkNames())
	complete(cmd, "port", p.portNames())
	return cmd
}

func (p *program) fdbRemove() *cobra.Command {
	var network string
	var ifExists bool
	cmd := &cobra.Command{
		Use:     "rm MAC --network NET",
		Short:   "Forget an entry, static or learnt",
		Example: "  swctl fdb rm 02:00:00:00:00:05 --network blue",
		Args:    arguments("MAC"),
		RunE: works(1, func(cmd *cobra.Command, args []string) error {
			if _, err := config.ParseMAC(args[0]); err != nil {
				return fmt.Errorf("mac: %w", err)
			}
			c := p.client()
			defer c.Close()
			return unlessGone(ifExists, c.RemoveEntry(cmd.Context(), network, args[0]))
		}),
		ValidArgsFunction: fixed(),
	}
	cmd.Flags().StringVar(&network, "network", "", "`network` of the entry")
	ifExistsFlag(cmd, &ifExists)
	_ = cmd.MarkFlagRequired("network")
	complete(cmd, "network", p.networkNames())
	return cmd
}

func (p *program) fdbFlush() *cobra.Command {
	var network, port string
	cmd := &cobra.Command{
		Use:   "flush",
		Short: "Forget what was learnt; static entries stay",
		Example: `  swctl fdb flush
  swctl fdb flush --network blue --port web`,
		Args: arguments(),
		RunE: works(0, func(cmd *cobra.Command, _ []string) error {
			c := p.client()
			defer c.Close()
			return c.Flush(cmd.Context(), network, port)
		}),
	}
	cmd.Flags().StringVar(&network, "network", "", "only this `network`'s")
	cmd.Flags().StringVar(&port, "port", "", "only what is behind this `port`")
	complete(cmd, "network", p.networkNames())
	complete(cmd, "port", p.portNames())
	return cmd
}
