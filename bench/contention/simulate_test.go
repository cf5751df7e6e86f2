package main

import (
	"math"
	"testing"
)

// TestSimulationIsTheMachineRepairmans holds the simulation against the exact
// answer for N machines that one repairman serves (M/M/1//N; Kleinrock, Queueing
// Systems, section 3.8), with which it coincides where nobody sleeps and Hold
// varies. It is constant here, so that the lock is busier: between the exact
// answer and what nothing can exceed.
func TestSimulationIsTheMachineRepairmans(t *testing.T) {
	for _, private := range []float64{1000, 4000, 20_000, 100_000} {
		for _, workers := range []int{1, 2, 4, 16, 64} {
			m := Model{Private: private, Stages: 1, Hold: 1000, Handover: Handover{Look: 100, Looks: math.MaxInt}}
			got := m.Simulate(workers, 4_000, 1).PerSecond
			least := repairman(workers, private, m.Hold) * 1e9
			most := min(float64(workers)/(private+m.Hold), 1/m.Hold) * 1e9
			if got < least*0.97 || got > most*1.03 {
				t.Errorf("%d workers, private %v: %.0f batches/s, want between %.0f and %.0f", workers, private, got, least, most)
			}
		}
	}
}

// repairman returns the throughput of the machine-repairman model.
func repairman(machines int, up, repair float64) float64 {
	// p[k]/p[0] = N!/(N-k)! · (repair/up)^k.
	sum, term := 1.0, 1.0
	for k := range machines {
		term *= float64(machines-k) * repair / up
		sum += term
	}
	return (1 - 1/sum) / repair
}

func TestSimulationRepeatsItself(t *testing.T) {
	m := Model{Private: 5000, Stages: 4, Hold: 700, Handover: Handover{Lines: 4, Transfer: 100, Look: 400, Looks: 4, Wake: 6000}}
	if a, b := m.Simulate(12, 5000, 7), m.Simulate(12, 5000, 7); a != b {
		t.Errorf("the same seed gave %+v and %+v", a, b)
	}
	if a, b := m.Simulate(12, 5000, 7), m.Simulate(12, 5000, 8); a == b {
		t.Error("another seed gave the same")
	}
}

func TestSimulationsLimits(t *testing.T) {
	near := func(what string, got, want, by float64) {
		t.Helper()
		if math.Abs(got-want) > want*by {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	m := Model{Private: 9000, Hold: 1000, Handover: Handover{Lines: 5, Transfer: 100, Look: 250, Looks: 4, Wake: 5000}}
	one := m.Simulate(1, 10_000, 1)
	near("one worker moves no line", one.PerSecond, 1e5, 0.001)
	near("and its lock is busy", one.Busy, 0.1, 0.01)
	near("and it never waits", one.Waited+1, 1, 0)
	many := m.Simulate(64, 100_000, 1)
	if most := 1e9 / (m.Hold + m.Handover.Lines*m.Handover.Transfer); many.PerSecond > most*1.001 || many.PerSecond < most*0.3 {
		t.Errorf("64 workers have %.0f batches/s of %.0f that there can be", many.PerSecond, most)
	}
	eager := Model{Private: 1, Hold: 1000, Handover: Handover{Transfer: 100, Look: 50, Looks: math.MaxInt}}
	near("who looks takes the lock's line away", eager.Simulate(2, 10_000, 1).PerSecond, 1e9/1110, 0.03)
	m.Locks = 64
	near("a lock for each", m.Simulate(64, 100_000, 1).PerSecond, 64e5, 0.01)
	m.Locks, m.Hold = 0, 0
	near("nothing to hold", m.Simulate(64, 100_000, 1).PerSecond, 64e9/9000, 0.01)
}
