package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"heddle/ctl/client"
	"heddle/ctl/config"
)

// listing makes the verb ls of a noun: all that get returns, sorted by name.
func listing[T any](p *program, short, example string, name func(*T) string,
	get func(*client.Client, context.Context) ([]T, error), rows func(*table, []T),
) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Short:   short,
		Example: example,
		Args:    arguments(),
		RunE: works(0, func(cmd *cobra.Command, _ []string) error {
			c := p.client()
			defer c.Close()
			all, err := get(c, cmd.Context())
			if err != nil {
				return err
			}
			slices.SortFunc(all, func(a, b T) int { return strings.Compare(name(&a), name(&b)) })
			return p.print(cmd, list(all), func(t *table) { rows(t, all) })
		}),
	}
}

// showing makes the verb show of a noun whose objects have names.
func showing[T any](p *program, short, example string, names completer,
	get func(*client.Client, context.Context, string) (T, error), details func(*table, *T),
) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   short,
		Example: example,
		Args:    arguments("NAME"),
		RunE: works(1, func(cmd *cobra.Command, args []string) error {
			if err := config.CheckName(args[0]); err != nil {
				return err
			}
			c := p.client()
			defer c.Close()
			one, err := get(c, cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return p.print(cmd, one, func(t *table) { details(t, &one) })
		}),
		ValidArgsFunction: first(names),
	}
}

// removal makes the rm of a noun whose objects are known by what use says and
// check finds good: of anything else there is none.
func (p *program) removal(use, short, example string, check func(string) error, names completer, remove func(*cobra.Command, *client.Client, string) error) *cobra.Command {
	var ifExists bool
	cmd := &cobra.Command{
		Use:     use,
		Short:   short,
		Example: example + "\n" + example + " --if-exists",
		Args:    arguments(strings.TrimPrefix(use, "rm ")),
		RunE: works(1, func(cmd *cobra.Command, args []string) error {
			if err := check(args[0]); err != nil {
				if ifExists {
					return nil
				}
				return err
			}
			c := p.client()
			defer c.Close()
			return unlessGone(ifExists, remove(cmd, c, args[0]))
		}),
		ValidArgsFunction: first(names),
	}
	ifExistsFlag(cmd, &ifExists)
	return cmd
}
