package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"heddle/ctl/client"
)

func (p *program) captureCommand() *cobra.Command {
	var what client.Capture
	var file string
	cmd := &cobra.Command{
		Use:   "capture (PORT | --network NET | --uplink UP) [FILTER...]",
		Short: "Capture the frames of a port, network or uplink as pcapng",
		Long: `Capture the frames of a port, network or uplink as pcapng, until -c frames are
caught or Ctrl-C. FILTER is an expression as tcpdump takes, without host names and byte
expressions (tcp[13]).

Frames that couldn't be kept are counted as missed. That is before the filter:
of all frames, also those that it would have left out.

Without -w it writes to stdout, unless that is a terminal. When the disk is
full, the file is cut back to its last whole frame and can be read.`,
		Example: `  swctl capture web -w web.pcapng -c 100
  swctl capture --network blue -w - tcp port 80 | tcpdump -r -
  swctl capture --uplink wan -w wan.pcapng udp port 53
  swctl capture web -w - arp or icmp | wireshark -k -i -`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			named := 0
			if what.Network == "" && what.Uplink == "" {
				if len(args) == 0 {
					return errors.New("want a PORT, --network NET or --uplink UP")
				}
				what.Port, named = args[0], 1
			}
			what.Filter = strings.Join(args[named:], " ")
			if file == "" && isTerminal(cmd.OutOrStdout()) {
				return errors.New("stdout is a terminal: write to a file by -w FILE, or show the frames by -w - | tcpdump -r -")
			}
			return works(named, func(cmd *cobra.Command, _ []string) error { return p.capture(cmd, what, file) })(cmd, args)
		},
		ValidArgsFunction: first(p.portNames()),
	}
	f := cmd.Flags()
	f.StringVar(&what.Network, "network", "", "all ports of this `network`: a frame shows where it comes in and where it goes out")
	f.StringVar(&what.Uplink, "uplink", "", "this `uplink`: frames as they are on the wire")
	f.StringVarP(&file, "write", "w", "", "`FILE` to write to, - for stdout")
	f.Uint64VarP(&what.Count, "count", "c", 0, "end after `N` frames")
	f.Uint32Var(&what.SnapLen, "snaplen", 0, "`bytes` of each frame to keep (default: all)")
	cmd.MarkFlagsMutuallyExclusive("network", "uplink")
	complete(cmd, "network", p.networkNames())
	complete(cmd, "uplink", p.uplinkNames())
	return cmd
}

// capture writes to the file, or stdout, and tells on stderr what came of it.
func (p *program) capture(cmd *cobra.Command, what client.Capture, file string) error {
	c := p.client()
	defer c.Close()
	var out sink = &streamSink{w: cmd.OutOrStdout()}
	if file != "" && file != "-" {
		out = &fileSink{path: file}
	} else {
		// A reader that went away is an error to tell, not a silent end.
		signal.Ignore(syscall.SIGPIPE)
		defer signal.Reset(syscall.SIGPIPE)
	}
	blocks := &blockWriter{out: out}
	n, err := c.Capture(cmd.Context(), what, blocks)
	if closeErr := out.finish(blocks.whole); err == nil && closeErr != nil {
		err = closeErr
	}
	if err == nil && n.Known {
		fmt.Fprintf(cmd.ErrOrStderr(), "%d frames captured, %d missed\n", n.Frames, n.Missed)
		return nil
	}
	if err == nil || blocks.frames > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "%d frames captured\n", blocks.frames)
	}
	return captureError(err, file)
}

// captureError says what to do where writing failed.
func captureError(err error, file string) error {
	if file == "" || file == "-" {
		file = "stdout"
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return hinted{err, "the frames up to here are in " + file + "; write elsewhere, or less by a filter, -c or --snaplen"}
	case errors.Is(err, syscall.EPIPE):
		return hinted{fmt.Errorf("the reader of the pipe went away: %w", err), "see what it said"}
	}
	return err
}

// isTerminal tells whether w is one, where pcapng would do harm.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
