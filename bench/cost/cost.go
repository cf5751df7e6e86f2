// Package cost measures what a piece of code costs this process: CPU time, which
// is the same on a busy machine and on a quiet one, and resident memory. It is for
// benchmarks.
package cost

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// CPU is the calling thread's CPU time (CLOCK_THREAD_CPUTIME_ID in
// linux/time.h): what other processes on the machine take isn't in it. A
// difference of two means something only if the goroutine is locked to its
// thread.
func CPU() time.Duration {
	var ts syscall.Timespec
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 3, uintptr(unsafe.Pointer(&ts)), 0)
	return time.Duration(ts.Nano())
}

// Run is a benchmark's loop, in which each turn is for units of something: it
// reports the CPU time that one takes, in nanoseconds, as `cpu-ns/UNIT`.
func Run(b *testing.B, units int, unit string, turn func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	turns := 0
	start := CPU()
	for b.Loop() {
		turn()
		turns++
	}
	b.ReportMetric(float64(CPU()-start)/float64(turns*units), "cpu-ns/"+unit)
	b.ReportMetric(0, "ns/op")
}

// Resident is this process's resident memory in bytes, without garbage
// (proc_pid_statm(5)). Memory that was used before and is free again may count.
func Resident(tb testing.TB) float64 {
	tb.Helper()
	debug.FreeOSMemory()
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		tb.Fatal(err)
	}
	pages, err := strconv.ParseUint(strings.Fields(string(statm))[1], 10, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return float64(pages) * float64(os.Getpagesize())
}
