package daemon

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"heddle/ctl/api"
	"heddle/ctl/attach"
	"heddle/ctl/config"
	"heddle/dataplane"
	"heddle/nat"
)

// uplink is a live uplink. Daemon.mu guards its fields as it does a port's.
type uplink struct {
	id   dataplane.PortID
	spec config.Uplink // As asked for.

	watch uplinkWatch
	seen  atomic.Pointer[attach.UplinkState] // The newest state of the interface.
	done  sync.WaitGroup                     // Who writes seen.

	live  *nat.Uplink // It has nowhere as its port while it isn't attached.
	state attach.UplinkState

	dev      uplinkDevice // Nil while it can't be opened.
	attached bool
	down     error // Why it isn't attached; nil if it is.
	fault    error // Why it isn't as its interface is now; nil if it is.
	since    time.Time
	wait     time.Duration
	retry    time.Time

	carried dataplane.Totals
}

// want returns the spec with its defaults.
func (u *uplink) want() config.Uplink { return u.spec.WithDefaults() }

func (u *uplink) shared() bool { return u.want().Mode == config.ModeShared }

// nowhere is the port of an uplink whose interface can't be used.
type nowhere struct{ counters *dataplane.Counters }

func (n nowhere) Pull(*dataplane.Batch)         {}
func (n nowhere) FD(int) int                    { return -1 }
func (n nowhere) Counters() *dataplane.Counters { return n.counters }
func (n nowhere) Close() error                  { return nil }

// Push counts what can't go out.
func (n nowhere) Push(b *dataplane.Batch) {
	frames := 0
	for s := b.Sel; s != 0; s &= s - 1 {
		frames++
	}
	n.counters.Drop(b.Worker, dataplane.TxDown, frames)
}

// AddUplink makes an uplink, whole or not at all.
func (d *Daemon) AddUplink(spec config.Uplink) error {
	d.change.Lock()
	defer d.change.Unlock()
	if err := spec.Validate(); err != nil {
		return err
	}
	if d.uplinks[spec.Name] != nil {
		return fail(http.StatusConflict, "it exists").withHint("change it with swctl apply, or remove it first")
	}
	if err := d.validateWith(config.Config{Uplinks: []config.Uplink{spec}}); err != nil {
		return err
	}
	if err := d.makeUplink(spec, failWhole); err != nil {
		return err
	}
	if err := d.save(); err != nil {
		return errors.Join(err, d.dropUplink(d.uplinks[spec.Name]))
	}
	d.note(eventUplinkAdded, "uplink "+spec.Name, "added on interface "+spec.Interface)
	return nil
}

// RemoveUplink removes an uplink that no NAT uses.
func (d *Daemon) RemoveUplink(name string) error {
	d.change.Lock()
	defer d.change.Unlock()
	u := d.uplinks[name]
	if u == nil {
		return noUplink(name)
	}
	if err := d.unused(func(r *natRule) bool { return r.spec.Uplink == name }); err != nil {
		return err
	}
	c := d.export()
	c.Uplinks = slices.DeleteFunc(c.Uplinks, func(o config.Uplink) bool { return o.Name == name })
	if err := d.state.save(c); err != nil {
		return err
	}
	err := d.dropUplink(u)
	d.note(eventUplinkRemoved, "uplink "+name, "removed from interface "+u.spec.Interface)
	if err != nil {
		return fail(http.StatusUnprocessableEntity, "the uplink is removed, but on the host something is left of it: %w", err)
	}
	return nil
}

func noUplink(name string) *failure {
	return fail(http.StatusNotFound, "there is no uplink %s", printable(name)).withHint("swctl uplink ls lists them")
}

