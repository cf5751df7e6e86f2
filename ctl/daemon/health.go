package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	vswitch "heddle/switch"
)

// Times of the control goroutine.
const (
	tick         = time.Second            // Ageing, checks of every port, retries.
	settle       = 100 * time.Millisecond // Changes on the host that come closer together are looked at once.
	firstRetry   = 250 * time.Millisecond // After a device couldn't be opened; doubled each time …
	longestRetry = time.Second            // … up to this, or slowFactor times what a try takes.
	slowFactor   = 4
	expireBudget = 1 << 16 // Entries that age away per tick, at most.
	flapBatch    = 64
)

// control ages the FDB and looks after the ports until ctx is done.
func (d *Daemon) control(ctx context.Context) {
	t := time.NewTicker(tick)
	defer t.Stop()
	changes := d.host.changes()
	var quiet <-chan time.Time // Set while changes settle.
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
			changes, quiet = nil, time.After(settle)
			continue
		case <-quiet:
			changes, quiet = d.host.changes(), nil
		case <-retry.C:
		case <-t.C:
			d.sw.Expire(d.now(), expireBudget)
			d.reportFlaps()
		}
		if wait := d.look(ctx); wait > 0 {
			retry.Reset(wait)
		}
	}
}

// look checks every port once, and returns how long to wait for the first that
// is to be tried again, 0 if none is.
func (d *Daemon) look(ctx context.Context) time.Duration {
	d.change.Lock()
	defer d.change.Unlock()
	var next time.Duration
	for _, p := range d.ports {
		if ctx.Err() != nil {
			return 0
		}
		d.lookAt(ctx, p)
		if p.dev == nil {
			if wait := max(time.Until(p.retry), time.Millisecond); next == 0 || wait < next {
				next = wait
			}
		}
	}
	return next
}

// lookAt takes a port down whose device fails, and brings it up when it can.
func (d *Daemon) lookAt(ctx context.Context, p *port) {
	if p.dev == nil {
		if time.Now().Before(p.retry) {
			return
		}
		d.reopen(ctx, p)
		return
	}
	err := p.dev.check()
	switch {
	case err == nil && !p.attached:
		d.reattach(p)
	case err != nil:
		d.takeDown(p, err)
		if errors.Is(err, errGone) {
			d.releaseDevice(p)
			d.reopen(ctx, p)
		}
	}
}

// takeDown detaches a port; what was learnt behind it is forgotten, so that
// its stations are found elsewhere. The caller holds change.
func (d *Daemon) takeDown(p *port, why error) {
	wasUp := p.attached
	if wasUp {
		d.detach(p)
	}
	d.mu.Lock()
	p.down = why
	if wasUp {
		p.since = time.Now()
	}
	d.mu.Unlock()
	if wasUp {
		d.noteDown(p)
	}
}

func (d *Daemon) noteDown(p *port) {
	d.events.add(eventPortDown, "port "+p.spec.Name, reason(p.down))
	d.log.Warn("port down", zap.String("port", p.spec.Name), zap.String("network", p.spec.Network), zap.String("reason", reason(p.down)))
}

// releaseDevice gives back a device that is of no use any more.
func (d *Daemon) releaseDevice(p *port) {
	if p.dev == nil {
		return
	}
	d.carry(p)
	if err := p.dev.release(); err != nil {
		d.log.Warn("release of a device failed", zap.String("port", p.spec.Name), zap.Error(err))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p.dev, p.wait, p.retry = nil, 0, time.Time{}
}

// bringUp opens and attaches a port's device now, or leaves it to be retried.
func (d *Daemon) bringUp(p *port) {
	if p.dev == nil {
		d.reopen(context.Background(), p)
	} else {
		d.lookAt(context.Background(), p)
	}
}

// reopen tries to open and attach the device of a port that has none.
func (d *Daemon) reopen(ctx context.Context, p *port) {
	begun := time.Now()
	err := d.openDevice(ctx, p)
	if err == nil {
		if err = p.dev.check(); err == nil || !errors.Is(err, errGone) {
			if err == nil {
				d.reattach(p)
			} else {
				d.takeDown(p, err)
			}
			return
		}
		d.releaseDevice(p)
	}
	took := time.Since(begun)
	d.mu.Lock()
	defer d.mu.Unlock()
	p.down = err
	p.retry = time.Now().Add(max(p.nextWait(), slowFactor*took))
}

// nextWait doubles the time between tries.
func (p *port) nextWait() time.Duration {
	p.wait = min(max(2*p.wait, firstRetry), longestRetry)
	return p.wait
}

// reattach brings up a port whose device is well.
func (d *Daemon) reattach(p *port) {
	if err := d.attachDevice(p); err != nil {
		d.takeDown(p, err)
		return
	}
	d.mu.Lock()
	was := time.Since(p.since)
	p.since, p.wait = time.Now(), 0
	d.mu.Unlock()
	message := fmt.Sprintf("up again after %s", was.Round(time.Millisecond))
	d.events.add(eventPortUp, "port "+p.spec.Name, message)
	d.log.Info("port up", zap.String("port", p.spec.Name), zap.String("network", p.spec.Network), zap.Duration("down_for", was))
}

// reason is why a port is down, as it is shown.
func reason(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// reportFlaps tells of MACs that are held down. The switch reports each at
// most once in 10 s; the log takes flapBatch of them a tick.
func (d *Daemon) reportFlaps() {
	var buf [flapBatch]vswitch.FlapEvent
	n, _ := d.sw.TakeFlaps(buf[:])
	if n == 0 {
		return
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	names := make(map[*vswitch.Network]string, len(d.networks))
	for name, n := range d.networks {
		names[n.live] = name
	}
	for _, f := range buf[:n] {
		held, other := d.ids[f.Port], d.ids[f.Other]
		if held == nil || other == nil {
			continue // A port has gone meanwhile, and the matter with it.
		}
		message := fmt.Sprintf("%s moves to and fro between ports %s and %s: held at %s for 1 s; look for a loop or a duplicate address",
			f.MAC, held.spec.Name, other.spec.Name, held.spec.Name)
		d.events.add(eventMACFlapping, "network "+names[f.Network], message)
		d.log.Warn("MAC flapping", zap.String("network", names[f.Network]), zap.Stringer("mac", f.MAC),
			zap.String("port", held.spec.Name), zap.String("other", other.spec.Name))
	}
}
