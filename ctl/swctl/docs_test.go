package main

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestDocs: docs/CLI.md names every command and every flag.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/CLI.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(text)
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		noun, verb, _ := strings.Cut(commandName(cmd), " ")
		if _, section, ok := strings.Cut(doc, "\n## swctl "+noun); noun != "" && (!ok || !strings.Contains(section, verb)) {
			if noun != "export" { // It shares a section with apply.
				t.Errorf("docs/CLI.md has no section for %s", cmd.CommandPath())
			}
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			short := f.Shorthand != "" && strings.Contains(doc, "-"+f.Shorthand+" ")
			if !short && !strings.Contains(doc, "--"+f.Name) {
				t.Errorf("docs/CLI.md has no --%s of %s", f.Name, cmd.CommandPath())
			}
		})
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(newRoot())
}
