package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"heddle/ctl/attach"
	"heddle/dataplane"
	vswitch "heddle/switch"
)

// Times and bounds of the control goroutines.
const (
	tick         = time.Second            // Ageing, and a look at some ports.
	settle       = 100 * time.Millisecond // Changes on the host that come closer together are looked at once.
	firstRetry   = 250 * time.Millisecond // After a device couldn't be opened; doubled each time …
	longestRetry = time.Second            // … up to this, or slowFactor times what a try takes.
	slowFactor   = 4
	restRetries  = 50 * time.Millisecond // Between two batches of tries …
	retryBatch   = 32                    // … of so many ports.
	looksPerTick = 64                    // What no event tells is noticed after ports/looksPerTick ticks.
	expireBudget = 1 << 16               // Entries that age away per tick, at most.
	flapBatch    = 64
)

// age lets FDB entries age and reports flaps until ctx is done. It waits for no
// change and asks the host nothing.
func (d *Daemon) age(ctx context.Context) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			d.sw.Expire(d.now(), expireBudget)
			d.nat.Expire(d.now(), expireBudget)
			d.engine.Do(func(worker int) {
				if worker == 0 { // One asks and announces for all.
					d.nat.Tick(worker, d.now())
				}
			})
			d.reportFlaps()
		}
	}
}

// watch looks at the ports whose links change, and in turn at some others at
// each tick: a namespace that an open descriptor keeps alive ends without an
// event.
func (d *Daemon) watch(ctx context.Context) {
	t := time.NewTicker(tick)
	defer t.Stop()
	changes := d.host.changes()
	var quiet <-chan time.Time // Set while changes settle.
	var turn dataplane.PortID
	for {
		var look []*port
		turns := false
		select {
		case <-ctx.Done():
			return
		case <-changes:
			changes, quiet = nil, time.After(settle)
		case <-quiet:
			changes, quiet = d.host.changes(), nil
			look = d.namesakes(d.host.changed())
		case <-t.C:
			look, turn = d.inTurn(turn)
			turns = true
		}
		for _, p := range look {
			if ctx.Err() != nil {
				return
			}
			d.lookAt(p, !turns)
		}
	}
}

// namesakes returns the ports of these names, or all.
func (d *Daemon) namesakes(names []string, all bool) (ports []*port) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if all {
		return slices.Collect(maps.Values(d.ports))
	}
	for _, name := range names {
		if p := d.ports[name]; p != nil {
			ports = append(ports, p)
		}
	}
	return ports
}

// inTurn returns the next looksPerTick ports that have a device, from the one
// with the number on, and the number to go on with.
func (d *Daemon) inTurn(from dataplane.PortID) (ports []*port, next dataplane.PortID) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	next = from
	for range dataplane.MaxPorts {
		if len(ports) == looksPerTick {
			break
		}
		if p := d.ids[next]; p != nil && p.dev != nil {
			ports = append(ports, p)
		}
		next = (next + 1) % dataplane.MaxPorts
	}
	return ports, next
}

// lookAt takes a port down whose device fails, and brings it up when that works
// again. A device that is gone is opened anew by retry. Without an event, that of
// a port which is up is only looked at if it isn't calm, or waits for its entry in
// the FDB.
func (d *Daemon) lookAt(p *port, event bool) {
	d.change.Lock()
	defer d.change.Unlock()
	if d.ids[p.id] != p || p.dev == nil || !event && p.attached && !d.localWaits(p) && p.dev.calm() {
		return
	}
	err := p.dev.check()
	was := p.facts
	d.mu.Lock()
	p.facts = p.dev.facts()
	d.mu.Unlock()
	if err == nil {
		if err := p.dev.restore(d.life); err != nil {
			d.log.Warn("an interface that was down can't be given its addresses and routes again",
				zap.String("port", p.spec.Name), zap.Error(err))
		}
	}
	switch {
	case err == nil && !p.attached:
		d.reattach(p)
	case err == nil:
		d.follow(p, was)
	default:
		d.takeDown(p, err)
		if errors.Is(err, errGone) {
			d.releaseDevice(p)
		}
	}
}

// retry opens the devices of ports that have none, when they are due, until ctx
// is done. It holds change for one port at a time, and not while it asks
// whether there is a namespace to open it in: a container engine that hangs
// holds up nothing but itself.
func (d *Daemon) retry(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.again:
		case <-t.C:
		}
		due, next := d.due()
		for _, p := range due {
			if ctx.Err() != nil {
				return
			}
			d.retryPort(ctx, p)
		}
		if len(due) > 0 {
			_, next = d.due()
		}
		if next > 0 {
			t.Reset(max(next, restRetries))
		}
	}
}

