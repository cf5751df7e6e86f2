package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"heddle/ctl/client"
	"heddle/ctl/config"
)

// socketEnv names the socket where --socket doesn't.
const socketEnv = "SWCTL_SOCKET"

// program is what all commands share: the global flags.
type program struct {
	socket string
	output format
}

// run executes a command line and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	return report(stderr, cmd, err)
}

func newRoot() *cobra.Command {
	p := &program{output: formatTable}
	root := &cobra.Command{
		Use:   "swctl",
		Short: "Control swd, the userspace virtual switch",
		Long: `swctl controls swd, the userspace virtual switch.

Exit codes: 0 done; 1 refused or failed; 2 bad usage; 3 swd can't be reached.`,
		Example: `  swctl network add blue --subnet 198.18.0.0/24
  swctl port add web --network blue --netns /run/netns/web --ip 198.18.0.2/24
  swctl port ls`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		RunE:              verbMissing,
		Args:              noun,
		PersistentPreRunE: refuseEmpty,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	socket := os.Getenv(socketEnv)
	if socket == "" {
		socket = client.DefaultSocket
	}
	flags := root.PersistentFlags()
	flags.StringVar(&p.socket, "socket", socket, "swd's unix socket, also by "+socketEnv)
	flags.VarP(&p.output, "output", "o", "how to print: table or json")
	complete(root, "output", fixed(string(formatTable), string(formatJSON)))
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError(err) })
	root.AddCommand(
		p.statusCommand(), p.versionCommand(), p.dropsCommand(), p.applyCommand(), p.exportCommand(),
		p.networkCommand(), p.portCommand(), p.fdbCommand(),
		p.uplinkCommand(), p.natCommand(), p.connCommand(),
		p.peerCommand(), p.meshCommand(),
		p.eventsCommand(), p.captureCommand(), completionCommand(),
	)
	return root
}

// flagError names the flag of a value that it can't have, and says why in the
// user's words.
func flagError(err error) error {
	var bad *pflag.InvalidValueError
	if errors.As(err, &bad) {
		return fmt.Errorf("--%s: %w", bad.GetFlag().Name, config.NumberError(bad.Unwrap()))
	}
	return err
}

// client returns a client of the swd that the flags name.
func (p *program) client() *client.Client { return client.New(p.socket) }

// nounCommand makes a command that only groups verbs.
func nounCommand(name, short, example string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Example: example, RunE: verbMissing, Args: noun}
	cmd.AddCommand(verbs...)
	return cmd
}

// noun refuses what is none of a noun's verbs.
func noun(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unknown command %q: want one of %s", args[0], verbs(cmd))
	}
	return nil
}

func verbMissing(cmd *cobra.Command, _ []string) error {
	return fmt.Errorf("what to do is missing: want one of %s", verbs(cmd))
}

func verbs(cmd *cobra.Command) string {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return strings.Join(names, ", ")
}

// arguments wants exactly those that are named.
func arguments(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return fmt.Errorf("%s is missing", names[len(args)])
		case len(args) > len(names):
			return fmt.Errorf("there is an argument too many: %q", args[len(names)])
		}
		return nil
	}
}

// refuseEmpty takes an argument or flag that is given but empty for what it
// mostly is: a script's variable that isn't set.
func refuseEmpty(cmd *cobra.Command, args []string) error {
	if cmd.Name() == cobra.ShellCompRequestCmd || cmd.Name() == cobra.ShellCompNoDescRequestCmd {
		return nil // The word to complete may still be empty.
	}
	for _, a := range args {
		if a == "" {
			return errors.New("an argument is empty")
		}
	}
	var err error
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if v := f.Value.String(); v == "" || v == "[]" {
			err = fmt.Errorf("--%s is given but empty", f.Name)
		}
	})
	return err
}
