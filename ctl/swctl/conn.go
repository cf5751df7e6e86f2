package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"heddle/ctl/api"
	"heddle/ctl/client"
	"heddle/ctl/config"
)

func (p *program) connCommand() *cobra.Command {
	return nounCommand("conn", "Connections that NAT tracks: list, flush, count",
		"  swctl conn ls --network blue",
		p.connList(), p.connFlush(), p.connCount())
}

// connFilter adds the flags by which connections are chosen. What they say is
// good once check says so.
func (p *program) connFilter(cmd *cobra.Command) (f *client.ConnFilter, check func() error) {
	f = new(client.ConnFilter)
	flags := cmd.Flags()
	flags.StringVar(&f.Network, "network", "", "only of this `network`'s containers")
	flags.StringVar(&f.Proto, "proto", "", "only of this `protocol`: tcp, udp, icmp or sctp")
	flags.StringVar(&f.Src, "src", "", "only those begun by this `address` or subnet")
	flags.StringVar(&f.Dst, "dst", "", "only those begun towards this `address` or subnet")
	complete(cmd, "network", p.networkNames())
	complete(cmd, "proto", fixed(config.ProtoTCP, config.ProtoUDP, config.ProtoICMP, config.ProtoSCTP))
	complete(cmd, "src", fixed())
	complete(cmd, "dst", fixed())
	return f, func() error {
		if f.Proto != "" {
			if err := config.CheckProto(f.Proto); err != nil {
				return fmt.Errorf("--proto: %w", err)
			}
		}
		for flag, value := range map[string]string{"--src": f.Src, "--dst": f.Dst} {
			if value == "" {
				continue
			}
			if _, err := config.ParseMatch(value); err != nil {
				return fmt.Errorf("%s: %w", flag, err)
			}
		}
		return nil
	}
}

func (p *program) connList() *cobra.Command {
	var limit uint64
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the connections",
		Long: `List the connections as they come from swd: there may be a million, which are
neither sorted nor held in memory. ORIGINAL is the first packet's direction as
it was sent, REPLY the other as it comes back.`,
		Example: `  swctl conn ls
  swctl conn ls --network blue --proto tcp --dst 192.0.2.0/24 --limit 100`,
		Args: arguments(),
	}
	filter, check := p.connFilter(cmd)
	cmd.RunE = works(0, func(cmd *cobra.Command, _ []string) error {
		if err := check(); err != nil {
			return err
		}
		c := p.client()
		defer c.Close()
		if p.output == formatJSON {
			out := newListStream(cmd.OutOrStdout())
			err := c.Conns(cmd.Context(), *filter, limit, func(n api.Conn) error { return out.add(n) })
			return out.end(err)
		}
		out := newTableStream(cmd.OutOrStdout(),
			"PROTO", "NETWORK", "STATE", "TIMEOUT-SECONDS", "ORIGINAL-SRC", "ORIGINAL-DST", "REPLY-SRC", "REPLY-DST", "PACKETS", "BYTES")
		err := c.Conns(cmd.Context(), *filter, limit, func(n api.Conn) error {
			out.row(n.Proto, n.Network, n.State, seconds(n.TimeoutSeconds),
				n.Original.Src, n.Original.Dst, n.Reply.Src, n.Reply.Dst, n.Packets, n.Bytes)
			return out.err
		})
		return out.end(err)
	})
	cmd.Flags().Uint64Var(&limit, "limit", 0, "end after `N` connections (default: all)")
	return cmd
}

func (p *program) connFlush() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "flush",
		Short: "End connections: all, or those that all flags mean",
		Example: `  swctl conn flush
  swctl conn flush --src 198.18.0.2 --proto udp`,
		Args: arguments(),
	}
	filter, check := p.connFilter(cmd)
	cmd.RunE = works(0, func(cmd *cobra.Command, _ []string) error {
		if err := check(); err != nil {
			return err
		}
		c := p.client()
		defer c.Close()
		return c.FlushConns(cmd.Context(), *filter)
	})
	return cmd
}

func (p *program) connCount() *cobra.Command {
	return &cobra.Command{
		Use:     "count",
		Short:   "Show how many connections there are; -o json also how many there were and may be",
		Example: "  swctl conn count\n  swctl conn count -o json",
		Args:    arguments(),
		RunE: works(0, func(cmd *cobra.Command, _ []string) error {
			c := p.client()
			defer c.Close()
			n, err := c.CountConns(cmd.Context())
			if err != nil {
				return err
			}
			return p.print(cmd, n, func(t *table) { t.row(n.Count) })
		}),
	}
}
