package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"heddle/ctl/api"
	"heddle/ctl/client"
)

// The exit codes.
const (
	exitDone        = 0
	exitFailed      = 1 // Refused or failed.
	exitUsage       = 2
	exitUnreachable = 3 // swd can't be reached.
)

// failure is what a command's work ended with; any other error of cobra's is
// bad usage.
type failure struct {
	what string // The operation and its object, as `port add web`.
	err  error
	hint string
}

func (f *failure) Error() string { return f.what + ": " + f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// hinted is an error that says what to do next.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// runner is a command's work.
type runner func(cmd *cobra.Command, args []string) error

// works makes a runner a cobra RunE whose errors are failures of the command
// with its first nameArgs arguments.
func works(nameArgs int, do runner) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := do(cmd, args)
		if err == nil {
			return nil
		}
		what := commandName(cmd)
		for _, a := range args[:min(nameArgs, len(args))] {
			what += " " + a
		}
		f := &failure{what: what, err: err}
		var h hinted
		if errors.As(err, &h) {
			f.hint = h.hint
		}
		return f
	}
}

// commandName returns a command's noun and verb.
func commandName(cmd *cobra.Command) string {
	return strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()), " ")
}

// report prints an error as `error: WHAT: WHY`, each of several on a line of
// its own, and the hint there is, and returns the exit code.
func report(stderr io.Writer, cmd *cobra.Command, err error) int {
	if err == nil {
		return exitDone
	}
	var f *failure
	if !errors.As(err, &f) {
		what, help := commandName(cmd), cmd.CommandPath()+" --help"
		if what == "" {
			what = "swctl"
		}
		fmt.Fprintf(stderr, "error: %s: %s\nhint: %s\n", what, firstLine(err), help)
		return exitUsage
	}
	var answer *api.Error
	var none *client.UnreachableError
	code := exitFailed
	switch {
	case errors.As(err, &answer):
		if answer.What != "" {
			f.what = answer.What
		}
		f.err, f.hint = errors.New(answer.Why), answer.Hint
	case errors.As(err, &none):
		f.err, f.hint, code = none, none.Hint, exitUnreachable
	}
	for why := range strings.SplitSeq(f.err.Error(), "\n") {
		fmt.Fprintf(stderr, "error: %s: %s\n", f.what, why)
	}
	if f.hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", f.hint)
	}
	return code
}

// firstLine drops the suggestions that cobra appends.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
