package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"heddle/bench/baseline"
	"heddle/bench/lab"
	"heddle/bench/relay"
)

// The relays among the contenders.
const (
	relayTAP    = "relay-tap"
	relayPacket = "relay-veth"
	relayUplink = "relay-uplink"
)

func relayCommand() *cobra.Command {
	c := &cobra.Command{Use: "relay", Short: "Pass frames between two ports and do nothing else"}
	cpu := c.PersistentFlags().Int("cpu", -1, "CPU to be pinned to")
	ready := func(c *cobra.Command) func() { return func() { fmt.Fprint(c.OutOrStdout(), readyLine) } }
	c.AddCommand(&cobra.Command{
		Use:     "tap NETNS NETNS",
		Short:   "Between a TAP eth0 in each of two namespaces, which it makes",
		Example: "  swbench relay tap /run/netns/a /run/netns/b",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return relay.TAP(c.Context(), [2]string(args), baseline.Interface, *cpu, ready(c))
		},
	}, &cobra.Command{
		Use:     "packet INTERFACE INTERFACE",
		Short:   "Between two interfaces of the namespace that this runs in",
		Example: "  ip netns exec host swbench relay packet port-a port-b",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return relay.Packet(c.Context(), [2]string(args), *cpu, ready(c))
		},
	}, &cobra.Command{
		Use:     "uplink NETNS INTERFACE",
		Short:   "Between a TAP eth0 in a namespace, which it makes, and an interface of the namespace that this runs in",
		Example: "  ip netns exec host swbench relay uplink /run/netns/a wan0",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return relay.Uplink(c.Context(), args[0], baseline.Interface, args[1], *cpu, ready(c))
		},
	})
	return c
}

// newRelay joins two containers by a relay on the core that swd's worker would
// have, the last.
func newRelay(ctx context.Context, l *lab.Lab, name string, cores []int) (*baseline.Path, error) {
	self, err := ownPath()
	if err != nil {
		return nil, err
	}
	command := func(args ...string) []string {
		return append([]string{self, "relay", "--cpu", strconv.Itoa(cores[len(cores)-1])}, args...)
	}
	switch name {
	case relayTAP:
		return baseline.NewTAPRelay(ctx, l, name, command("tap"))
	case relayUplink:
		return baseline.NewUplinkRelay(ctx, l, name, command("uplink"))
	}
	return baseline.NewVethRelay(ctx, l, name, command("packet"))
}
