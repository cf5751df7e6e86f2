package dataplane

import "sync"

// MutexLooks is how often Mutex.Lock looks whether a mutex is free before it
// sleeps: some 20 to 40 µs, in which a worker does several batches of what workers
// share a lock for.
const MutexLooks = 100

// mutexPause is the loop's turns between two looks: 0.2 to 0.4 µs. A look reads the
// mutex's cache line, which its owner then has to get back.
const mutexPause = 500

// Mutex is a sync.Mutex for what workers share, taken once a batch. Who finds it
// taken looks for longer than a batch holds it, because who sleeps is back only
// 0.1 ms after it became free: a worker's thread is woken by the kernel, across
// CPUs, and the mutex may stand free meanwhile. Its zero value is free; any
// goroutine may use it.
type Mutex struct{ mu sync.Mutex }

// Lock takes the mutex, waiting for as long as it takes.
func (m *Mutex) Lock() {
	if !m.mu.TryLock() {
		m.wait()
	}
}

func (m *Mutex) wait() {
	for range MutexLooks {
		for range mutexPause {
			continue // Go has no pause instruction to offer.
		}
		if m.mu.TryLock() {
			return
		}
	}
	m.mu.Lock()
}

// Unlock gives the mutex back. Who doesn't hold it must not.
func (m *Mutex) Unlock() { m.mu.Unlock() }
