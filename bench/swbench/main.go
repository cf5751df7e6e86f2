package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"heddle/bench/lab"
)

// errUnfinished says that some measurements gave no figure.
var errUnfinished = errors.New("not everything could be measured: see above")

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	cancel()
	if err := errors.Join(err, lab.RemoveBuild()); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// command is swbench itself; its subcommands are the ends of rows, which it
// starts in containers and which work by hand too.
func command() *cobra.Command {
	var opts options
	var quick bool
	c := &cobra.Command{
		Use:   "swbench",
		Short: "Measure Heddle beside the kernel's bridge, NAT and vxlan and Open vSwitch",
		Example: "  swbench --quick\n" +
			"  swbench --rows tcp-1,frames-60 --contenders bridge,swd-tap --runs 7\n" +
			"  swbench --rows 'nat-*'",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error {
			if quick {
				opts.Runs, opts.Seconds, opts.quick = 1, 1, true
			}
			if err := opts.validate(); err != nil {
				return err
			}
			r, err := run(c.Context(), opts, c.ErrOrStderr())
			if err != nil {
				return err
			}
			return deliver(c.OutOrStdout(), r, opts.dir)
		},
	}
	f := c.Flags()
	f.StringSliceVar(&opts.Rows, "rows", nil, "measure only these (patterns as nat-*): "+strings.Join(rowNames(), ", "))
	f.StringSliceVar(&opts.Contenders, "contenders", contenderNames(), "measure only these (patterns as swd-*)")
	f.IntVar(&opts.Runs, "runs", 5, "rounds, of which medians are taken")
	f.IntVar(&opts.Seconds, "seconds", 3, "length of one measurement")
	f.BoolVar(&quick, "quick", false, "one round of one second each: to see that everything works")
	f.StringVar(&opts.dir, "results", filepath.Join("bench", "results"), "where the result goes, in a directory of its own; empty for nowhere")
	f.StringVar(&opts.bin.Swd, "swd", "", "swd to measure (default: the one beside swbench, else built)")
	f.StringVar(&opts.bin.Swctl, "swctl", "", "swctl to go with it")
	f.StringSliceVar(&opts.SwdArgs, "swd-args", nil, "more arguments for swd, as --workers,2")
	ends := &cobra.Group{ID: "ends", Title: "What rows run in containers (swbench starts these itself):"}
	c.AddGroup(ends)
	for _, end := range []*cobra.Command{
		sendCommand(), receiveCommand(), serveCommand(), connectCommand(), fillCommand(),
		pourCommand(), drainCommand(), relayCommand(),
	} {
		end.GroupID = ends.ID
		c.AddCommand(end)
	}
	return c
}

// validate refuses what can't be measured.
func (o *options) validate() error {
	for _, check := range []struct {
		flag        string
		given, know []string
	}{{"--rows", o.Rows, rowNames()}, {"--contenders", o.Contenders, contenderNames()}} {
		for _, pattern := range check.given {
			if !slices.ContainsFunc(check.know, func(name string) bool { return matches([]string{pattern}, name) }) {
				return fmt.Errorf("%s: there is no %q, only %s", check.flag, pattern, strings.Join(check.know, ", "))
			}
		}
	}
	switch {
	case o.Runs < 1 || o.Runs > 1000:
		return fmt.Errorf("--runs: %d is not 1 to 1000", o.Runs)
	case o.Seconds < 1 || o.Seconds > 3600:
		return fmt.Errorf("--seconds: %d is not 1 to 3600", o.Seconds)
	case (o.bin.Swd == "") != (o.bin.Swctl == ""):
		return errors.New("--swd and --swctl go together")
	}
	return nil
}

// matches tells whether a name is wanted by patterns (path.Match), of which none
// want all.
func matches(patterns []string, name string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	})
}

// deliver prints the table and keeps the result in a new directory below dir:
// result.json, table.txt and plot.svg, and for what was measured over sizes
// scale.md and scale.svg.
func deliver(stdout io.Writer, r *Result, dir string) error {
	if err := writeTable(stdout, r); err != nil {
		return err
	}
	if len(r.Scale) > 0 {
		fmt.Fprintln(stdout)
		if err := writeScale(stdout, r); err != nil {
			return err
		}
	}
	if dir != "" {
		dir = filepath.Join(dir, r.Started.Format("2006-01-02-150405")+"-"+r.Machine.Commit)
		if err := keep(r, dir); err != nil {
			return fmt.Errorf("keeping the result: %w", err)
		}
		fmt.Fprintf(stdout, "\nkept in %s\n", dir)
	}
	if len(r.Errors) > 0 {
		return errUnfinished
	}
	return nil
}

func keep(r *Result, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	doc, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	var table, plot strings.Builder
	if err := errors.Join(writeTable(&table, r), writePlot(&plot, r)); err != nil {
		return err
	}
	if len(r.Scale) > 0 {
		if err := keepScale(r, dir); err != nil {
			return err
		}
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "result.json"), append(doc, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "table.txt"), []byte(table.String()), 0o644),
		os.WriteFile(filepath.Join(dir, "plot.svg"), []byte(plot.String()), 0o644),
	)
}
