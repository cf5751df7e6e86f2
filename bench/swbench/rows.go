package main

import (
	"context"
	"slices"

	"heddle/bench/baseline"
)

// Figure is one number of a row.
type Figure struct {
	Name   string
	Unit   string
	Digits int // After the decimal point, in the table.
	// Lower tells that less is better.
	Lower bool
}

// table is where figures stand: those that the same contenders have.
type table string

// The tables, in their order.
const (
	switching   table = "switching"   // Of paths that switch.
	translating table = "translating" // Of paths to an outside, that translate or needn't.
	tunnelling  table = "tunnelling"  // Of paths that tunnel.
	inSwitch    table = "in process: switch"
	inNAT       table = "in process: NAT"
	inTunnel    table = "in process: tunnel"
)

var tables = []table{switching, translating, tunnelling, inSwitch, inNAT, inTunnel}

// tableOf returns where a contender's figures stand.
func tableOf(p *baseline.Path) table {
	switch {
	case p.Hosts:
		return tunnelling
	case p.External != "":
		return translating
	default:
		return switching
	}
}

// Row is one measurement, done in every round on every contender of its table.
type Row struct {
	Name    string // For --rows and the JSON.
	Title   string
	Table   table
	Figures []Figure
	Measure func(context.Context, *bench, *baseline.Path) (measurement, error)
	// Prepare is called before the path's counters are read; nil is nothing.
	Prepare func(context.Context, *baseline.Path) error
	// Applies tells whether the row makes sense for a contender; nil is always.
	Applies func(*baseline.Path) bool
}

// on tells whether the row is measured on a contender.
func (r Row) on(p *baseline.Path) bool {
	return r.Table == tableOf(p) && (r.Applies == nil || r.Applies(p))
}

// measurement is the outcome of one row on one contender.
type measurement struct {
	values []float64 // As Row.Figures.
	// least is what the path must have carried for it, most what it may have.
	// That nothing at all is claimed (least) is an error unless nothing is allowed.
	least baseline.Least
	most  *baseline.Most // Nil is no bound.
}

// Names of figures that targets are set for.
const (
	tcp1     = "TCP, 1 stream"
	tcp4     = "TCP, 4 streams"
	pinned   = ", ends pinned"
	rrCross  = "TCP_RR, two cores"
	frames60 = "60 B frames delivered, one flow"
	idleCPU  = "idle CPU"
	idleRSS  = "idle RSS"

	natTCP1     = "NAT out, TCP, 1 stream"
	natTCP4     = "NAT out, TCP, 4 streams"
	natCRR      = "NAT out, TCP_CRR"
	natAB       = "published port, ab"
	natFrames60 = "NAT out, 60 B frames delivered, one flow"
	natMemory   = "memory of a connection, table full"

	vxlanTCP1     = "VXLAN, TCP, 1 stream"
	vxlanTCP4     = "VXLAN, TCP, 4 streams"
	vxlanRR       = "VXLAN, TCP_RR, two cores"
	vxlanFrames60 = "VXLAN, 60 B frames delivered, one flow"
)

