package load

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Flood sends frames out of an interface of the calling thread's namespace
// until the context ends, at rate frames a second at most. Each begins as frame
// or as an earlier one, and vary makes number 0, 1, 2… of it. They go in batches
// of 64, and between two batches it sleeps: unlike Send it leaves the cores to
// what is flooded, and is some percents slower than asked.
func Flood(ctx context.Context, ifname string, frame []byte, vary func(frame []byte, number uint64), rate float64) (Sent, error) {
	fd, err := openSocket(ifname, 0)
	if err != nil {
		return Sent{}, err
	}
	sent, err := floodOn(ctx, fd, newSlab(frame, vary), rate)
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return Sent{}, fmt.Errorf("flooding %s: %w", ifname, err)
	}
	return sent, nil
}

func floodOn(ctx context.Context, fd int, s *slab, rate float64) (Sent, error) {
	defer runtime.KeepAlive(s)
	gap := time.Duration(sendBatch / rate * float64(time.Second))
	timer := time.NewTimer(0)
	defer timer.Stop()
	began := time.Now()
	for due := began; ; due = due.Add(gap) {
		timer.Reset(time.Until(due))
		select {
		case <-ctx.Done():
			return Sent{Frames: s.sent, Seconds: time.Since(began).Seconds()}, nil
		case <-timer.C:
		}
		if err := s.send(fd, sendBatch); err != nil {
			return Sent{}, err
		}
	}
}
