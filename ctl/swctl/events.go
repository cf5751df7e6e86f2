package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"heddle/ctl/api"
)

func (p *program) eventsCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened: ports going down and up, flapping MACs, changes",
		Long: `Show the events that swd has kept, the oldest first, and with --follow each
new one as it happens, until Ctrl-C. -o json prints one list; with --follow,
which has no end, it prints one JSON object a line.`,
		Example: `  swctl events
  swctl events --follow -o json`,
		Args: arguments(),
		RunE: works(0, func(cmd *cobra.Command, _ []string) error {
			c := p.client()
			defer c.Close()
			out := cmd.OutOrStdout()
			all := []api.Event{}
			show := func(e api.Event) error {
				_, err := fmt.Fprintf(out, "%-35s  %-16s  %-20s  %s\n", cell(e.Time), cell(e.Kind), cell(e.Object), cell(e.Message))
				return err
			}
			switch {
			case p.output == formatJSON && follow:
				lines := json.NewEncoder(out)
				show = func(e api.Event) error { return lines.Encode(e) }
			case p.output == formatJSON:
				show = func(e api.Event) error {
					all = append(all, e)
					return nil
				}
			}
			if err := c.Events(cmd.Context(), follow, show); err != nil {
				return err
			}
			if p.output == formatJSON && !follow {
				return printJSON(out, all)
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&follow, "follow", false, "go on with each new event")
	return cmd
}
