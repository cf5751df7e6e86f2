package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"heddle/bench/baseline"
	"heddle/bench/lab"
	"heddle/ctl/config"
)

// contenders are what --contenders takes, in the order of their table.
var contenders = []struct {
	name  string
	table table
}{
	{"bridge", switching}, {"swd-tap", switching}, {"swd-veth", switching}, {"ovs", switching},
	{relayTAP, switching}, {relayPacket, switching},
	{"masquerade", translating}, {swdOwn, translating}, {swdShared, translating},
	{relayUplink, translating},
	{"vxlan", tunnelling}, {swdVXLANTAP, tunnelling}, {swdVXLANVeth, tunnelling}, {"ovs-vxlan", tunnelling},
}

func contenderNames() []string {
	names := []string{}
	for _, c := range contenders {
		names = append(names, c.name)
	}
	return names
}

// options are what the command line asks for.
type options struct {
	Rows       []string `json:"rows"`
	Contenders []string `json:"contenders"`
	Runs       int      `json:"runs"`
	Seconds    int      `json:"seconds"`
	SwdArgs    []string `json:"swd_args"`
	dir        string   // Results go below it.
	quick      bool     // It is only to be seen that everything works.
	bin        lab.Binaries
}

// bench is one run of the whole.
type bench struct {
	opts     options
	lab      *lab.Lab
	cores    []int // That this process may use.
	netperf  bool  // Rather than iperf3 and sockperf.
	cubic    bool  // TCP must be told to use CUBIC.
	servers  int   // Started so far.
	paths    []*baseline.Path
	progress *progress
	result   *Result
	programs string // A directory for what scale builds.
	// apart tells that swd need not be of this program's version.
	apart bool
}

// run measures everything and returns the result, which is complete but for
// what Result.Errors says.
func run(ctx context.Context, opts options, stderr io.Writer) (res *Result, err error) {
	b := &bench{opts: opts, progress: newProgress(stderr), result: newResult(ctx, opts)}
	if b.cores, err = usableCores(); err != nil {
		return nil, err
	}
	if b.netperf, err = chooseTools(); err != nil {
		return nil, err
	}
	b.cubic = needsCubic()
	if m := b.result.Machine; m.Load > float64(m.CPUs)/4 {
		b.progress.show(fmt.Sprintf("warning: the machine is busy (load %.2f): figures will be noisy\n", m.Load))
	}
	if b.lab, err = lab.Open(); err != nil {
		return nil, err
	}
	// Also on a panic: the lab must not be left behind.
	defer func() { err = errors.Join(err, b.lab.Close()) }()
	if rows := chosen(opts.Rows); len(rows) > 0 {
		if err := b.setUp(ctx, rows); err != nil {
			return nil, err
		}
		if err := b.rounds(ctx, rows); err != nil {
			return nil, err
		}
	}
	if matches(opts.Rows, inProcessRow) {
		if err := b.inProcess(ctx); err != nil {
			return nil, err
		}
	}
	if err := b.scale(ctx); err != nil {
		return nil, err
	}
	b.progress.done()
	b.result.finish()
	return b.result, nil
}

// setUp builds the contenders that rows are measured on, and checks that each
// carries a ping.
func (b *bench) setUp(ctx context.Context, rows []Row) error {
	for _, c := range contenders {
		name := c.name
		if !matches(b.opts.Contenders, name) || !slices.ContainsFunc(rows, func(r Row) bool { return r.Table == c.table }) {
			continue
		}
		b.progress.show("setting up " + name)
		before := len(b.lab.Commands())
		p, err := b.newPath(ctx, name)
		if errors.Is(err, baseline.ErrNotInstalled) {
			b.result.Skipped = append(b.result.Skipped, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		if err == nil {
			_, err = p.A.Run(ctx, "ping", "-c1", "-W5", p.Server)
		}
		if err != nil {
			return fmt.Errorf("setting up %s: %w", name, err)
		}
		b.paths = append(b.paths, p)
		b.result.Contenders = append(b.result.Contenders, Contender{
			Name: p.Name, About: p.About, Setup: b.lab.Commands()[before:],
		})
	}
	return nil
}

func (b *bench) newPath(ctx context.Context, name string) (*baseline.Path, error) {
	switch name {
	case "bridge":
		return baseline.NewBridge(b.lab)
	case "ovs":
		return baseline.NewOVS(ctx, b.lab)
	case "masquerade":
		return baseline.NewMasquerade(ctx, b.lab)
	case "vxlan":
		return baseline.NewVXLAN(ctx, b.lab)
	case relayTAP, relayPacket, relayUplink:
		return newRelay(ctx, b.lab, name, b.cores)
	case "ovs-vxlan":
		return baseline.NewOVSVXLAN(ctx, b.lab)
	}
	bin, err := b.binaries()
	if err != nil {
		return nil, err
	}
	var p *baseline.Path
	switch name {
	case "swd-veth":
		p, err = newSwd(ctx, b.lab, bin, config.KindVeth, b.opts.SwdArgs)
	case "swd-tap":
		p, err = newSwd(ctx, b.lab, bin, config.KindTAP, b.opts.SwdArgs)
	case swdVXLANTAP:
		p, err = newSwdVXLAN(ctx, b.lab, bin, config.KindTAP, b.cores, b.opts.SwdArgs)
	case swdVXLANVeth:
		p, err = newSwdVXLAN(ctx, b.lab, bin, config.KindVeth, b.cores, b.opts.SwdArgs)
	default:
		p, err = newSwdNAT(ctx, b.lab, bin, name, b.opts.SwdArgs)
	}
	if err != nil {
		return nil, err
	}
	return p, b.genuine(ctx, p)
}

// binaries finds swd and swctl: as told, beside this program, or built anew.
func (b *bench) binaries() (lab.Binaries, error) {
	if b.opts.bin.Swd != "" {
		b.apart = true
		return b.opts.bin, nil
	}
	self, err := ownPath()
	if err != nil {
		return lab.Binaries{}, err
	}
	dir := filepath.Dir(self)
	beside := lab.Binaries{Swd: besidePath(dir, "swd"), Swctl: besidePath(dir, "swctl")}
	if exists(beside.Swd) && exists(beside.Swctl) {
		return beside, nil
	}
	b.apart = true
	return lab.Build()
}

// ownPath returns where this program is, relative to the working directory
// where it is below it: recorded commands shall work in another clone.
func ownPath() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding swbench itself: %w", err)
	}
	here, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding swbench itself: %w", err)
	}
	if below, err := filepath.Rel(here, self); err == nil && filepath.IsLocal(below) {
		return besidePath(filepath.Split(below)), nil
	}
	return self, nil
}

