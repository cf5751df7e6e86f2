package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"
)

// format is how a command prints; it is a pflag.Value.
type format string

const (
	formatTable format = "table"
	formatJSON  format = "json"
)

// String returns the format's name.
func (f *format) String() string { return string(*f) }

// Set takes a format by name.
func (f *format) Set(s string) error {
	if !slices.Contains([]format{formatTable, formatJSON}, format(s)) {
		return fmt.Errorf("want %s or %s", formatTable, formatJSON)
	}
	*f = format(s)
	return nil
}

// Type names the flag's argument in help.
func (f *format) Type() string { return "table|json" }

// print writes v as JSON, or what table writes, as the flags say.
func (p *program) print(cmd *cobra.Command, v any, table func(t *table)) error {
	out := cmd.OutOrStdout()
	if p.output == formatJSON {
		return printJSON(out, v)
	}
	t := newTable(out)
	table(t)
	return t.flush()
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// list makes a nil list an empty one, which JSON writes as [].
func list[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}

// table aligns rows of cells.
type table struct {
	tabs *tabwriter.Writer
	err  error
}

func newTable(out io.Writer) *table {
	return &table{tabs: tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
}

// row adds a row. An empty cell shows as "-".
func (t *table) row(cells ...any) {
	parts := make([]string, len(cells))
	for i, c := range cells {
		parts[i] = cell(c)
	}
	if _, err := fmt.Fprintln(t.tabs, strings.Join(parts, "\t")); err != nil && t.err == nil {
		t.err = err
	}
}

func (t *table) flush() error {
	if err := t.tabs.Flush(); err != nil && t.err == nil {
		t.err = err
	}
	if t.err != nil {
		return fmt.Errorf("print: %w", t.err)
	}
	return nil
}

// cell shows a value, without what could move a terminal's cursor.
func cell(v any) string {
	var s string
	switch v := v.(type) {
	case []string:
		s = strings.Join(v, ",")
	case bool:
		s = "no"
		if v {
			s = "yes"
		}
	default:
		s = fmt.Sprint(v)
	}
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s
}

// seconds shows a duration in seconds that JSON carries as a number.
func seconds(s float64) string { return fmt.Sprintf("%.0f", s) }
