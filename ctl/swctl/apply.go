package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"heddle/ctl/config"
)

func (p *program) applyCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make swd have what a config file says, beside what else it has",
		Long: `Make swd have what a config file says. What the file names and swd lacks is
created, what differs is changed, what swd has besides stays. The file is whole
in itself: a port's network stands in the same file.`,
		Example: `  swctl apply -f net.yaml
  swctl export | swctl --socket /run/other.sock apply -f -`,
		Args: arguments(),
		RunE: works(0, func(cmd *cobra.Command, _ []string) error {
			data, err := readFile(cmd, file)
			if err != nil {
				return err
			}
			spec, err := config.Parse(data)
			if err != nil {
				return inFile(file, err)
			}
			c := p.client()
			defer c.Close()
			a, err := c.Apply(cmd.Context(), spec)
			if err != nil {
				return err
			}
			a.Created, a.Changed, a.Unchanged = list(a.Created), list(a.Changed), list(a.Unchanged)
			return p.print(cmd, a, func(t *table) {
				for _, o := range a.Created {
					t.row("created", o)
				}
				for _, o := range a.Changed {
					t.row("changed", o)
				}
				for _, o := range a.Unchanged {
					t.row("unchanged", o)
				}
			})
		}),
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "config `FILE` as YAML, - for stdin")
	_ = cmd.MarkFlagRequired("file")
	return cmd
}

// readFile reads the file, or stdin for "-", a byte further than its bound at
// most: Parse then refuses it.
func readFile(cmd *cobra.Command, file string) ([]byte, error) {
	in := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, config.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return data, nil
}

// inFile names the file in each of its errors.
func inFile(file string, err error) error {
	if file == "-" {
		file = "stdin"
	}
	return &fileErrors{file, err}
}

type fileErrors struct {
	file string
	err  error
}

// Error has a line for each error.
func (f *fileErrors) Error() string {
	var lines string
	for i, e := range config.Each(f.err) {
		if i > 0 {
			lines += "\n"
		}
		lines += f.file + ": " + e.Error()
	}
	return lines
}

// Unwrap returns the errors without the file.
func (f *fileErrors) Unwrap() error { return f.err }

func (p *program) exportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export",
		Short: "Print swd's config as a file for apply",
		Example: `  swctl export > net.yaml
  swctl export -o json`,
		Args: arguments(),
		RunE: works(0, func(cmd *cobra.Command, _ []string) error {
			c := p.client()
			defer c.Close()
			spec := new(config.Config)
			if err := c.Export(cmd.Context(), spec); err != nil {
				return err
			}
			if p.output == formatJSON {
				return printJSON(cmd.OutOrStdout(), spec)
			}
			text, err := config.Marshal(spec)
			if err != nil {
				return err
			}
			if _, err := cmd.OutOrStdout().Write(text); err != nil {
				return fmt.Errorf("print: %w", err)
			}
			return nil
		}),
	}
}
