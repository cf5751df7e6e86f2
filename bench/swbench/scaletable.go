package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// writeScale writes what was measured over sizes as tables in markdown.
func writeScale(w io.Writer, r *Result) error {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "# Scale\n\n%s, %d CPUs, Linux %s, %s, commit %s, %s. Median (least–most) of %d runs.\n",
		m.CPU, m.CPUs, m.Kernel, m.Go, m.Commit, r.Started.Format("2006-01-02 15:04 UTC"), min(r.Options.Runs, scaleRuns))
	for _, s := range r.Scale {
		fmt.Fprintf(&b, "\n## %s\n\n| %s |", s.Title, s.Axis)
		for _, size := range s.Sizes {
			fmt.Fprintf(&b, " %s |", thousands(size))
		}
		fmt.Fprintf(&b, " last : first |\n|---|%s\n", strings.Repeat("---|", len(s.Sizes)+1))
		for _, c := range s.Curves {
			fmt.Fprintf(&b, "| %s, %s |", c.Name, c.Unit)
			for _, size := range s.Sizes {
				fmt.Fprintf(&b, " %s |", c.cell(size))
			}
			fmt.Fprintf(&b, " %s |\n", c.growth(s.Sizes))
		}
		b.WriteByte('\n')
		for _, note := range s.Notes {
			fmt.Fprintf(&b, "- %s\n", note)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// cell is a curve's figure at a size.
func (c *Curve) cell(size int) string {
	s := c.BySize[size]
	if s == nil {
		return "–"
	}
	number := func(v float64) string { return strconv.FormatFloat(v, 'f', c.Digits, 64) }
	if len(s.Values) == 1 {
		return number(s.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", number(s.Median), number(s.Min), number(s.Max))
}

// growth is the figure at the largest size by that at the smallest.
func (c *Curve) growth(sizes []int) string {
	var first, last *Samples
	for _, size := range sizes {
		if s := c.BySize[size]; s != nil {
			if first == nil {
				first = s
			}
			last = s
		}
	}
	if first == nil || first == last || first.Median == 0 {
		return "–"
	}
	return strconv.FormatFloat(last.Median/first.Median, 'f', 2, 64)
}

// thousands writes a size as people do: 1,000, 10 K, 1 M.
func thousands(n int) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return strconv.Itoa(n/1_000_000) + " M"
	case n >= 1000 && n%1000 == 0:
		return strconv.Itoa(n/1000) + " K"
	}
	return strconv.Itoa(n)
}

// keepScale writes scale.md and scale.svg into a directory.
func keepScale(r *Result, dir string) error {
	var table, plot strings.Builder
	if err := errors.Join(writeScale(&table, r), writeScalePlot(&plot, r)); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "scale.md"), []byte(table.String()), 0o644),
		os.WriteFile(filepath.Join(dir, "scale.svg"), []byte(plot.String()), 0o644),
	)
}