// makeUplink makes an uplink that has been checked. The caller holds change.
func (d *Daemon) makeUplink(spec config.Uplink, on onFailure) error {
	u := &uplink{spec: spec, since: time.Now()}
	var err error
	if u.id, err = d.freeID(); err != nil {
		return err
	}
	if u.watch, err = d.host.watchUplink(spec.Interface); err != nil {
		return fail(http.StatusUnprocessableEntity, "%w", err)
	}
	u.state = <-u.watch.States()
	first := u.state
	u.seen.Store(&first)
	err = d.openUplink(u)
	switch {
	case err == nil:
		err = d.workUplink(u)
	case on == failWhole:
		return errors.Join(uplinkFailure(err), d.closeUplink(u), u.watch.Close())
	}
	u.done.Go(func() {
		for s := range u.watch.States() {
			u.seen.Store(&s)
			select {
			case d.stirred <- struct{}{}:
			default: // One value waits already, and stands for all.
			}
		}
	})
	d.mu.Lock()
	d.uplinks[spec.Name], d.inside[u.id] = u, true
	u.down = err
	if u.dev == nil {
		u.retry = time.Now().Add(u.nextWait())
	}
	d.mu.Unlock()
	if err != nil {
		d.noteUplink(u, err)
	}
	return nil
}

// uplinkFailure says in the API's terms why there can't be an uplink.
func uplinkFailure(err error) error {
	switch {
	case errors.Is(err, attach.ErrPortInUse), errors.Is(err, attach.ErrTaken), errors.Is(err, nat.ErrInUse), errors.Is(err, nat.ErrFull):
		return fail(http.StatusConflict, "%w", err)
	case errors.Is(err, attach.ErrNoLink):
		return fail(http.StatusUnprocessableEntity, "%w", err).withHint("ip link lists the interfaces")
	}
	return hostFailure(err)
}

// openUplink makes NAT's uplink and opens the interface. What was done when it
// fails stays for another try, or for closeUplink.
func (d *Daemon) openUplink(u *uplink) error {
	if u.live == nil {
		live, err := d.nat.AddUplink(d.uplinkConfig(u, &u.state, nowhere{dataplane.NewCounters(d.engine.Workers())}))
		if err != nil {
			return err
		}
		d.mu.Lock()
		u.live = live
		d.mu.Unlock()
	}
	if u.dev == nil {
		dev, err := d.host.openUplink(uplinkOrder{
			name: u.spec.Name, ifName: u.spec.Interface, shared: u.shared(), claim: d.claim(u), workers: d.engine.Workers(),
		})
		if err != nil {
			return err
		}
		d.mu.Lock()
		u.dev = dev
		d.mu.Unlock()
	}
	return nil
}

// workUplink attaches an uplink whose interface works, and returns why it
// doesn't if it doesn't.
func (d *Daemon) workUplink(u *uplink) error {
	err := u.dev.check()
	if err == nil && !u.state.Up {
		err = fmt.Errorf("interface %s is down or has no carrier", u.spec.Interface)
	}
	if err == nil && !u.attached {
		err = d.attachUplink(u)
	}
	return err
}

