package golden

import (
	"bytes"
	"testing"
)

func TestBytes(t *testing.T) {
	got := Bytes(t, `
		02 00 00  # A comment, 06 of it.
		0a0B
		# 07
	`)
	if want := []byte{2, 0, 0, 10, 11}; !bytes.Equal(got, want) {
		t.Errorf("got % x, want % x", got, want)
	}
	for _, text := range []string{"0", "zz", "0 1 2"} {
		if b, err := parse(text); err == nil {
			t.Errorf("%q is % x", text, b)
		}
	}
}
