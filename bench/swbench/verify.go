package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"heddle/bench/baseline"
)

// verified measures one row on one contender, and refuses the figure unless the
// path is the only way between its containers, its processes last, and its
// counters account for what was carried and for nothing else.
func (b *bench) verified(ctx context.Context, row Row, p *baseline.Path) (measurement, error) {
	if row.Prepare != nil {
		if err := row.Prepare(ctx, p); err != nil {
			return measurement{}, err
		}
		if err := b.genuine(ctx, p); err != nil { // It may have been started anew.
			return measurement{}, err
		}
	}
	if p.A != nil && p.B != nil {
		if err := errors.Join(p.Isolated(), b.useCubic(p)); err != nil {
			return measurement{}, err
		}
	}
	before, err := lives(p.PIDs)
	if err != nil {
		return measurement{}, err
	}
	m, err := b.accounted(ctx, row, p)
	if err == nil && p.A != nil && p.B != nil {
		err = p.Isolated()
	}
	after, errLives := lives(p.PIDs)
	switch {
	case errLives != nil:
		return measurement{}, errors.Join(fmt.Errorf("%s ended while it was measured: %w", p.Name, errLives), err)
	case err == nil && !slices.Equal(before, after):
		err = fmt.Errorf("%s was started anew while it was measured", p.Name)
	}
	return m, err
}

// useCubic has both containers use CUBIC for every connection from its
// beginning. It is done before each measurement, since a row may have made their
// routes anew.
func (b *bench) useCubic(p *baseline.Path) error {
	if !b.cubic {
		return nil
	}
	return errors.Join(p.A.SetCongestion("cubic"), p.B.SetCongestion("cubic"))
}

// accounted measures one row on one contender, and refuses the figure if the
// contender's counters don't account for what was carried.
func (b *bench) accounted(ctx context.Context, row Row, p *baseline.Path) (measurement, error) {
	before, err := p.Count(ctx)
	if err != nil {
		return measurement{}, err
	}
	m, err := row.Measure(ctx, b, p)
	if err != nil {
		return measurement{}, err
	}
	after, err := p.Count(ctx)
	if err != nil {
		return measurement{}, err
	}
	if p.NAT == nil { // Nothing counts connections.
		m.least.Conns = 0
	}
	if err := baseline.Verify(before, after, m.least, m.most); err != nil {
		return measurement{}, err
	}
	return m, m.plausible(row)
}

// plausible refuses figures that can't be, and those that claim no traffic
// although they are of traffic.
func (m measurement) plausible(row Row) error {
	if len(m.values) != len(row.Figures) {
		return fmt.Errorf("%d values for %d figures", len(m.values), len(row.Figures))
	}
	still := m.most != nil && *m.most == baseline.Most{}
	if least := m.least.AToB.Frames + m.least.AToB.Bytes; least == 0 && !still {
		return errors.New("the measurement accounts for no traffic")
	}
	for i, f := range row.Figures {
		v := m.values[i]
		if impossible(v) || v == 0 && !f.Lower {
			return fmt.Errorf("%s: %v %s can't be", f.Name, v, f.Unit)
		}
	}
	return nil
}

// impossible tells that a number is no figure: not finite, or less than nothing.
func impossible(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) || v < 0 }

// lives tells processes from others that have their numbers: pid and start time
// of each (proc_pid_stat(5), field 22). One that has ended is an error.
func lives(pids []int) ([]string, error) {
	lives := make([]string, len(pids))
	for i, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return nil, fmt.Errorf("its process %d is gone: %w", pid, err)
		}
		// The second field is the program's name in brackets, which may contain
		// anything.
		fields := strings.Fields(string(stat[strings.LastIndex(string(stat), ")")+1:]))
		const third, state, start = 3, 3, 22 // fields[0] is field 3.
		if len(fields) <= start-third {
			return nil, fmt.Errorf("process %d: malformed: %q", pid, stat)
		}
		if s := fields[state-third]; s == "Z" || s == "X" {
			return nil, fmt.Errorf("its process %d has ended", pid)
		}
		lives[i] = strconv.Itoa(pid) + "@" + fields[start-third]
	}
	return lives, nil
}