// attachUplink gives the interface to the engine and to NAT.
func (d *Daemon) attachUplink(u *uplink) error {
	d.wiring.Lock()
	defer d.wiring.Unlock()
	outer := d.mirroredUplink(u)
	u.live.Swap(outer)
	if err := d.engine.Attach(u.id, outer, u.live); err != nil {
		u.live.Swap(nowhere{dataplane.NewCounters(d.engine.Workers())})
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	u.attached, u.down = true, nil
	return nil
}

// detachUplink is the other way round: no worker is in the device afterwards.
func (d *Daemon) detachUplink(u *uplink) {
	if !u.attached {
		return
	}
	d.wiring.Lock()
	defer d.wiring.Unlock()
	dark := nowhere{dataplane.NewCounters(d.engine.Workers())}
	u.live.Swap(dark)
	d.engine.Detach(u.id)
	d.mu.Lock()
	defer d.mu.Unlock()
	u.attached = false
}

// releaseUplink gives the device back.
func (d *Daemon) releaseUplink(u *uplink) error {
	d.detachUplink(u)
	if u.dev == nil {
		return nil
	}
	t := u.dev.port().Counters().Totals()
	err := u.dev.release()
	d.mu.Lock()
	defer d.mu.Unlock()
	addTotals(&u.carried, &t)
	u.dev, u.wait, u.retry = nil, 0, time.Time{}
	return err
}

// closeUplink undoes openUplink, whole or in part.
func (d *Daemon) closeUplink(u *uplink) error {
	err := d.releaseUplink(u)
	if u.live == nil {
		return err
	}
	live := u.live
	d.removeCore(func(k coreRule) bool { return k.uplink == live })
	err = errors.Join(err, d.nat.RemoveUplink(live))
	d.engine.Do(func(int) {}) // No worker is in it any more.
	d.mu.Lock()
	defer d.mu.Unlock()
	u.live = nil
	return err
}

// dropUplink ends an uplink. The error says what is left on the host of it; the
// uplink is gone in any case. The caller holds change.
func (d *Daemon) dropUplink(u *uplink) error {
	err := errors.Join(d.closeUplink(u), u.watch.Close())
	u.done.Wait()
	d.mu.Lock()
	addDrops(&d.retired, &u.carried)
	delete(d.uplinks, u.spec.Name)
	d.inside[u.id] = false
	d.mu.Unlock()
	d.settleStack(false)
	return err
}

// Uplinks returns all uplinks, by name.
func (d *Daemon) Uplinks() []api.Uplink {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make([]api.Uplink, 0, len(d.uplinks))
	for _, u := range d.uplinks {
		all = append(all, d.viewUplink(u))
	}
	slices.SortFunc(all, func(a, b api.Uplink) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Uplink returns one uplink.
func (d *Daemon) Uplink(name string) (api.Uplink, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	u := d.uplinks[name]
	if u == nil {
		return api.Uplink{}, noUplink(name)
	}
	return d.viewUplink(u), nil
}

func (d *Daemon) viewUplink(u *uplink) api.Uplink {
	spec, t := u.want(), u.totals()
	v := api.Uplink{
		Name: spec.Name, Interface: spec.Interface, Mode: spec.Mode,
		State: api.StateUp, Addresses: []string{}, NextHops: []api.NextHop{}, Ports: spec.Ports,
		RxFrames: t.RxFrames, RxBytes: t.RxBytes, TxFrames: t.TxFrames, TxBytes: t.TxBytes,
		Drops: make(map[string]uint64),
	}
	if why := u.trouble(); why != nil {
		v.State, v.Reason = api.StateDown, why.Error()
	}
	for i, n := range t.Drops {
		if n > 0 {
			v.Drops[dataplane.Drop(i).String()] = n
		}
	}
	if u.live == nil {
		return v
	}
	c := u.live.Config()
	v.MAC, v.MTU = c.MAC.String(), c.MTU
	for _, a := range c.Addresses {
		v.Addresses = append(v.Addresses, a.String())
	}
	for _, h := range u.live.NextHops(d.now()) {
		hop := api.NextHop{Address: h.Addr.String(), State: h.State.String()}
		if h.State != nat.Incomplete {
			hop.MAC = h.MAC.String()
		}
		v.NextHops = append(v.NextHops, hop)
	}
	return v
}

// trouble returns why an uplink is down, nil if it is up.
func (u *uplink) trouble() error { return errors.Join(u.down, u.fault) }

// totals returns the uplink's counts over all its devices. The caller holds mu.
func (u *uplink) totals() dataplane.Totals {
	t := u.carried
	if u.dev != nil {
		now := u.dev.port().Counters().Totals()
		addTotals(&t, &now)
	}
	return t
}

// nextWait doubles the time between tries.
func (u *uplink) nextWait() time.Duration {
	u.wait = min(max(2*u.wait, firstRetry), longestRetry)
	return u.wait
}

func (d *Daemon) postUplink(r *http.Request) (any, error) {
	var spec config.Uplink
	if err := body(r, maxBody, &spec); err != nil {
		return nil, err
	}
	if err := d.AddUplink(spec); err != nil {
		return nil, about(printable(spec.Name), err)
	}
	return orError(d.Uplink(spec.Name))
}
