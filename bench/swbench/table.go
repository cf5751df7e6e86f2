package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// writeTable prints the result for a terminal.
func writeTable(w io.Writer, r *Result) error {
	m := r.Machine
	fmt.Fprintln(w, m)
	fmt.Fprintf(w, "%s, median (least–most) of %d runs of %d s\n\n",
		r.Started.Format("2006-01-02 15:04 UTC"), r.Options.Runs, r.Options.Seconds)
	if r.Swd != nil {
		fmt.Fprintf(w, "%s is version %s, SHA-256 %.12s…\n\n", r.Swd.Path, r.Swd.Version, r.Swd.SHA256)
	}
	for _, c := range r.Contenders {
		fmt.Fprintf(w, "%-14s %s\n", c.Name, c.About)
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(w, "left out: %s\n", s)
	}
	for _, t := range tables {
		if err := writeFigures(w, r.rows(t), r.Options.Runs); err != nil {
			return err
		}
	}
	return writeVerdicts(w, r)
}

// rows returns the figures of a table.
func (r *Result) rows(t table) []*Measured {
	var some []*Measured
	for _, m := range r.Figures {
		if m.Table == t {
			some = append(some, m)
		}
	}
	return some
}

func writeFigures(w io.Writer, figures []*Measured, runs int) error {
	if len(figures) == 0 {
		return nil
	}
	var columns []string
	for _, m := range figures {
		for _, name := range m.order() {
			if !slices.Contains(columns, name) {
				columns = append(columns, name)
			}
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintf(t, "\n\t%s\t\n", strings.Join(columns, "\t"))
	for _, m := range figures {
		name := m.Name
		if m.Unit != "" {
			name += ", " + m.Unit
		}
		fmt.Fprint(t, name)
		for _, c := range columns {
			cell := "–"
			if s := m.By[c]; s != nil {
				number := func(v float64) string { return strconv.FormatFloat(v, 'f', m.Digits, 64) }
				cell = fmt.Sprintf("%s (%s–%s)", number(s.Median), number(s.Min), number(s.Max))
				if n := len(s.Values); n < runs {
					cell += fmt.Sprintf(" of %d", n)
				}
			}
			fmt.Fprintf(t, "\t%s", cell)
		}
		fmt.Fprint(t, "\t\n")
	}
	return t.Flush()
}

func writeVerdicts(w io.Writer, r *Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	if len(r.Targets) > 0 {
		fmt.Fprint(t, "\nto reach\t\tmeasured\tbound\t\t\n")
	}
	for _, v := range r.Targets {
		who, sign, measured, met := v.Contender, "≥", "–", "met"
		if v.Against != "" {
			who += " / " + v.Against
		}
		if v.Lower {
			sign = "≤"
		}
		if v.Samples > 0 {
			measured = fmt.Sprintf("%.2f (%.2f–%.2f)", v.Value, v.Min, v.Max)
		}
		switch {
		case v.Samples == 0:
			met = "NOT MEASURED"
		case v.Samples < r.Options.Runs:
			met = fmt.Sprintf("NOT MET: %d of %d samples", v.Samples, r.Options.Runs)
		case !v.Met:
			met = "NOT MET"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s %v\t%s\t\n", v.Figure, who, measured, sign, v.Bound, met)
	}
	if len(r.Limits) > 0 {
		fmt.Fprint(t, "\nwhat ports in user space leave\t\tmeasured\t\t\t\n")
	}
	for _, v := range r.Limits {
		fmt.Fprintf(t, "%s\t%s / %s\t%.2f (%.2f–%.2f)\t\t\t\n", v.Figure, v.Contender, v.Against, v.Value, v.Min, v.Max)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(r.Errors) > 0 {
		fmt.Fprintf(w, "\n%d measurements gave no figure:\n", len(r.Errors))
	}
	for _, e := range r.Errors {
		fmt.Fprintf(w, "  %s\n", strings.ReplaceAll(e, "\n", "\n    "))
	}
	return nil
}
