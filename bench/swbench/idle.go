package main

import (
	"context"
	"time"

	"heddle/bench/baseline"
	"heddle/bench/cost"
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
		c, err := cost.CPUOf(pid)
		if err != nil {
			return 0, 0, err
		}
		r, err := cost.ResidentOf(pid)
		if err != nil {
			return 0, 0, err
		}
		cpu += c
		rss += r
	}
	return cpu, rss, nil
}
