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

// Row is one measurement, done on every contender in every round.
type Row struct {
	Name    string // For --rows and the JSON.
	Title   string
	Figures []Figure
	// Applies tells whether the row makes sense for a contender.
	Applies func(*baseline.Path) bool
	Measure func(context.Context, *bench, *baseline.Path) (measurement, error)
}

// measurement is the outcome of one row on one contender.
type measurement struct {
	values []float64 // As Row.Figures.
	// least is what the path must have carried for it.
	least baseline.Least
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
)

// allRows returns the rows in the order of the table.
func allRows() []Row {
	rate := func(name, unit string, digits int) []Figure {
		return []Figure{{Name: name, Unit: unit, Digits: digits}}
	}
	always := func(*baseline.Path) bool { return true }
	return []Row{
		{"tcp-1", tcp1, rate(tcp1, "Gb/s", 1), always, tcpStreams(1, free)},
		{"tcp-1-pinned", tcp1 + pinned, rate(tcp1+pinned, "Gb/s", 1), always, tcpStreams(1, twoCores)},
		{"tcp-4", tcp4, rate(tcp4, "Gb/s", 1), always, tcpStreams(4, free)},
		{"tcp-4-pinned", tcp4 + pinned, rate(tcp4+pinned, "Gb/s", 1), always, tcpStreams(4, twoCores)},
		{"rr-cross", rrCross, rate(rrCross, "k/s", 2), always, roundTrips(twoCores)},
		{"rr-same", "TCP_RR, one core", rate("TCP_RR, one core", "k/s", 2), always, roundTrips(sameCores)},
		{"frames-60", "60 B frames, one flow", rate(frames60, "Mpps", 3), always, smallFrames},
		{"latency", "round trip under load", latencyFigures(), always, latencyUnderLoad},
		{"idle", "idle daemon", []Figure{
			{Name: idleCPU, Unit: "%", Digits: 1, Lower: true},
			{Name: idleRSS, Unit: "MB", Digits: 1, Lower: true},
		}, func(p *baseline.Path) bool { return len(p.PIDs) > 0 }, idle},
	}
}

// rowNames lists what --rows takes.
func rowNames() []string {
	names := []string{}
	for _, r := range allRows() {
		names = append(names, r.Name)
	}
	return append(names, inProcessRow)
}

// chosen returns the rows of the given names, all if there are none.
func chosen(names []string) []Row {
	rows := allRows()
	if len(names) == 0 {
		return rows
	}
	return slices.DeleteFunc(rows, func(r Row) bool { return !slices.Contains(names, r.Name) })
}
