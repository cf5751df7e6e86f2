package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"heddle/bench/baseline"
)

// clockTick is the unit of the times in /proc/PID/stat: USER_HZ is 100 on
// every Linux that Heddle runs on.
const clockTick = 10 * time.Millisecond

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
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, 0, fmt.Errorf("CPU time: %w", err)
		}
		c, r, err := parseStat(string(stat))
		if err != nil {
			return 0, 0, fmt.Errorf("CPU time of %d: %w", pid, err)
		}
		cpu += c
		rss += r
	}
	return cpu, rss, nil
}

// parseStat reads utime, stime and rss from /proc/PID/stat (proc_pid_stat(5),
// fields 14, 15 and 24).
func parseStat(stat string) (cpu time.Duration, rss uint64, err error) {
	// The second field is the program's name in brackets, which may contain
	// anything.
	end := strings.LastIndex(stat, ") ")
	if end < 0 {
		return 0, 0, fmt.Errorf("malformed: %q", stat)
	}
	fields := strings.Fields(stat[end+2:])
	const third = 3 // fields[0] is field 3.
	if len(fields) <= 24-third {
		return 0, 0, fmt.Errorf("malformed: %q", stat)
	}
	user, errUser := strconv.ParseInt(fields[14-third], 10, 64)
	system, errSystem := strconv.ParseInt(fields[15-third], 10, 64)
	pages, errPages := strconv.ParseUint(fields[24-third], 10, 64)
	if err := errors.Join(errUser, errSystem, errPages); err != nil {
		return 0, 0, err
	}
	return time.Duration(user+system) * clockTick, pages * uint64(os.Getpagesize()), nil
}
