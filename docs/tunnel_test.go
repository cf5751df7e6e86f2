package docs

import (
	"bytes"
	"strings"
	"testing"
)

// TestEveryRuleOfTunnelsHasItsTest: each test that TUNNEL.md names for a rule
// exists in the package that it names, and each rule has one.
func TestEveryRuleOfTunnelsHasItsTest(t *testing.T) {
	for _, row := range readTable(t, "TUNNEL.md", "rule") {
		if len(row) != 3 || row[1]+row[2] == "" {
			t.Errorf("TUNNEL.md names no test for %q", row[0])
			continue
		}
		for i, names := range row[1:] {
			for test := range strings.FieldsFuncSeq(names, func(r rune) bool { return strings.ContainsRune("`, ", r) }) {
				room, name, _ := strings.Cut(test, ".")
				if i == 1 {
					room, name = "bench/e2e", test
				}
				if !bytes.Contains(testsOf(t, room), []byte("\nfunc "+name+"(")) {
					t.Errorf("TUNNEL.md names %s, which is not there", test)
				}
			}
		}
	}
}
