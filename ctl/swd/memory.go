package main

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
)

// garbage is how many bytes may have become garbage when the collector runs.
// Only control code makes any.
const garbage = 8 << 20

// boundGarbage has the collector run after about garbage bytes, rather than when
// the heap has doubled: most of the heap is tables, which are reserved whole and
// resident only as far as they are filled, so that garbage as large as they are
// would be most of what is resident. GOGC, where it is set, stays as it is.
func boundGarbage() {
	if _, set := os.LookupEnv("GOGC"); set {
		return
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	debug.SetGCPercent(garbagePercent(m.HeapAlloc))
}

// garbagePercent is what GOGC is to be with a heap of so many bytes: 1 to Go's
// own, 100.
func garbagePercent(heap uint64) int {
	return int(math.Ceil(min(100, 100*garbage/float64(max(heap, 1)))))
}
