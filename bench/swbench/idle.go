package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"heddle/bench/baseline"
)

// idle measures what a contender's processes use while nothing is going on.
func idle(ctx context.Context, b *bench, p *baseline.Path) (measurement, error) {
	began := time.Now()
	before, _, err := usage(p.PIDs)
	if err != nil {
		return measurement{}, err
	}
	select {
	case <-time.After(b.seconds(0)):
	case <-ctx.Done():
		return measurement{}, context.Cause(ctx)
	}
	after, rss, err := usage(p.PIDs)
	if err != nil {
		return measurement{}, err
	}
	share := float64(after-before) / float64(time.Since(began))
	return measurement{values: []float64{100 * share, float64(rss) / 1e6}, most: &baseline.Most{}}, nil
}

// usage adds up the CPU time and the resident memory, in bytes, of processes.
func usage(pids []int) (cpu time.Duration, rss uint64, err error) {
	for _, pid := range pids {
		c, err := cpuTime(pid)
		if err != nil {
			return 0, 0, fmt.Errorf("CPU time of %d: %w", pid, err)
		}
		r, err := resident(pid)
		if err != nil {
			return 0, 0, fmt.Errorf("memory of %d: %w", pid, err)
		}
		cpu += c
		rss += r
	}
	return cpu, rss, nil
}

// cpuTime is what a process has used of all CPUs, its threads that have ended
// included, in ns: its clock (clock_getcpuclockid(3), make_process_cpuclock in
// linux/posix-timers.h).
func cpuTime(pid int) (time.Duration, error) {
	const cpuclockSched = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|cpuclockSched), &ts); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	return time.Duration(ts.Nano()), nil
}

// resident is a process's resident memory (proc_pid_statm(5)).
func resident(pid int) (uint64, error) {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return 0, fmt.Errorf("malformed: %q", statm)
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	return pages * uint64(os.Getpagesize()), err
}
