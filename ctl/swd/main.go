// Command swd is Heddle's daemon: it carries frames between the ports that
// swctl adds, or that a config file asks for, until SIGTERM or SIGINT.
//
// Exit codes: 0 stopped as asked, 1 it failed, 2 bad usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"heddle/ctl/config"
	"heddle/ctl/daemon"
)

// version is set by the linker (-X main.version).
var version = "unknown"

// The exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main with its exit code.
func run(args []string, stdout, stderr io.Writer) int {
	cmd := command(stdout)
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.Execute()
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "error: swd: %v\n", err)
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintln(stderr, "hint: swd --help lists the flags")
		return exitUsage
	}
	return exitFailed
}

func command(stdout io.Writer) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "swd",
		Short: "carry frames between containers",
		Long: "swd is a virtual switch in userspace: it carries Ethernet frames between the TAP, veth\n" +
			"and packet ports that swctl adds. It prints \"ready\" when it serves, tells systemd so,\n" +
			"and stops on SIGTERM or SIGINT; ports and their interfaces survive until it starts again.\n" +
			"Every flag can be given as an environment variable instead: --state-dir is SWD_STATE_DIR.",
		Example: "  swd\n  swd --config /etc/heddle/heddle.yaml --metrics 127.0.0.1:9464",
		Version: version,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unexpected argument %q", args[0])}
			}
			return nil
		},
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd.Flags(), os.LookupEnv); err != nil {
				return usageError{err}
			}
			o, err := f.options()
			if err != nil {
				return usageError{err}
			}
			return serve(cmd.Context(), o, stdout)
		},
	}
	cmd.SetVersionTemplate("swd {{.Version}}\n")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		var bad *pflag.InvalidValueError
		if errors.As(err, &bad) {
			err = fmt.Errorf("--%s: %w", bad.GetFlag().Name, config.NumberError(bad.Unwrap()))
		}
		return usageError{err}
	})
	cmd.CompletionOptions.DisableDefaultCmd = true
	f.define(cmd.Flags())
	return cmd
}

// serve runs the daemon until a signal ends it.
func serve(ctx context.Context, o daemon.Options, stdout io.Writer) error {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, stop := untilSignal(ctx, o.Log)
	defer stop()
	defer func() { _ = o.Log.Sync() }() // Not every stderr can be synced.
	d, err := daemon.New(ctx, o)
	if err != nil && errors.Is(err, ctx.Err()) {
		return nil // Stopped as asked, before it served.
	}
	if err != nil {
		return err
	}
	boundGarbage()
	stopping := d.NotifySystemd(func() { fmt.Fprintln(stdout, "ready") })
	err = d.Run(ctx)
	stopping()
	return errors.Join(err, d.Close())
}

// untilSignal ends ctx at the first SIGTERM or SIGINT; a second ends the
// process at once, as kill -9 would: the next start takes over.
func untilSignal(ctx context.Context, log *zap.Logger) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		select {
		case <-ctx.Done():
			return
		case s := <-signals:
			log.Info("stopping", zap.Stringer("signal", s))
			cancel()
		}
		s := <-signals
		log.Warn("stopping at once", zap.Stringer("signal", s))
		os.Exit(exitFailed)
	}()
	return ctx, cancel
}
