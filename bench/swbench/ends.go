package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"heddle/bench/load"
)

// readyLine is what the receiver prints when frames may come.
const readyLine = "ready\n"

// frameFlags are what both ends of the small-frame rows must agree on.
func frameFlags(c *cobra.Command) (frames *load.Frames, ifname *string) {
	f := load.DefaultFrames()
	c.Flags().IntVar(&f.Flows, "flows", f.Flows, "flows, told apart by UDP source port")
	c.Flags().IntVar(&f.Size, "size", f.Size, "bytes a frame, without FCS")
	endpointFlags(c, &f.Src, &f.Dst, &f.SrcIP, &f.DstIP)
	return &f, interfaceFlag(c)
}

// endpointFlags are the addresses of frames.
func endpointFlags(c *cobra.Command, src, dst *net.HardwareAddr, srcIP, dstIP *netip.Addr) {
	c.Flags().Var((*macFlag)(src), "src-mac", "source MAC")
	c.Flags().Var((*macFlag)(dst), "dst-mac", "destination MAC")
	c.Flags().TextVar(srcIP, "src-ip", *srcIP, "source address")
	c.Flags().TextVar(dstIP, "dst-ip", *dstIP, "destination address")
}

func interfaceFlag(c *cobra.Command) *string {
	return c.Flags().String("interface", "eth0", "interface of the namespace that this runs in")
}

// macFlag is a flag's value.
type macFlag net.HardwareAddr

func (m *macFlag) String() string { return net.HardwareAddr(*m).String() }
func (m *macFlag) Type() string   { return "MAC" }
func (m *macFlag) Set(s string) error {
	mac, err := net.ParseMAC(s)
	*m = macFlag(mac)
	return err
}

// printJSON is how ends tell what they did.
func printJSON(c *cobra.Command, v any) error { return json.NewEncoder(c.OutOrStdout()).Encode(v) }

func sendCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "send",
		Short:   "Send small frames out of an interface",
		Example: "  ip netns exec a taskset -c 0 swbench send --interface eth0 --seconds 3",
		Args:    cobra.NoArgs,
	}
	frames, ifname := frameFlags(c)
	seconds := c.Flags().Int("seconds", 3, "how long")
	rate := c.Flags().Float64("rate", 0, "frames a second; 0 is as fast as it goes")
	c.RunE = func(c *cobra.Command, _ []string) error {
		sent, err := load.Send(c.Context(), *ifname, *frames, time.Duration(*seconds)*time.Second, *rate)
		if err != nil {
			return err
		}
		return printJSON(c, sent)
	}
	return c
}

func receiveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "receive",
		Short: "Take in small frames, verify each, and report when no more come",
		Example: "  ip netns exec b taskset -c 1 swbench receive --interface eth0\n" +
			"Prints `ready`, then one JSON object.",
		Args: cobra.NoArgs,
	}
	frames, ifname := frameFlags(c)
	c.Flags().BoolVar(&frames.Routed, "routed", false, "the path routes and translates; the source address is what it translates to")
	idle := c.Flags().Duration("idle", time.Second, "end when nothing has come for so long after the first frame")
	c.RunE = func(c *cobra.Command, _ []string) (err error) {
		r, err := load.OpenReceiver(*ifname, *frames)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.Close()) }()
		fmt.Fprint(c.OutOrStdout(), readyLine)
		received, err := r.Run(c.Context(), *idle)
		if err != nil {
			return err
		}
		return printJSON(c, received)
	}
	return c
}

func serveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "serve PORT",
		Short:   "Answer each TCP connection's HTTP request and close it, and report how many came",
		Example: "  ip netns exec b swbench serve 8080\nPrints one JSON object when it is ended.",
		Args:    cobra.ExactArgs(1),
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		at, err := netip.ParseAddrPort("0.0.0.0:" + args[0])
		if err != nil {
			return err
		}
		s, err := load.Listen(at)
		if err != nil {
			return err
		}
		if err := s.Run(c.Context()); err != nil {
			return err
		}
		return printJSON(c, s.Served())
	}
	return c
}

func drainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "drain PORT",
		Short:   "Take in TCP streams and check every byte",
		Example: "  ip netns exec b swbench drain 5201",
		Args:    cobra.ExactArgs(1),
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		at, err := netip.ParseAddrPort("0.0.0.0:" + args[0])
		if err != nil {
			return err
		}
		d, err := load.OpenDrain(at)
		if err != nil {
			return err
		}
		return d.Run(c.Context())
	}
	return c
}

func pourCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "pour ADDR:PORT",
		Short:   "Send a TCP stream to `swbench drain`, and fail unless every byte arrives as sent",
		Example: "  ip netns exec a swbench pour 198.18.0.2:5201 --bytes 33554432",
		Args:    cobra.ExactArgs(1),
	}
	seed := c.Flags().Uint64("seed", 1, "what the bytes are made from; streams at the same time have one each")
	length := c.Flags().Uint64("bytes", contentBytes, "how many, a multiple of 8")
	c.RunE = func(c *cobra.Command, args []string) error {
		to, err := netip.ParseAddrPort(args[0])
		if err != nil {
			return err
		}
		poured, err := load.Pour(c.Context(), to, *seed, *length)
		if err != nil {
			return err
		}
		return printJSON(c, poured)
	}
	return c
}

func connectCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "connect ADDR:PORT",
		Short:   "Make connections to `swbench serve`, one after the other",
		Example: "  ip netns exec a swbench connect 192.0.2.1:8080 --seconds 3",
		Args:    cobra.ExactArgs(1),
	}
	first := c.Flags().Uint16("first-port", 20_000, "where the first comes from; the next ones count up")
	most := c.Flags().Int("most", 30_000, "end when so many are made")
	seconds := c.Flags().Int("seconds", 3, "or after so long")
	c.RunE = func(c *cobra.Command, args []string) error {
		to, err := netip.ParseAddrPort(args[0])
		if err != nil {
			return err
		}
		connected, err := load.Connect(c.Context(), to, *first, *most, time.Duration(*seconds)*time.Second)
		if err != nil {
			return err
		}
		return printJSON(c, connected)
	}
	return c
}

func fillCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "fill",
		Short: "Begin connections by UDP that stay without an answer",
		Example: "  ip netns exec a swbench fill --src-mac 02:00:00:00:00:01 --dst-mac 02:00:00:00:00:02 \\\n" +
			"      --src-ip 198.18.0.64 --dst-ip 203.0.113.1 --conns 1000000",
		Args: cobra.NoArgs,
	}
	var f load.Fill
	endpointFlags(c, &f.Src, &f.Dst, &f.SrcIP, &f.DstIP)
	ifname := interfaceFlag(c)
	c.Flags().IntVar(&f.Conns, "conns", 1000, "how many")
	rate := c.Flags().Float64("rate", 200_000, "how many a second")
	c.RunE = func(c *cobra.Command, _ []string) error {
		sent, err := f.Send(c.Context(), *ifname, *rate)
		if err != nil {
			return err
		}
		return printJSON(c, sent)
	}
	return c
}
