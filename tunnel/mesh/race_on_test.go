//go:build race

package mesh

import "runtime"

// hosts is fewer under the race detector, which makes everything ten times as
// slow.
const hosts = 10

// A synctest bubble has one race context for the timers of all Ps
// (runtime/time.go, unlockAndRun): two of them that fire at once corrupt its
// shadow stack, and the process dies of SIGSEGV. With one P they can't. Races
// are still found, since the detector goes by happens-before, not by chance.
func init() { runtime.GOMAXPROCS(1) }
