package dataplane

import (
	"runtime"
	"sync"
	"testing"
	"time"
)

// Goroutines that look, that sleep and that come by count together without
// losing one.
func TestMutexLetsOneInAtATime(t *testing.T) {
	const goroutines, times = 8, 2000
	var m Mutex
	var all sync.WaitGroup
	count := 0
	for range goroutines {
		all.Go(func() {
			for i := range times {
				m.Lock()
				was := count
				if i%100 == 0 {
					runtime.Gosched() // For longer than one looks, if others run.
				}
				count = was + 1
				m.Unlock()
			}
		})
	}
	all.Wait()
	if count != goroutines*times {
		t.Errorf("counted to %d, want %d", count, goroutines*times)
	}
}

// Who waits for longer than it looks sleeps, and is woken.
func TestMutexSleeps(t *testing.T) {
	var m Mutex
	m.Lock()
	begun, got := make(chan struct{}), make(chan struct{})
	go func() {
		close(begun)
		m.Lock()
		close(got)
	}()
	<-begun
	select {
	case <-got:
		t.Fatal("a mutex that is held was taken")
	case <-time.After(20 * time.Millisecond): // Hundreds of times what it looks for.
	}
	m.Unlock()
	select {
	case <-got:
	case <-time.After(20 * time.Second):
		t.Fatal("who sleeps is not woken")
	}
	m.Unlock()
}

func TestMutexAllocatesNothing(t *testing.T) {
	var m Mutex
	count := 0
	if n := testing.AllocsPerRun(100, func() {
		m.Lock()
		count++
		m.Unlock()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
