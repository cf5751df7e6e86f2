package e2e

import (
	"errors"
	"math/rand/v2"
	"strconv"
)

var errNotYet = errors.New("not yet")

// random is a source that gives the same in every run.
type random struct {
	*rand.Rand
	source *rand.ChaCha8
}

func newRandom(n byte) *random {
	source := rand.NewChaCha8([32]byte{n})
	return &random{rand.New(source), source}
}

// fill fills a slice with random bytes.
func (r *random) fill(b []byte) { _, _ = r.source.Read(b) }

func itoa(n int) string { return strconv.Itoa(n) }
