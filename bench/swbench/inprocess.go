package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// inProcessRow is what --rows knows the Go benchmarks by.
const inProcessRow = "in-process"

// The columns of the in-process figures.
const (
	columnSwitch = "switch"
	columnSmall  = "1 K MACs"
	columnLarge  = "1 M MACs"

	columnFlow      = "1 flow"
	columnFlows     = "64 flows"
	columnFewConns  = "1 K connections"
	columnManyConns = "1 M connections"

	columnSuper = "super-frame"
)

// In-process figures of the tunnel that targets are set for.
const (
	frameEncap  = "64 B frame over mem ports, switch and VXLAN encap"
	allocsEncap = "allocations, 64 frames, switch and VXLAN encap"
	allocsDecap = "allocations, 64 frames, VXLAN decap and switch"
)

// suite is the Go benchmarks of a package, and which of their metrics are
// figures.
type suite struct {
	table      table
	pkg        string
	benchmarks string // Pattern of go test -bench.
	figures    []benchFigure
}

type benchFigure struct {
	benchmark, metric string
	figure            Figure
	column            string
}

var suites = []suite{
	{inSwitch, "heddle/switch", "^Benchmark(MemPorts|Lookup|Find|Memory)$", []benchFigure{
		{"BenchmarkMemPorts", "cpu-ns/frame", Figure{"64 B frame over mem ports", "ns", 1, true}, columnSwitch},
		{"BenchmarkMemPorts", "allocs/op", Figure{"allocations, 64 frames", "", 0, true}, columnSwitch},
		{"BenchmarkLookup/1000_MACs", "cpu-ns/frame", Figure{"forwarding to random MACs", "ns", 1, true}, columnSmall},
		{"BenchmarkLookup/1000000_MACs", "cpu-ns/frame", Figure{"forwarding to random MACs", "ns", 1, true}, columnLarge},
		{"BenchmarkFind/1000_MACs", "cpu-ns/lookup", Figure{"one FDB lookup after the other", "ns", 1, true}, columnSmall},
		{"BenchmarkFind/1000000_MACs", "cpu-ns/lookup", Figure{"one FDB lookup after the other", "ns", 1, true}, columnLarge},
		{"BenchmarkMemory", "B/MAC", Figure{"memory of a full FDB", "B/MAC", 1, true}, columnSwitch},
	}},
	{inNAT, "heddle/nat", "^Benchmark(MemPorts|Conns|Memory)$", []benchFigure{
		{"BenchmarkMemPorts/out,_1_flows", "cpu-ns/frame", Figure{"64 B frame over mem ports, switch and NAT", "ns", 1, true}, columnFlow},
		{"BenchmarkMemPorts/out,_64_flows", "cpu-ns/frame", Figure{"64 B frame over mem ports, switch and NAT", "ns", 1, true}, columnFlows},
		{"BenchmarkMemPorts/out,_1_flows", "allocs/op", Figure{"allocations, 64 frames, switch and NAT", "", 0, true}, columnFlow},
		{"BenchmarkMemPorts/out,_64_flows", "allocs/op", Figure{"allocations, 64 frames, switch and NAT", "", 0, true}, columnFlows},
		{"BenchmarkConns/1000_connections", "cpu-ns/frame", Figure{"translating for random connections", "ns", 1, true}, columnFewConns},
		{"BenchmarkConns/1000000_connections", "cpu-ns/frame", Figure{"translating for random connections", "ns", 1, true}, columnManyConns},
		{"BenchmarkMemory", "B/connection", Figure{"memory of a full connection table", "B", 1, true}, columnManyConns},
	}},
	{inTunnel, "heddle/tunnel", "^Benchmark(MemPorts|SuperFrame)$", []benchFigure{
		{"BenchmarkMemPorts/encap,_one_flow", "cpu-ns/frame", Figure{frameEncap, "ns", 1, true}, columnFlow},
		{"BenchmarkMemPorts/encap,_64_flows", "cpu-ns/frame", Figure{frameEncap, "ns", 1, true}, columnFlows},
		{"BenchmarkMemPorts/encap,_one_flow", "allocs/op", Figure{allocsEncap, "", 0, true}, columnFlow},
		{"BenchmarkMemPorts/encap,_64_flows", "allocs/op", Figure{allocsEncap, "", 0, true}, columnFlows},
		{"BenchmarkMemPorts/decap,_one_flow", "cpu-ns/frame", Figure{"64 B frame over mem ports, VXLAN decap and switch", "ns", 1, true}, columnFlow},
		{"BenchmarkMemPorts/decap,_64_flows", "cpu-ns/frame", Figure{"64 B frame over mem ports, VXLAN decap and switch", "ns", 1, true}, columnFlows},
		{"BenchmarkMemPorts/decap,_one_flow", "allocs/op", Figure{allocsDecap, "", 0, true}, columnFlow},
		{"BenchmarkMemPorts/decap,_64_flows", "allocs/op", Figure{allocsDecap, "", 0, true}, columnFlows},
		{"BenchmarkSuperFrame/encap", "cpu-ns/frame", Figure{"62 KB of TCP, VXLAN encap of 44 segments", "ns", 0, true}, columnSuper},
		{"BenchmarkSuperFrame/decap", "cpu-ns/frame", Figure{"62 KB of TCP, VXLAN decap and joining of 44 segments", "ns", 0, true}, columnSuper},
	}},
}

// inProcess runs the Go benchmarks, as often as there are rounds, and takes
// their figures into the result.
func (b *bench) inProcess(ctx context.Context) error {
	if _, err := exec.LookPath("go"); err != nil {
		b.result.Skipped = append(b.result.Skipped, "in-process rows: go is not on PATH")
		return nil
	}
	for _, s := range suites {
		if err := b.suite(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// suite runs one package's benchmarks.
func (b *bench) suite(ctx context.Context, s suite) error {
	words := []string{
		"go", "test", "-run", "^$", "-bench", s.benchmarks,
		"-benchmem", "-benchtime", "500ms", "-count", strconv.Itoa(b.opts.Runs), s.pkg,
	}
	b.progress.show("in process: " + strings.Join(words, " "))
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		b.result.Errors = append(b.result.Errors,
			fmt.Sprintf("%s: %v\n%s%s", strings.Join(words, " "), err, out, stderr.Bytes()))
		return nil
	}
	metrics := parseGoBench(string(out))
	for _, f := range s.figures {
		values := metrics[f.benchmark][f.metric]
		if len(values) == 0 || slices.ContainsFunc(values, impossible) {
			b.result.Errors = append(b.result.Errors,
				fmt.Sprintf("%s: %v for %s of %s in the output of %s", f.figure.Name, values, f.metric, f.benchmark, strings.Join(words, " ")))
			continue
		}
		samples := newSamples(values)
		samples.Commands = []string{strings.Join(words, " ")}
		b.result.figure(inProcessRow, s.table, f.figure).By[f.column] = samples
	}
	return nil
}

// parseGoBench reads the output of go test -bench (golang.org/design/14313)
// into values by benchmark, without the number of CPUs in its name, and
// metric. Lines that are something else are passed over.
func parseGoBench(out string) map[string]map[string][]float64 {
	metrics := map[string]map[string][]float64{}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		name := fields[0]
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			if _, err := strconv.Atoi(name[i+1:]); err == nil {
				name = name[:i]
			}
		}
		if metrics[name] == nil {
			metrics[name] = map[string][]float64{}
		}
		// After name and count come pairs of value and unit.
		for i := 2; i+1 < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				break
			}
			metrics[name][fields[i+1]] = append(metrics[name][fields[i+1]], value)
		}
	}
	return metrics
}
