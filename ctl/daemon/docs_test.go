package daemon

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestMetricDocs: docs/SWD.md has a line for each metric, with its labels and
// its help, and for none that there isn't.
func TestMetricDocs(t *testing.T) {
	var source []byte
	for _, name := range []string{"metrics.go", "metricstunnel.go"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		source = append(source, text...)
	}
	var want []string
	for _, m := range regexp.MustCompile(`= desc\("([a-z_]+)", "([^"]+)"([^)]*)\)`).FindAllStringSubmatch(string(source), -1) {
		labels := strings.ReplaceAll(strings.Trim(m[3], `, "`), `"`, "")
		want = append(want, fmt.Sprintf("| `heddle_%s` | %s | %s |", m[1], labels, strings.TrimSuffix(m[2], ".")))
	}
	doc, err := os.ReadFile("../../docs/SWD.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(doc)) {
		if strings.HasPrefix(line, "| `heddle_") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	if len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("docs/SWD.md has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
