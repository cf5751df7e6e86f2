package main

import "github.com/spf13/cobra"

func (p *program) dropsCommand() *cobra.Command {
	var port string
	cmd := &cobra.Command{
		Use:   "drops",
		Short: "Show why frames went no further, in the order in which a frame meets the reasons",
		Example: `  swctl drops
  swctl drops --port web`,
		Args: arguments(),
		RunE: works(0, func(cmd *cobra.Command, _ []string) error {
			c := p.client()
			defer c.Close()
			all, err := c.Drops(cmd.Context(), port)
			if err != nil {
				return err
			}
			return p.print(cmd, list(all), func(t *table) {
				if port == "" {
					t.row("REASON", "COUNT")
				} else {
					t.row("REASON", "COUNT", "PORT")
				}
				for _, d := range all {
					if port == "" {
						t.row(d.Reason, d.Count)
					} else {
						t.row(d.Reason, d.Count, d.Port)
					}
				}
			})
		}),
	}
	cmd.Flags().StringVar(&port, "port", "", "only what this port or peer dropped")
	complete(cmd, "port", p.portAndPeerNames())
	return cmd
}
