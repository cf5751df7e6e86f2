package main

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestDocs: docs/SWD.md has a line for each flag.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/SWD.md")
	if err != nil {
		t.Fatal(err)
	}
	var f flags
	s := pflag.NewFlagSet("swd", pflag.ContinueOnError)
	f.define(s)
	s.VisitAll(func(f *pflag.Flag) {
		value, _ := pflag.UnquoteUsage(f)
		if !strings.Contains(string(doc), "\n| `--"+f.Name+" "+value+"` |") {
			t.Errorf("docs/SWD.md has no line for --%s %s", f.Name, value)
		}
	})
}
