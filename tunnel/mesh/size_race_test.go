//go:build race

package mesh

// hosts is fewer under the race detector, which makes everything ten times as
// slow.
const hosts = 10
