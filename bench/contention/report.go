package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"heddle/dataplane"
)

// spread prints a median, and in brackets the least and the most.
func spread(format string, values []float64, unit float64) string {
	f := func(v float64) string { return fmt.Sprintf(format, v/unit) }
	return fmt.Sprintf("%s (%s–%s)", f(median(values)), f(slices.Min(values)), f(slices.Max(values)))
}

// write prints the tables in Markdown.
func (r *Result) write(w *bytes.Buffer) {
	p := func(format string, args ...any) { fmt.Fprintf(w, format, args...) }
	p("%v. `go run ./bench/contention %s`, %s. Medians of %d rounds of %v s, in brackets the least and the most.\n\n",
		r.Machine, strings.Join(r.Command, " "), r.Started.UTC().Format("2006-01-02 15:04 UTC"), len(r.Costs[0].One), r.Seconds)
	p("## Measured, and simulated for two workers\n\n")
	p("Frames of 64 B over ports in memory, no system calls. In each round one worker and two are measured in turns; " +
		"the ratio is of a round. Under NAT's lock is what NAT adds to the switch alone in a round.\n\n")
	p("| path | frames a batch | instructions a frame | ns a frame | of these under NAT's lock | 1 worker, Mpps | 2 workers, Mpps | ratio | 2 workers, simulated | simulated to measured |\n" +
		"|---|---|---|---|---|---|---|---|---|---|\n")
	for _, c := range r.Costs {
		instructions := "–"
		if t := r.Traced[c.Path]; t != nil && t.Frames == c.Frames {
			instructions = fmt.Sprintf("%.0f", t.Instructions)
		}
		locked := "–"
		if len(c.Locked) > 0 {
			locked = spread("%.1f", c.Locked, float64(c.Frames))
		}
		p("| %s | %d | %s | %.1f | %s | %s | %s | %s | %.1f | %.2f |\n", c.Path, c.Frames, instructions, c.batch()/float64(c.Frames), locked,
			spread("%.1f", c.One, 1e6), spread("%.1f", c.Two, 1e6), spread("%.2f", c.ratios(), 1),
			c.Simulated/1e6, c.Simulated/median(c.Two))
	}
	p("\n## Counted\n")
	r.writeLines(w)
	p("\n## Simulated\n\nMillion frames a second, and how busy NAT's lock is.\n\n| workers |")
	for _, n := range workerCounts {
		p(" %d |", n)
	}
	p("\n|---|")
	for range workerCounts {
		p("---|")
	}
	p("\n")
	for _, c := range r.Curves {
		p("| %s |", c.Name)
		for i, v := range c.Rate {
			p(" %.2f", v)
			if c.Model.Hold > 0 {
				p(" (%.0f%%)", 100*c.Busy[i])
			}
			p(" |")
		}
		p("\n")
	}
	r.writeSources(w)
}

// writeSources says where the model's numbers are from.
func (r *Result) writeSources(w *bytes.Buffer) {
	p := func(format string, args ...any) { fmt.Fprintf(w, format, args...) }
	h, counted := r.Handover, "counted above"
	if r.Traced[pathNAT] == nil {
		counted = "not counted in this run, but in an earlier one"
	}
	p("\n- The switch's and VXLAN's curves are straight by construction: nothing is shared in their model. What speaks for that " +
		"is measured and counted: the ratios of two workers, no shared line, and a test that no two workers' memory lies in one line (layout_test.go).\n")
	p("- Cache lines that come with NAT's lock from another worker: %.0f, %s, at %s ns each, measured between two CPUs here; curves of slow lines have the most. "+
		"Another machine's may take less or, between sockets, more.\n", h.Lines, counted, spread("%.0f", r.transfers(), 1))
	p("- Who waits looks %d times, every %.0f ns, and who slept is back %.1f µs after the lock became free: a dataplane.Mutex between two CPUs, measured here.\n",
		h.Looks, h.Look, h.Wake/1e3)
	p("- With system calls: those of TAP to TAP, %.2f µs a frame in batches of 64 and %.2f for one that comes alone, measured on a running swd "+
		"(docs/PERFORMANCE.md: 60 bytes, TAP to TAP; Workers). A frame that comes alone was measured with the worker asleep before most of them: a worker that is always busy would find more of them at once. Batches of 8 and the tunnel's socket were not measured, and have no such curve.\n",
		around(64)/64/1e3, around(1)/1e3)
}

// writeLines prints what was counted.
func (r *Result) writeLines(w *bytes.Buffer) {
	p := func(format string, args ...any) { fmt.Fprintf(w, format, args...) }
	p("\nValgrind's lackey prints every instruction and access to memory of two workers with stations and flows of their own, in batches of %d. "+
		"Lines that both touch and one writes, accesses of each by batch:\n\n", dataplane.BatchSize)
	if r.Untraced != "" {
		p("Not counted: %s.\n", r.Untraced)
	} else {
		p("| path | where | reads | writes |\n|---|---|---|---|\n")
		for _, name := range pathNames {
			t := r.Traced[name]
			if t == nil {
				continue
			}
			p("| %s | all lines that a worker touches: %d, writes: %d; shared and written: %d | | |\n", name, t.Touched, t.Written, t.Lines)
			for _, s := range t.Shared {
				p("| %s | %s | %.2f | %.2f |\n", name, s.What, s.Reads, s.Writes)
			}
		}
	}
}

// save writes what was found to a directory.
func (r *Result) save(dir string, table []byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	document, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	title := fmt.Sprintf("simulated speed-up against workers, costs of %s", r.Started.Format("2006-01-02"))
	for name, content := range map[string][]byte{
		"table.md": table, "result.json": append(document, '\n'), "plot.svg": []byte(plot(r.Curves, title)),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
