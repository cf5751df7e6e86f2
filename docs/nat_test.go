package docs

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryRuleOfNATHasItsTest: each test that NAT.md names for a rule exists
// in the package that it names, and no test of an RFC's requirement is left
// out.
func TestEveryRuleOfNATHasItsTest(t *testing.T) {
	named := map[string]bool{}
	for _, row := range readTable(t, "NAT.md", "rule") {
		if len(row) != 3 || row[1]+row[2] == "" {
			t.Errorf("NAT.md names no test for %q", row[0])
			continue
		}
		for test := range strings.FieldsFuncSeq(row[1], func(r rune) bool { return strings.ContainsRune("`, ", r) }) {
			named[test] = true
		}
		for test := range strings.FieldsFuncSeq(row[2], func(r rune) bool { return strings.ContainsRune("`, ", r) }) {
			named["bench/e2e."+test] = true
		}
	}
	for test := range named {
		room, name, _ := strings.Cut(test, ".")
		if !bytes.Contains(testsOf(t, room), []byte("\nfunc "+name+"(")) {
			t.Errorf("NAT.md names %s, which is not there", test)
		}
	}
	for _, m := range regexp.MustCompile(`\nfunc (TestRFC\w+)\(`).FindAllSubmatch(testsOf(t, "nat"), -1) {
		if !named["nat."+string(m[1])] {
			t.Errorf("NAT.md does not say what nat.%s proves", m[1])
		}
	}
}

// testsOf returns the text of a package's tests.
func testsOf(t *testing.T, room string) []byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", room, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no tests: %v", room, err)
	}
	var all []byte
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text...)
	}
	return all
}
