package main

import (
	"cmp"
	"context"
	"time"

	"github.com/spf13/cobra"

	"heddle/ctl/client"
)

// completeTimeout bounds how long a shell waits for names.
const completeTimeout = time.Second

// completer gives the words that may stand at a place of the command line.
type completer func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective)

// complete sets a flag's completer. The flag exists, so there is no error.
func complete(cmd *cobra.Command, flag string, c completer) {
	_ = cmd.RegisterFlagCompletionFunc(flag, c)
}

// fixed completes words that never change.
func fixed(words ...string) completer {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// first completes the first argument only.
func first(c completer) completer {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c(cmd, args, toComplete)
	}
}

// portNames completes the names of swd's ports.
func (p *program) portNames() completer {
	return p.ask(func(ctx context.Context, c *client.Client) (names []string, err error) {
		all, err := c.Ports(ctx)
		for _, port := range all {
			names = append(names, port.Name)
		}
		return names, err
	})
}

// networkNames completes the names of swd's networks.
func (p *program) networkNames() completer {
	return p.ask(func(ctx context.Context, c *client.Client) (names []string, err error) {
		all, err := c.Networks(ctx)
		for _, n := range all {
			names = append(names, n.Name)
		}
		return names, err
	})
}

// uplinkNames completes the names of swd's uplinks.
func (p *program) uplinkNames() completer {
	return p.ask(func(ctx context.Context, c *client.Client) (names []string, err error) {
		all, err := c.Uplinks(ctx)
		for i := range all {
			names = append(names, all[i].Name)
		}
		return names, err
	})
}

// peerNames completes the names of swd's static peers.
func (p *program) peerNames() completer {
	return p.ask(func(ctx context.Context, c *client.Client) (names []string, err error) {
		all, err := c.Peers(ctx)
		for i := range all {
			names = append(names, all[i].Name)
		}
		return names, err
	})
}

// portAndPeerNames completes the names of swd's ports and static peers.
func (p *program) portAndPeerNames() completer {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		ports, how := p.portNames()(cmd, args, toComplete)
		peers, _ := p.peerNames()(cmd, args, toComplete)
		return append(ports, peers...), how
	}
}

// keyIDs completes the ids of the mesh's keys.
func (p *program) keyIDs() completer {
	return p.ask(func(ctx context.Context, c *client.Client) (ids []string, err error) {
		all, err := c.Keys(ctx)
		for _, k := range all {
			ids = append(ids, k.ID)
		}
		return ids, err
	})
}

// natIDs completes the ids of swd's NAT, with what they stand for.
func (p *program) natIDs() completer {
	return p.ask(func(ctx context.Context, c *client.Client) (ids []string, err error) {
		all, err := c.NATs(ctx)
		for i := range all {
			what := cmp.Or(all[i].Listen, all[i].Network)
			ids = append(ids, cobra.CompletionWithDesc(all[i].ID, all[i].Type+" "+what))
		}
		return ids, err
	})
}

// targets completes the names of swd's ports up to the colon.
func (p *program) targets() completer {
	names := p.portNames()
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		words, how := names(cmd, args, toComplete)
		for i := range words {
			words[i] += ":"
		}
		return words, how | cobra.ShellCompDirectiveNoSpace
	}
}

// ask completes what swd answers, and nothing if it doesn't.
func (p *program) ask(names func(context.Context, *client.Client) ([]string, error)) completer {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		parent := cmd.Context()
		if parent == nil {
			parent = context.Background()
		}
		ctx, cancel := context.WithTimeout(parent, completeTimeout)
		defer cancel()
		c := p.client()
		defer c.Close()
		words, err := names(ctx, c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

func completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:       "completion bash|zsh|fish",
		Short:     "Print a script that completes swctl's commands and swd's objects",
		Example:   "  swctl completion bash > /etc/bash_completion.d/swctl",
		Args:      cobra.MatchAll(arguments("the shell"), cobra.OnlyValidArgs),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: works(1, func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(out, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(out)
			}
			return cmd.Root().GenFishCompletion(out, true)
		}),
	}
}
