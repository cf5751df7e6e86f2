package main

import (
	"runtime/debug"

	"github.com/spf13/cobra"

	"heddle/ctl/api"
)

// version is set by the linker (-X main.version).
var version string

// ownVersion falls back to what the Go toolchain knows of the build.
func ownVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}

func (p *program) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show swd at a glance",
		Example: "  swctl status",
		Args:    arguments(),
		RunE: works(0, func(cmd *cobra.Command, _ []string) error {
			c := p.client()
			defer c.Close()
			s, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			return p.print(cmd, s, func(t *table) { statusTable(t, &s) })
		}),
	}
}

func statusTable(t *table, s *api.Status) {
	t.row("version", s.Version)
	t.row("node", s.Node)
	t.row("pid", s.PID)
	t.row("uptime-seconds", seconds(s.UptimeSeconds))
	t.row("workers", s.Workers)
	t.row("networks", s.Networks)
	t.row("ports", s.Ports)
	t.row("ports-down", s.PortsDown)
	t.row("macs", s.MACs)
	t.row("max-macs", s.MaxMACs)
	t.row("macs-refused", s.MACsRefused)
	t.row("rx-frames", s.RxFrames)
	t.row("rx-bytes", s.RxBytes)
	t.row("tx-frames", s.TxFrames)
	t.row("tx-bytes", s.TxBytes)
	t.row("drops", s.Drops)
	t.row("uplinks", s.Uplinks)
	t.row("uplinks-down", s.UplinksDown)
	t.row("conns", s.Conns)
	t.row("max-conns", s.MaxConns)
	t.row("conns-refused", s.ConnsRefused)
	t.row("peers", s.Peers)
	t.row("peers-down", s.PeersDown)
	t.row("mesh", s.Mesh)
	t.row("members-up", s.MembersUp)
	t.row("members", s.Members)
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show the versions of swctl and, if it can be reached, swd",
		Example: "  swctl version",
		Args:    arguments(),
		RunE: works(0, func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Swctl string `json:"swctl"`
				Swd   string `json:"swd,omitempty"`
			}{Swctl: ownVersion()}
			c := p.client()
			defer c.Close()
			if s, err := c.Status(cmd.Context()); err == nil {
				v.Swd = s.Version
			}
			return p.print(cmd, v, func(t *table) {
				t.row("swctl", v.Swctl)
				if v.Swd == "" {
					t.row("swd", "can't be reached")
				} else {
					t.row("swd", v.Swd)
				}
			})
		}),
	}
}
