package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Bounds of what a stream holds.
const (
	streamBuffer = 64 << 10 // Bytes on their way out.
	streamRows   = 1000     // Rows whose widths are the columns'.
)

// tableStream is a table of any length: the first streamRows rows decide how
// wide its columns are, and later ones that are wider stand out.
type tableStream struct {
	out    *bufio.Writer
	held   [][]string
	widths []int
	err    error
}

func newTableStream(out io.Writer, header ...string) *tableStream {
	return &tableStream{out: bufio.NewWriterSize(out, streamBuffer), held: [][]string{header}}
}

// row adds a row, as table.row does.
func (t *tableStream) row(cells ...any) {
	parts := make([]string, len(cells))
	for i, c := range cells {
		parts[i] = cell(c)
	}
	if t.held == nil {
		t.write(parts)
		return
	}
	if t.held = append(t.held, parts); len(t.held) == streamRows {
		t.release()
	}
}

// release decides the widths and writes what was held.
func (t *tableStream) release() {
	for _, parts := range t.held {
		for i, s := range parts {
			if i == len(t.widths) {
				t.widths = append(t.widths, 0)
			}
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(s))
		}
	}
	for _, parts := range t.held {
		t.write(parts)
	}
	t.held = nil
}

func (t *tableStream) write(parts []string) {
	var line strings.Builder
	for i, s := range parts {
		if i > 0 {
			line.WriteString("  ")
		}
		line.WriteString(s)
		if i < len(parts)-1 {
			line.WriteString(strings.Repeat(" ", max(0, t.widths[i]-utf8.RuneCountInString(s))))
		}
	}
	line.WriteByte('\n')
	if _, err := t.out.WriteString(line.String()); err != nil && t.err == nil {
		t.err = err
	}
}

// end writes the rest, of rows that err ended early too, but no lone header
// before an error. It returns what went wrong first.
func (t *tableStream) end(err error) error {
	if err != nil && len(t.held) == 1 {
		return err
	}
	t.release()
	return endStream(t.out, err)
}

// listStream is a list of any length in JSON, laid out as printJSON does.
type listStream struct {
	out     *bufio.Writer
	encoder *json.Encoder
	open    bool
}

func newListStream(out io.Writer) *listStream {
	l := &listStream{out: bufio.NewWriterSize(out, streamBuffer)}
	l.encoder = json.NewEncoder(&lineEnds{l.out})
	l.encoder.SetEscapeHTML(false)
	l.encoder.SetIndent("  ", "  ")
	return l
}

// add writes an element.
func (l *listStream) add(v any) error {
	lead := ",\n  "
	if !l.open {
		lead, l.open = "[\n  ", true
	}
	if _, err := l.out.WriteString(lead); err != nil {
		return err
	}
	return l.encoder.Encode(v)
}

// end closes the list. If err ended it early it stays open, so that it can't be
// taken for whole.
func (l *listStream) end(err error) error {
	tail := "\n]\n"
	switch {
	case err != nil && !l.open:
		return err
	case err != nil:
		tail = "\n"
	case !l.open:
		tail = "[]\n"
	}
	_, _ = l.out.WriteString(tail) // Flush returns an earlier error.
	return endStream(l.out, err)
}

// lineEnds leaves out the line end that json.Encoder writes behind each value.
type lineEnds struct{ out io.Writer }

// Write writes one value.
func (w *lineEnds) Write(b []byte) (int, error) {
	n, err := w.out.Write(b[:len(b)-1])
	if err == nil {
		n++
	}
	return n, err
}

// endStream flushes; a failure to print is what went wrong first.
func endStream(out *bufio.Writer, err error) error {
	if failed := out.Flush(); failed != nil {
		return fmt.Errorf("print: %w", failed)
	}
	return err
}
