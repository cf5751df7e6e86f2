package docs

import (
	"bytes"
	"strings"
	"testing"
)

// TestEveryRuleOfTheMeshHasItsTest: each test that MESH.md names for a rule
// exists.
func TestEveryRuleOfTheMeshHasItsTest(t *testing.T) {
	tests := testsOf(t, "tunnel/mesh")
	for _, row := range readTable(t, "MESH.md", "rule") {
		for name := range strings.FieldsFuncSeq(row[1], func(r rune) bool { return strings.ContainsRune("`, ", r) }) {
			if !bytes.Contains(tests, []byte("\nfunc "+name+"(")) {
				t.Errorf("MESH.md names %s, which is not there", name)
			}
		}
	}
}
