package docs

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "heddle/"

// pkg is what `go list -json` says of a package of this module.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
}

// imports tells whether the package imports a package of a library.
func (p pkg) imports(library string) bool {
	return slices.ContainsFunc(p.Imports, func(imp string) bool { return within(imp, library) })
}

// within tells whether an import path is a library or below it.
func within(imp, library string) bool {
	return imp == library || strings.HasPrefix(imp, library+"/")
}

// rule is a row of the floors table.
type rule struct {
	floor     string
	may, libs []string
}

func listPackages(t *testing.T) []pkg {
	t.Helper()
	// With a profile each package would be listed once more, as a command's own.
	cmd := exec.Command("go", "list", "-pgo=off", "-json=ImportPath,Dir,GoFiles,Imports,Deps", "./...")
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var pkgs []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
}

// readTable returns the cells of the rows of a Markdown table in a page whose
// header starts with the given cell.
func readTable(t *testing.T, page, header string) [][]string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	in := false
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case !strings.HasPrefix(line, "|"):
			in = false
		case cells[0] == header:
			in = true
		case in && !strings.HasPrefix(cells[0], "---"):
			rows = append(rows, cells)
		}
	}
	if len(rows) == 0 {
		t.Fatalf("%s has no table headed %q", page, header)
	}
	return rows
}

func list(cell string) []string {
	return strings.FieldsFunc(cell, func(r rune) bool { return r == ',' || r == ' ' })
}

func readFloors(t *testing.T) map[string]rule {
	t.Helper()
	rules := map[string]rule{}
	for _, row := range readTable(t, "ARCHITECTURE.md", "floor") {
		for _, p := range list(row[1]) {
			rules[p] = rule{floor: row[0], may: list(row[2]), libs: list(row[3])}
		}
	}
	return rules
}

// lookup finds the rule of a package; a path that ends in /… stands for all
// below it.
func lookup(rules map[string]rule, path string) (rule, bool) {
	if r, ok := rules[path]; ok {
		return r, true
	}
	for p, r := range rules {
		if prefix, ok := strings.CutSuffix(p, "…"); ok && strings.HasPrefix(path, prefix) {
			return r, true
		}
	}
	return rule{}, false
}

func external(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return strings.Contains(first, ".")
}

func TestImportsGoDownTheFloors(t *testing.T) {
	rules := readFloors(t)
	for _, p := range listPackages(t) {
		path := strings.TrimPrefix(p.ImportPath, module)
		if path == "docs" {
			continue
		}
		r, ok := lookup(rules, path)
		if !ok {
			t.Errorf("%s stands on no floor in ARCHITECTURE.md", path)
			continue
		}
		if slices.Contains(r.may, "any") {
			continue
		}
		for _, imp := range p.Imports {
			if external(imp) {
				if !slices.ContainsFunc(r.libs, func(l string) bool { return within(imp, l) }) {
					t.Errorf("%s imports the library %s, which its floor has not", path, imp)
				}
				continue
			}
			inner, ours := strings.CutPrefix(imp, module)
			if !ours {
				continue
			}
			below, _ := lookup(rules, inner)
			if !slices.Contains(r.may, inner) && !slices.Contains(r.may, below.floor) {
				t.Errorf("%s (floor %s) imports %s (floor %s)", path, r.floor, inner, below.floor)
			}
		}
	}
}

// TestEveryLibraryOfAFloorIsUsed: what a row allows and nobody imports is a
// door that stands open for no reason.
func TestEveryLibraryOfAFloorIsUsed(t *testing.T) {
	pkgs := listPackages(t)
	for _, row := range readTable(t, "ARCHITECTURE.md", "floor") {
		for _, lib := range list(row[3]) {
			if lib == "any" {
				continue
			}
			used := slices.ContainsFunc(pkgs, func(p pkg) bool {
				return slices.Contains(list(row[1]), strings.TrimPrefix(p.ImportPath, module)) && p.imports(lib)
			})
			if !used {
				t.Errorf("%s may import %s, and doesn't", row[1], lib)
			}
		}
	}
}

func TestLowFloorsReachNoLoggerNoHTTPNoClock(t *testing.T) {
	forbidden := []string{"net/http", "log", "log/slog", "go.uber.org/zap"}
	rules := readFloors(t)
	for _, p := range listPackages(t) {
		r, ok := lookup(rules, strings.TrimPrefix(p.ImportPath, module))
		if !ok || r.floor > "2" {
			continue
		}
		for _, dep := range p.Deps {
			if slices.Contains(forbidden, dep) {
				t.Errorf("%s (floor %s) reaches %s", p.ImportPath, r.floor, dep)
			}
		}
		for _, f := range p.GoFiles {
			for _, at := range clockReads(t, filepath.Join(p.Dir, f)) {
				t.Errorf("%s reads a clock", at)
			}
		}
	}
}

// clockReads returns where a file calls a function of package time that looks
// at a clock or waits for one.
func clockReads(t *testing.T, file string) []string {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if ok && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}, sel.Sel.Name) {
			found = append(found, fset.Position(sel.Pos()).String())
		}
		return true
	})
	return found
}
