package docs

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"heddle/dataplane"
)

func TestEveryDropHasItsLine(t *testing.T) {
	lines := map[string]bool{}
	for _, row := range readTable(t, "DROPS.md", "reason") {
		lines[strings.Trim(row[0], "`")] = true
	}
	for d := dataplane.None + 1; d < dataplane.DropCount; d++ {
		if !lines[d.String()] {
			t.Errorf("DROPS.md has no line for %s", d)
		}
		delete(lines, d.String())
	}
	for name := range lines {
		t.Errorf("DROPS.md explains %s, which is no reason", name)
	}
}

func TestEveryDependencyHasItsJob(t *testing.T) {
	cmd := exec.Command("go", "list", "-m", "-f", "{{if not (or .Indirect .Main)}}{{.Path}}{{end}}", "all")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -m: %v", err)
	}
	lines := map[string]bool{}
	for _, row := range readTable(t, "DEPENDENCIES.md", "module") {
		lines[strings.Trim(row[0], "`")] = true
	}
	for m := range strings.FieldsSeq(string(out)) {
		if !lines[m] {
			t.Errorf("DEPENDENCIES.md does not say what %s is for", m)
		}
		delete(lines, m)
	}
	for m := range lines {
		t.Errorf("DEPENDENCIES.md lists %s, which go.mod does not require", m)
	}
}

// TestDependenciesAreWhereThePageSays: a package that the page names beside a
// module imports it.
func TestDependenciesAreWhereThePageSays(t *testing.T) {
	pkgs := map[string]pkg{}
	for _, p := range listPackages(t) {
		pkgs[strings.TrimPrefix(p.ImportPath, module)] = p
	}
	for _, row := range readTable(t, "DEPENDENCIES.md", "module") {
		lib := strings.Trim(row[0], "`")
		for word := range strings.FieldsFuncSeq(row[2], func(r rune) bool { return strings.ContainsRune(" ,;", r) }) {
			if p, ok := pkgs[word]; ok && !p.imports(lib) {
				t.Errorf("DEPENDENCIES.md says that %s uses %s, and it doesn't", word, lib)
			}
		}
	}
}

func TestPagesThatAreLinkedExist(t *testing.T) {
	pages, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"../README.md"}
	for _, p := range pages {
		if strings.HasSuffix(p.Name(), ".md") {
			names = append(names, p.Name())
		}
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, part := range strings.Split(string(text), "](")[1:] {
			target, _, _ := strings.Cut(part, ")")
			target, _, _ = strings.Cut(target, "#")
			if target == "" || strings.Contains(target, "://") {
				continue
			}
			dir := ""
			if name == "../README.md" {
				dir = "../"
			}
			if _, err := os.Stat(dir + target); err != nil {
				t.Errorf("%s links to %s, which does not exist", name, target)
			}
		}
	}
}
