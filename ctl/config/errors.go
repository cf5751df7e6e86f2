package config

import (
	"errors"
	"fmt"
	"strings"
)

// FieldError is one thing that is wrong with a spec.
type FieldError struct {
	// Path is the field, as `ports[1].mac`; empty for the whole.
	Path string
	// Why says what is wrong with it and what is wanted.
	Why string
	// Line and Column count from 1 and say where in the file the field stands;
	// 0 if the spec came from no file.
	Line, Column int
}

// Error formats it as `line 7:10: ports[1].mac: why`, without what is unknown.
func (e *FieldError) Error() string {
	var b strings.Builder
	if e.Line > 0 {
		fmt.Fprintf(&b, "line %d:%d: ", e.Line, e.Column)
	}
	if e.Path != "" {
		b.WriteString(e.Path)
		b.WriteString(": ")
	}
	b.WriteString(e.Why)
	return b.String()
}

// Errors is everything that is wrong with a spec or a file, in the order of
// the file where there is one. It is never empty where it is an error.
type Errors []*FieldError

// Error joins the errors: a line for each of a file, one line for a spec alone.
func (e Errors) Error() string {
	sep := "; "
	parts := make([]string, len(e))
	for i, f := range e {
		parts[i] = f.Error()
		if f.Line > 0 {
			sep = "\n"
		}
	}
	return strings.Join(parts, sep)
}

// Unwrap lets errors.As find each FieldError.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, f := range e {
		errs[i] = f
	}
	return errs
}

// Each returns the single errors in err: those of an Errors, or err itself.
// nil has none.
func Each(err error) []error {
	if err == nil {
		return nil
	}
	var all Errors
	if errors.As(err, &all) {
		return all.Unwrap()
	}
	return []error{err}
}

// asError returns nil, not an empty Errors, if nothing is wrong.
func (e Errors) asError() error {
	if len(e) == 0 {
		return nil
	}
	return e
}

// checker collects what is wrong under a path.
type checker struct {
	errs *Errors
	path string
}

func newChecker() checker { return checker{errs: new(Errors)} }

// field returns the checker for a field of what c checks.
func (c checker) field(name string) checker {
	if len(name) > MaxName {
		name = name[:MaxName] + "…"
	}
	if c.path != "" {
		name = c.path + "." + name
	}
	return checker{errs: c.errs, path: name}
}

// index returns the checker for an element of the list that c checks.
func (c checker) index(i int) checker {
	return checker{errs: c.errs, path: fmt.Sprintf("%s[%d]", c.path, i)}
}

// refuse notes what is wrong with what c checks.
func (c checker) refuse(format string, args ...any) {
	*c.errs = append(*c.errs, &FieldError{Path: c.path, Why: fmt.Sprintf(format, args...)})
}