// allRows returns the rows in the order of the tables. docs/BENCH.md tells what
// each does.
func allRows() []Row {
	rate := func(name, unit string, digits int) []Figure {
		return []Figure{{Name: name, Unit: unit, Digits: digits}}
	}
	rows := []Row{
		{"tcp-1", tcp1, switching, rate(tcp1, "Gb/s", 1), tcpStreams(1, free), nil, nil},
		{"tcp-1-pinned", tcp1 + pinned, switching, rate(tcp1+pinned, "Gb/s", 1), tcpStreams(1, twoCores), nil, nil},
		{"tcp-4", tcp4, switching, rate(tcp4, "Gb/s", 1), tcpStreams(4, free), nil, nil},
		{"tcp-4-pinned", tcp4 + pinned, switching, rate(tcp4+pinned, "Gb/s", 1), tcpStreams(4, twoCores), nil, nil},
		{"rr-cross", rrCross, switching, rate(rrCross, "k/s", 2), roundTrips(twoCores), nil, nil},
		{"rr-same", "TCP_RR, one core", switching, rate("TCP_RR, one core", "k/s", 2), roundTrips(sameCores), nil, nil},
		{"frames-60", "60 B frames, one flow", switching, rate(frames60, "Mpps", 3), smallFrames, nil, nil},
		{"latency", "round trip under load", switching, latencyFigures(), latencyUnderLoad, nil, nil},
		{"idle", "idle daemon", switching, []Figure{
			{Name: idleCPU, Unit: "%", Digits: 1, Lower: true},
			{Name: idleRSS, Unit: "MB", Digits: 1, Lower: true},
		}, idle, nil, func(p *baseline.Path) bool { return len(p.PIDs) > 0 }},

		{"nat-tcp-1", natTCP1, translating, rate(natTCP1, "Gb/s", 1), tcpStreams(1, free), nil, nil},
		{"nat-tcp-1-pinned", natTCP1 + pinned, translating, rate(natTCP1+pinned, "Gb/s", 1), tcpStreams(1, twoCores), nil, nil},
		{"nat-tcp-4", natTCP4, translating, rate(natTCP4, "Gb/s", 1), tcpStreams(4, free), nil, nil},
		{"nat-tcp-4-pinned", natTCP4 + pinned, translating, rate(natTCP4+pinned, "Gb/s", 1), tcpStreams(4, twoCores), nil, nil},
		{"nat-crr", natCRR, translating, rate(natCRR, "k/s", 2), connections(free, 0), nil, nil},
		{"nat-crr-pinned", natCRR + pinned, translating, rate(natCRR+pinned, "k/s", 2), connections(twoCores, 0), nil, nil},
		{"nat-ab", natAB, translating, rate(natAB, "k/s", 2), published(free), nil, nil},
		{"nat-ab-pinned", natAB + pinned, translating, rate(natAB+pinned, "k/s", 2), published(twoCores), nil, nil},
		{"nat-frames-60", natFrames60, translating, rate(natFrames60, "Mpps", 3), smallFrames, nil, nil},
	}
	for _, size := range []struct {
		name, long string
		conns      int
	}{{"1k", "1 K", 1000}, {"10k", "10 K", 10_000}, {"100k", "100 K", 100_000}, {"1m", "1 M", 1_000_000}} {
		name := natCRR + ", " + size.long + " in the table"
		rows = append(rows, Row{
			"nat-crr-" + size.name, name, translating, rate(name, "k/s", 2), connections(twoCores, size.conns), nil,
			func(p *baseline.Path) bool { return p.NAT != nil && p.NAT.MaxConns >= size.conns+mostConns },
		})
	}
	return append(rows,
		Row{"nat-memory", natMemory, translating, []Figure{{Name: natMemory, Unit: "B", Digits: 1, Lower: true}}, connectionMemory,
			func(ctx context.Context, p *baseline.Path) error { return p.NAT.Renew(ctx) },
			func(p *baseline.Path) bool { return p.NAT != nil }},

		Row{"vxlan-tcp-1", vxlanTCP1, tunnelling, rate(vxlanTCP1, "Gb/s", 1), tcpStreams(1, free), nil, nil},
		Row{"vxlan-tcp-1-pinned", vxlanTCP1 + pinned, tunnelling, rate(vxlanTCP1+pinned, "Gb/s", 1), tcpStreams(1, twoCores), nil, nil},
		Row{"vxlan-tcp-4", vxlanTCP4, tunnelling, rate(vxlanTCP4, "Gb/s", 1), tcpStreams(4, free), nil, nil},
		Row{"vxlan-tcp-4-pinned", vxlanTCP4 + pinned, tunnelling, rate(vxlanTCP4+pinned, "Gb/s", 1), tcpStreams(4, twoCores), nil, nil},
		Row{"vxlan-rr-cross", vxlanRR, tunnelling, rate(vxlanRR, "k/s", 2), roundTrips(twoCores), nil, nil},
		Row{"vxlan-frames-60", vxlanFrames60, tunnelling, rate(vxlanFrames60, "Mpps", 3), smallFrames, nil, nil},
	)
}

// rowNames lists what --rows takes.
func rowNames() []string {
	names := []string{}
	for _, r := range allRows() {
		names = append(names, r.Name)
	}
	return append(append(names, inProcessRow), scaleNames()...)
}

// chosen returns the rows that patterns want.
func chosen(patterns []string) []Row {
	return slices.DeleteFunc(allRows(), func(r Row) bool { return !matches(patterns, r.Name) })
}
