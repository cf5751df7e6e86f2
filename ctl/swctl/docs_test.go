package main

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"heddle/ctl/config"
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

// TestDocsConfig: the config file in docs/CLI.md is one, it shows every field
// but those it has a word for, and the settings in it are the defaults.
func TestDocsConfig(t *testing.T) {
	text, err := os.ReadFile("../../docs/CLI.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(text), "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	c, err := config.Parse([]byte(example))
	if err != nil || len(c.Uplinks) == 0 || len(c.NAT) == 0 {
		t.Fatalf("%+v, %v", c, err)
	}
	if want := (config.NATSettings{}).WithDefaults(); c.NATSettings != want {
		t.Errorf("%+v, want %+v", c.NATSettings, want)
	}
	for _, v := range []any{config.Network{}, config.Port{}, config.Static{}, config.Uplink{}, config.NAT{}, config.NATSettings{}, config.Peer{}, config.Mesh{}} {
		for i := range reflect.TypeOf(v).NumField() {
			name, _, _ := strings.Cut(reflect.TypeOf(v).Field(i).Tag.Get("json"), ",")
			if !strings.Contains(example, name) {
				t.Errorf("the example lacks %s of %T", name, v)
			}
		}
	}
}
