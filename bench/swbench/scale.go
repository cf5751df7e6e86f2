package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Scaled is what was measured over sizes of one kind.
type Scaled struct {
	Row   string `json:"row"`
	Title string `json:"title"`
	// Axis is what the sizes count.
	Axis   string   `json:"axis"`
	Sizes  []int    `json:"sizes"`
	Curves []*Curve `json:"curves"`
	Notes  []string `json:"notes"`
}

// Curve is one figure over the sizes of a Scaled. Less is better.
type Curve struct {
	Name   string `json:"name"`
	Unit   string `json:"unit"`
	Digits int    `json:"-"`
	// Panel is the plot that the curve is in.
	Panel string `json:"panel"`
	// BySize lacks sizes that gave no figure.
	BySize map[int]*Samples `json:"by_size"`
}

// The panels of a dimension.
const (
	costPanel   = "cost"
	memoryPanel = "memory"
	entryPanel  = "memory of each"
)

// dimension is sizes that a benchmark is run at.
type dimension struct {
	row, title, axis string
	sizes            []int
	// quickly is the largest size that --quick does; those from once on are
	// measured only once, 0 is none.
	quickly, once int
	curves        []curve
	notes         []string
	// measure does one run at one size, and returns a value for each curve.
	measure func(ctx context.Context, b *bench, d *dimension, size int) (values []float64, command string, err error)
	// pkg and benchmark are the Go benchmark's, whose sub-benchmarks are named by
	// their size.
	pkg, benchmark string
}

// curve is a Curve, and which metric of which sub-benchmark gives it.
type curve struct {
	name, unit  string
	digits      int
	panel       string
	sub, metric string
}

// scaleRuns bounds how often each size is measured: less than --runs, since
// there are so many.
const scaleRuns = 3

func perFrame(name, sub string) curve {
	return curve{name, "ns", 1, costPanel, sub, "cpu-ns/frame"}
}

// ofMemory is the curves that every sub-benchmark memory has.
func ofMemory(each string) []curve {
	return []curve{
		{"whole process", "MB", 1, memoryPanel, "memory", "rss-MB"},
		{"grown by", "MB", 2, memoryPanel, "memory", "grown-MB"},
		{"of each " + each, "B", 1, entryPanel, "memory", "B/entry"},
	}
}

