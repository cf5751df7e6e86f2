// Package golden reads the golden frames and messages of tests.
package golden

import (
	"encoding/hex"
	"strings"
	"testing"
)

// Bytes turns commented hex into bytes: on each line what follows a # is left
// out, and so is white space. The test ends if the rest isn't hex.
func Bytes(tb testing.TB, text string) []byte {
	tb.Helper()
	b, err := parse(text)
	if err != nil {
		tb.Fatalf("golden bytes: %v", err)
	}
	return b
}

func parse(text string) ([]byte, error) {
	var digits strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	return hex.DecodeString(digits.String())
}