// due returns the ports to be tried now, at most retryBatch, those first that
// need no engine, and the longest due; and after how long the next one is due,
// 0 if none is.
func (d *Daemon) due() (ports []*port, next time.Duration) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, p := range d.ports {
		if p.dev != nil {
			continue
		}
		wait := time.Until(p.retry)
		if wait <= 0 {
			ports = append(ports, p)
		}
		if wait = max(wait, time.Millisecond); next == 0 || wait < next {
			next = wait
		}
	}
	asks := func(p *port) int { return min(len(p.spec.Container), 1) }
	slices.SortFunc(ports, func(a, b *port) int {
		return cmp.Or(asks(a)-asks(b), a.retry.Compare(b.retry))
	})
	return ports[:min(len(ports), retryBatch)], next
}

// retryPort tries one port that has no device.
func (d *Daemon) retryPort(ctx context.Context, p *port) {
	begun := time.Now()
	err := d.engineGone(p)
	if err == nil {
		err = d.host.reach(ctx, &p.spec)
		d.rememberEngine(err, time.Since(begun))
	}
	if err != nil {
		d.putOff(p, err, time.Since(begun))
		return
	}
	d.change.Lock()
	defer d.change.Unlock()
	if d.ids[p.id] == p && p.dev == nil {
		d.reopen(ctx, p)
	}
}

// engineMemory is that no container engine answered a moment ago, so that not
// each of thousands of ports has to wait for it.
type engineMemory struct {
	mu    sync.Mutex
	err   error
	until time.Time
}

// engineGone returns why a port that needs the engine isn't worth a try now;
// nil if it is.
func (d *Daemon) engineGone(p *port) error {
	m := &d.engines
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.spec.Container == "" || time.Now().After(m.until) {
		return nil
	}
	return m.err
}

// rememberEngine notes an engine that didn't answer, after so long.
func (d *Daemon) rememberEngine(err error, took time.Duration) {
	if !errors.Is(err, attach.ErrNoEngine) {
		return
	}
	m := &d.engines
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err, m.until = err, time.Now().Add(max(took, longestRetry))
}

// putOff notes why a port has no device, and when to try again, after a try
// that took so long.
func (d *Daemon) putOff(p *port, why error, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ids[p.id] != p || p.dev != nil {
		return
	}
	p.down = why
	p.retry = time.Now().Add(max(p.nextWait(), slowFactor*took))
	if errors.Is(why, attach.ErrNoEngine) {
		p.retry = time.Now().Add(max(p.wait, took))
	}
	d.wakeRetry()
}

// wakeRetry has retry look anew when the next port is due.
func (d *Daemon) wakeRetry() {
	select {
	case d.again <- struct{}{}:
	default: // One value waits already, and stands for all.
	}
}

// takeDown detaches a port; what was learnt behind it is forgotten, so that
// its stations are found elsewhere. The reason is there first: nobody sees a port
// that is down without one. The caller holds change.
func (d *Daemon) takeDown(p *port, why error) {
	wasUp := p.attached
	d.mu.Lock()
	p.down = why
	if wasUp {
		p.since = time.Now()
	}
	d.mu.Unlock()
	if wasUp {
		d.detach(p)
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
	if err := d.carry(p).release(); err != nil {
		d.log.Warn("release of a device failed", zap.String("port", p.spec.Name), zap.Error(err))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p.wait, p.retry = 0, time.Time{}
	d.wakeRetry()
}

// bringUp opens and attaches the device of a port that has none, or leaves it
// to retry if that is in vain. The caller holds change.
func (d *Daemon) bringUp(p *port) {
	if err := d.engineGone(p); err != nil {
		d.putOff(p, err, 0)
		return
	}
	d.reopen(d.life, p)
}

// reopen tries to open and attach the device of a port that has none. The
// caller holds change.
func (d *Daemon) reopen(ctx context.Context, p *port) {
	begun := time.Now()
	err := d.openDevice(ctx, p)
	if err == nil {
		if err = p.dev.check(); err == nil {
			d.reattach(p)
			return
		}
		if !errors.Is(err, errGone) {
			d.takeDown(p, err)
			return
		}
		d.releaseDevice(p)
	}
	d.rememberEngine(err, time.Since(begun))
	d.putOff(p, err, time.Since(begun))
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
		held, other := d.portName(f.Port), d.portName(f.Other)
		if held == "" || other == "" {
			continue // A port has gone meanwhile, and the matter with it.
		}
		message := fmt.Sprintf("%s moves to and fro between ports %s and %s: held at %s for 1 s; look for a loop or a duplicate address",
			f.MAC, held, other, held)
		d.events.add(eventMACFlapping, "network "+names[f.Network], message)
		d.log.Warn("MAC flapping", zap.String("network", names[f.Network]), zap.Stringer("mac", f.MAC),
			zap.String("port", held), zap.String("other", other))
	}
}
