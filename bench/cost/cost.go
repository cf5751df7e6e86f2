// Package cost measures what a piece of code costs this process, or a process costs
// the machine: CPU time, which is the same on a busy machine and on a quiet one, and
// resident memory. It is for benchmarks.
package cost

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
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

// CPUOf is what a process has used of all CPUs, its threads that have ended
// included, in ns: its clock (clock_getcpuclockid(3), make_process_cpuclock in
// linux/posix-timers.h).
func CPUOf(pid int) (time.Duration, error) {
	const cpuclockSched = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|cpuclockSched), &ts); err != nil {
		return 0, fmt.Errorf("CPU time of %d: clock_gettime: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// ResidentOf is a process's resident memory in bytes (proc_pid_statm(5)).
func ResidentOf(pid int) (uint64, error) {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, fmt.Errorf("memory of %d: %w", pid, err)
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return 0, fmt.Errorf("memory of %d: malformed: %q", pid, statm)
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("memory of %d: %w", pid, err)
	}
	return pages * uint64(os.Getpagesize()), nil
}

// Resident is this process's resident memory in bytes, without garbage. Memory
// that was used before and is free again may count.
func Resident(tb testing.TB) float64 {
	tb.Helper()
	debug.FreeOSMemory()
	rss, err := ResidentOf(os.Getpid())
	if err != nil {
		tb.Fatal(err)
	}
	return float64(rss)
}