// besidePath joins a directory and a name such that the result is never looked
// up in PATH.
func besidePath(dir, name string) string {
	if path := filepath.Join(dir, name); strings.Contains(path, "/") {
		return path
	}
	return "./" + name
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// rotated returns the paths that a row is measured on in a round. Each round begins
// with another one, and every second goes backwards, so that none is always the
// first or always behind the same.
func (b *bench) rotated(row Row, round int) []*baseline.Path {
	var on []*baseline.Path
	for _, p := range b.paths {
		if row.on(p) {
			on = append(on, p)
		}
	}
	if len(on) == 0 {
		return nil
	}
	if round%2 == 1 {
		slices.Reverse(on)
	}
	first := round % len(on)
	return slices.Concat(on[first:], on[:first])
}

// rounds measures every row on every contender, again and again.
func (b *bench) rounds(ctx context.Context, rows []Row) error {
	steps := 0
	for _, row := range rows {
		steps += b.opts.Runs * len(b.rotated(row, 0))
	}
	b.progress.expect(steps)
	for round := range b.opts.Runs {
		for _, row := range rows {
			for _, p := range b.rotated(row, round) {
				b.progress.step(fmt.Sprintf("round %d/%d  %s: %s", round+1, b.opts.Runs, row.Title, p.Name))
				before := len(b.lab.Commands())
				m, err := b.verified(ctx, row, p)
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				b.result.add(round, row, p.Name, m, err, b.lab.Commands()[before:])
				if err != nil { // The table tells all of it, but a long run is better ended now.
					reason, _, _ := strings.Cut(err.Error(), "\n")
					b.progress.show(fmt.Sprintf("no figure of %s on %s: %s\n", row.Title, p.Name, reason))
				}
			}
		}
	}
	return nil
}

// seconds is the measuring time and a margin, in seconds.
func (b *bench) seconds(margin int) time.Duration {
	return time.Duration(b.opts.Seconds+margin) * time.Second
}

// usableCores lists the CPUs that this process may run on.
func usableCores() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("CPUs of this process: %w", err)
	}
	var cores []int
	for i := range len(set) * 64 {
		if set.IsSet(i) {
			cores = append(cores, i)
		}
	}
	return cores, nil
}

// chooseTools prefers netperf where it is installed.
func chooseTools() (netperf bool, err error) {
	need := []string{"iperf3", "sockperf", "ab", "taskset", "ping"}
	if _, errClient := exec.LookPath("netperf"); errClient == nil {
		if _, errServer := exec.LookPath("netserver"); errServer == nil {
			netperf, need = true, []string{"sockperf", "ab", "taskset", "ping"}
		}
	}
	for _, tool := range need {
		if _, err := exec.LookPath(tool); err != nil {
			return false, fmt.Errorf("%s is not installed: `make deps` installs it", tool)
		}
	}
	return netperf, nil
}

// needsCubic tells whether TCP uses something other than CUBIC by default, and
// could use CUBIC.
func needsCubic() bool {
	const dir = "/proc/sys/net/ipv4/"
	current, err := os.ReadFile(dir + "tcp_congestion_control")
	if err != nil || strings.TrimSpace(string(current)) == "cubic" {
		return false
	}
	available, err := os.ReadFile(dir + "tcp_available_congestion_control")
	return err == nil && slices.Contains(strings.Fields(string(available)), "cubic")
}
