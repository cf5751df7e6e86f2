package cost

import (
	"math"
	"runtime"
	"testing"
	"time"
)

// CPU time goes on while a thread works, and not while it sleeps.
func TestCPUIsOfWorkAlone(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// What a hypervisor takes from the machine may be in it, now and then.
	slept := time.Duration(math.MaxInt64)
	for range 10 {
		before := CPU()
		<-time.After(50 * time.Millisecond)
		if slept = min(slept, CPU()-before); slept < 25*time.Millisecond {
			break
		}
	}
	if slept > 25*time.Millisecond {
		t.Errorf("50 ms of sleep took %v of CPU time", slept)
	}
	before := CPU()
	for end := time.Now().Add(60 * time.Second); CPU()-before < 20*time.Millisecond; {
		if time.Now().After(end) {
			t.Fatalf("60 s of work took %v of CPU time", CPU()-before)
		}
	}
}

func TestRunReportsPerUnit(t *testing.T) {
	const turn, units, tries = 100 * time.Microsecond, 10, 5
	least := float64(turn.Nanoseconds() / units)
	var got float64
	for range tries { // What a hypervisor takes may be in it, as above.
		r := testing.Benchmark(func(b *testing.B) {
			Run(b, units, "thing", func() {
				for begun := CPU(); CPU()-begun < turn; {
				}
			})
		})
		if got = r.Extra["cpu-ns/thing"]; got >= least && got <= 10*least {
			return
		}
	}
	t.Errorf("turns of %v for %d units cost %.0f ns a unit", turn, units, got)
}

func TestResidentGrowsWithWhatIsTouched(t *testing.T) {
	const size = 64 << 20
	before := Resident(t)
	b := make([]byte, size)
	for i := 0; i < size; i += 4096 {
		b[i] = 1
	}
	grown := Resident(t) - before
	runtime.KeepAlive(b)
	if grown < size*3/4 || grown > size*4 { // The race detector's own memory is in it.
		t.Errorf("%d bytes touched are %.0f resident", size, grown)
	}
}
