package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// T is a lab for a test: its methods fail the test instead of returning
// errors. It closes with the test, which fails if something is left over.
type T struct {
	testing.TB
	*Lab
}

// New opens a lab for a test. The test fails at its end if a process,
// namespace or descriptor is left that wasn't there before, or a link of the
// caller's own namespace came or went.
//
// A test that uses it can't be parallel: others' descriptors would be counted.
func New(tb testing.TB) *T {
	tb.Helper()
	before := takeInventory(tb)
	l, err := Open()
	if err != nil {
		tb.Fatalf("opening a lab: %v", err)
	}
	tb.Cleanup(func() {
		if err := l.Close(); err != nil {
			tb.Errorf("closing the lab: %v", err)
		}
		before.check(tb, l.id)
	})
	return &T{TB: tb, Lab: l}
}

// NewNetNS makes a namespace.
func (t *T) NewNetNS(name string) *NetNS {
	t.Helper()
	n, err := t.Lab.NewNetNS(name)
	t.NoError(err)
	return n
}

// Veth makes a virtual Ethernet pair between two namespaces.
func (t *T) Veth(a *NetNS, aName string, b *NetNS, bName string) {
	t.Helper()
	t.NoError(t.Lab.Veth(a, aName, b, bName))
}

// Run runs a program in a namespace, in 60 s at most, and returns its stdout.
func (t *T) Run(n *NetNS, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	out, err := n.Run(ctx, args...)
	t.NoError(err)
	return out.Stdout
}

// StartSwd builds swd if it isn't yet and starts it in a namespace. The
// daemon's log is shown if the test fails.
func (t *T) StartSwd(n *NetNS, args ...string) *Swd {
	t.Helper()
	bin, err := Build()
	t.NoError(err)
	s, err := t.Lab.StartSwd(t.Context(), n, bin, args...)
	if s != nil {
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("swd's log:\n%s", s.Log())
			}
		})
	}
	t.NoError(err)
	return s
}

// Swctl runs swctl, in 60 s at most; an exit code other than 0 fails the test.
func (t *T) Swctl(s *Swd, args ...string) Output {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	out, err := s.Control(ctx, args...)
	t.NoError(err)
	return out
}

// NoError fails the test at once if there is an error.
func (t *T) NoError(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Eventually waits until holds returns nil, asking every 20 ms, and fails the
// test with its last error after bound. It asks at least five times: a machine
// that stands still for all of the bound proves nothing.
func (t *T) Eventually(bound time.Duration, what string, holds func() error) {
	t.Helper()
	const leastLooks = 5
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for looks := 1; ; looks++ {
		err := holds()
		if err == nil {
			return
		}
		if looks >= leastLooks && time.Since(began) > bound {
			t.Fatalf("%s: not within %v: %v", what, bound, err)
		}
		<-tick.C
	}
}

// Main runs a package's tests and removes what Build made: call it from
// TestMain.
func Main(m *testing.M) {
	code := m.Run()
	if err := RemoveBuild(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// inventory is what a test must leave as it was.
type inventory struct {
	descriptors map[string]string // Number to target.
	links       []string
}

func takeInventory(tb testing.TB) inventory {
	tb.Helper()
	descriptors, err := openDescriptors()
	if err != nil {
		tb.Fatal(err)
	}
	links, err := ownLinks()
	if err != nil {
		tb.Fatal(err)
	}
	return inventory{descriptors, links}
}

// check compares what is there now with the inventory. Descriptors get a
// little time: the runtime closes those of ended processes in the background.
func (v inventory) check(tb testing.TB, labID string) {
	tb.Helper()
	for _, name := range labSpaces() {
		if strings.HasPrefix(name, labID+"-") {
			tb.Errorf("leak: namespace %s", name)
		}
	}
	children, err := childProcesses()
	if err != nil {
		tb.Error(err)
	}
	for _, c := range children {
		tb.Errorf("leak: process %s", c)
	}
	links, err := ownLinks()
	if err != nil {
		tb.Error(err)
	}
	if !slices.Equal(links, v.links) {
		tb.Errorf("leak: links of the caller's namespace were %v, are %v", v.links, links)
	}
	t := &T{TB: tb}
	t.Eventually(15*time.Second, "leak check of descriptors", func() error {
		now, err := openDescriptors()
		if err != nil {
			return err
		}
		var leaks []error
		for number, target := range now {
			if was, ok := v.descriptors[number]; !ok || was != target {
				leaks = append(leaks, fmt.Errorf("leak: descriptor %s → %s", number, target))
			}
		}
		return errors.Join(leaks...)
	})
}