// dimensions are the rows of scale, in their order.
func dimensions() []*dimension {
	ofGo := func(d *dimension) *dimension { d.measure = inGo; return d }
	ofPorts := func(row, kind, called string, sizes ...int) *dimension {
		return &dimension{
			row: row, title: "60 B frames between " + called + " ports of a running swd", axis: called + " ports",
			sizes: sizes, quickly: 10, once: 1000,
			measure: func(ctx context.Context, b *bench, d *dimension, size int) ([]float64, string, error) {
				return b.crowded(ctx, d.row, kind, size)
			},
			curves: []curve{
				{"swd's CPU time for a frame of one flow, the others silent", "ns", 0, costPanel, "", ""},
				{"swd's CPU time for a frame, all others busy in turn", "ns", 0, costPanel, "", ""},
				{"time between frames of one flow, as delivered", "ns", 0, costPanel, "", ""},
				{"swd's resident memory, idle", "MB", 1, memoryPanel, "", ""},
				{"idle CPU", "%", 1, "idle CPU", "", ""},
				{"time to add one, of all by one apply", "ms", 2, "time to add one", "", ""},
			},
			notes: []string{
				"All times are with the kernel's part of swd's system calls.",
				"Where the others are busy in turn, one program sends by all of them, a frame each: swd finds one or two frames at a port, and asks each once more in vain. With 2 ports there are no others.",
			},
		}
	}
	return []*dimension{
		ofGo(&dimension{
			row: "scale-ports", title: "64 B frames between ports of one network, in process", axis: "ports",
			sizes: []int{2, 10, 100, 1000}, quickly: 1000, pkg: "heddle/switch", benchmark: "BenchmarkScalePorts",
			curves: []curve{
				perFrame("two ports busy, the others silent", "two"),
				perFrame("all busy, each sends to the next", "ring"),
				perFrame("all busy, each batch goes to 64 at random", "mesh"),
				perFrame("each copy of what is flooded to all", "flood"),
			},
			notes: []string{
				"Of random destinations the 64 frames of a batch go to one port at 2 ports and to about 62 different ones at 1,000: 60 calls of Push more.",
				"There may be 4,095 ports, gateways, uplinks and tunnels together (dataplane.MaxPorts): tables by port number are arrays of that length in each worker.",
			},
		}),
		ofPorts("scale-taps", "tap", "TAP", 2, 10, 100, 1000),
		// The kernel takes 16 to 23 ms to delete a veth pair: of 1,000, longer than
		// a daemon is waited for.
		ofPorts("scale-veths", "veth", "veth", 2, 10, 100),
		ofGo(&dimension{
			row: "scale-macs", title: "64 B frames by MACs known, in process", axis: "MACs",
			sizes: []int{1000, 10_000, 100_000, 1_000_000}, quickly: 1_000_000, pkg: "heddle/switch", benchmark: "BenchmarkScaleMACs",
			curves: append([]curve{
				perFrame("one pair of MACs", "flow"),
				perFrame("from any MAC to any", "random"),
				perFrame("the same, each source not seen in this second", "refresh"),
			}, ofMemory("MAC")...),
			notes: []string{
				"The table is the default one, made for a million; at 1 M it is full, that is 78% of its cells. Entries lie at random in it, so that a few thousand touch most of its pages: memory of each is for the table's size, not for a smaller one's.",
			},
		}),
		ofGo(&dimension{
			row: "scale-conns", title: "64 B frames through NAT by connections, in process", axis: "connections",
			sizes: []int{1000, 10_000, 100_000, 1_000_000, 10_000_000}, quickly: 1_000_000, once: 10_000_000, pkg: "heddle/nat", benchmark: "BenchmarkScaleConns",
			curves: append([]curve{
				perFrame("out, one connection", "flow_out"),
				perFrame("in, one connection", "flow_in"),
				perFrame("out, of any connection", "random_out"),
				perFrame("in, of any connection", "random_in"),
				{"a new connection", "ns", 0, "cost of a new one", "memory", "cpu-ns/new"},
			}, ofMemory("connection")...),
			notes: []string{
				"The table is the default one, made for a million, and at 10 M one of that size; at 1 M and 10 M it is full. Each connection has an external port of its own, of at most 1,024 external addresses, so that the index is as full as it can be (75%).",
				"swd takes --max-conns up to 16,777,215 (24 bits of an index cell). An address has 64,512 ports: 10 M connections of mappings of their own need 156 addresses at least, of the 1,024 that an uplink may have.",
				"A new connection costs its pages' first touch, too: with few in a table made for many, that is most of it.",
			},
		}),
		ofGo(&dimension{
			row: "scale-peers", title: "64 B frames through VXLAN by peers, in process", axis: "peers",
			sizes: []int{1, 10, 100, 1000}, quickly: 1000, pkg: "heddle/tunnel", benchmark: "BenchmarkScalePeers",
			curves: append([]curve{
				perFrame("out to one peer", "one_out"),
				perFrame("in from one peer", "one_in"),
				perFrame("out, each frame to any peer", "random_out"),
				perFrame("in, each datagram from any peer", "random_in"),
				perFrame("each copy of what is flooded to all", "flood"),
			}, ofMemory("peer and tunnel")...),
			notes: []string{
				"Without what the kernel does to send and receive. Each datagram of in is one by itself; at random, the frames of a batch come from up to 64 peers and are pushed one by one.",
				"A tunnel is a port of its network: peers times the networks they share, ports, gateways and uplinks are 4,095 at most. 1,000 peers can share four networks.",
			},
		}),
	}
}

// scaleNames lists the rows of scale.
func scaleNames() []string {
	names := []string{}
	for _, d := range dimensions() {
		names = append(names, d.row)
	}
	return names
}

