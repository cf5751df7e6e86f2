// Command swctl controls swd: networks, ports, the FDB, uplinks, NAT and its
// connections, counters, events and captures. docs/CLI.md describes every
// command.
//
// There is one file per noun. Each command asks swd by package client, prints
// what it answers as a table or JSON, and returns its error; run alone decides
// the exit code.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