// scale measures the dimensions that are wanted.
func (b *bench) scale(ctx context.Context) (err error) {
	wanted := slices.DeleteFunc(dimensions(), func(d *dimension) bool { return !matches(b.opts.Rows, d.row) })
	if len(wanted) == 0 {
		return nil
	}
	if b.programs, err = os.MkdirTemp("", "swbench-"); err != nil {
		return fmt.Errorf("scale: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.programs)) }()
	for _, d := range wanted {
		if err := b.dimension(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// dimension measures one of them. What gives no figure is noted as an error.
func (b *bench) dimension(ctx context.Context, d *dimension) error {
	if d.pkg != "" {
		if _, err := exec.LookPath("go"); err != nil {
			b.result.Skipped = append(b.result.Skipped, d.row+": go is not on PATH")
			return nil
		}
		if err := b.compile(ctx, d); err != nil {
			return err
		}
	}
	s := &Scaled{Row: d.row, Title: d.title, Axis: d.axis, Notes: d.notes}
	for _, c := range d.curves {
		s.Curves = append(s.Curves, &Curve{Name: c.name, Unit: c.unit, Digits: c.digits, Panel: c.panel, BySize: map[int]*Samples{}})
	}
	b.result.Scale = append(b.result.Scale, s)
	for _, size := range d.sizes {
		if b.opts.quick && size > d.quickly {
			continue
		}
		s.Sizes = append(s.Sizes, size)
		runs := min(b.opts.Runs, scaleRuns)
		if d.once > 0 && size >= d.once {
			runs = 1
		}
		for run := range runs {
			b.progress.show(fmt.Sprintf("%s: %d %s, run %d", d.row, size, d.axis, run+1))
			values, command, err := d.measure(ctx, b, d, size)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				b.result.Errors = append(b.result.Errors, fmt.Sprintf("%s, %d %s: %v", d.row, size, d.axis, err))
				continue
			}
			for i, v := range values {
				s.Curves[i].add(size, v, command)
			}
		}
	}
	return nil
}

// absent is the value of a curve at a size at which it makes no sense.
const absent = -1

// add takes in a value of one run.
func (c *Curve) add(size int, value float64, command string) {
	if value == absent {
		return
	}
	var values []float64
	if s := c.BySize[size]; s != nil {
		values = s.Values
	}
	c.BySize[size] = newSamples(append(values, value))
	c.BySize[size].Commands = []string{command}
}

// compile builds the test program of a dimension, once for all of its sizes.
func (b *bench) compile(ctx context.Context, d *dimension) error {
	b.progress.show("building the benchmarks of " + d.pkg)
	out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", b.program(d), d.pkg).CombinedOutput()
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("building the benchmarks of %s: %w\n%s", d.pkg, err, out)
	}
	return context.Cause(ctx)
}

// program is where compile puts a dimension's test program.
func (b *bench) program(d *dimension) string {
	return filepath.Join(b.programs, path.Base(d.pkg)+".test")
}

// inGo runs the Go benchmark of a dimension at one size, in a process of its
// own: memory that another size has used would count as resident too soon.
func inGo(ctx context.Context, b *bench, d *dimension, size int) ([]float64, string, error) {
	length := "200ms"
	if b.opts.quick {
		length = "20ms"
	}
	which := fmt.Sprintf("^%s$/^%d$", d.benchmark, size)
	cmd := exec.CommandContext(ctx, b.program(d), "-test.run", "^$", "-test.bench", which, "-test.benchtime", length, "-test.timeout", "2m")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, "", fmt.Errorf("%w\n%s", err, out)
	}
	command := strings.Join([]string{"go test -run '^$' -bench '" + which + "' -benchtime", length, d.pkg}, " ")
	metrics := parseGoBench(string(out))
	var values []float64
	for _, c := range d.curves {
		name := d.benchmark + "/" + strconv.Itoa(size) + "/" + c.sub
		v := metrics[name][c.metric]
		if len(v) != 1 {
			return nil, "", fmt.Errorf("no %s of %s in the output of %s", c.metric, name, command)
		}
		values = append(values, v[0])
	}
	return values, command, nil
}
