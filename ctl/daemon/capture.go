package daemon

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"heddle/ctl/api"
	"heddle/ctl/filter"
	"heddle/dataplane"
	"heddle/dataplane/capture"
	vswitch "heddle/switch"
)

// maxCaptures is how many captures run at a time: each has a ring for each
// worker.
const maxCaptures = 8

// captureMemory is what the rings of all captures take together at most, in
// bytes: with many workers each ring is shorter.
const captureMemory = 256 << 20

// ringBytes is how long each of a capture's rings is, a power of two.
func ringBytes(workers int) int {
	share := captureMemory / (maxCaptures * workers)
	return min(capture.DefaultRingBytes, 1<<(bits.Len(uint(share))-1))
}

// activeCapture is a capture that runs, and whose frames it takes.
type activeCapture struct {
	c                     *capture.Capture
	port, network, uplink string // One of them is set.

	mu    sync.Mutex                  // Guards names against the capture's reader.
	names map[dataplane.PortID]string // Of the ports that were ever mirrored.
}

// covers tells whether the port's frames are to be captured.
func (t *activeCapture) covers(p *port) bool {
	return t.port == p.spec.Name || t.network != "" && t.network == p.spec.Network
}

// name returns the name of a port that was mirrored.
func (t *activeCapture) name(id dataplane.PortID) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.names[id]
}

// mirrored returns the port's device with the captures that cover it around it.
// The caller holds wiring.
func (d *Daemon) mirrored(p *port) dataplane.Port {
	outer := p.dev.port()
	for _, t := range d.running {
		if t.covers(p) {
			outer = t.wrap(p.id, p.spec.Name, outer)
		}
	}
	if leadsOut(p) {
		outer = d.guarded(outer)
	}
	return outer
}

// mirroredTunnel is mirrored for a tunnel: a capture of its network shows what
// leaves by it. What comes in by it shows at the ports where it goes out. remote is
// the name of where it leads.
func (d *Daemon) mirroredTunnel(remote string, o *remoteTunnel) dataplane.Port {
	outer := dataplane.Port(o.live)
	for _, t := range d.running {
		if t.network == o.network {
			outer = t.wrap(o.id, remote, outer)
		}
	}
	return outer
}

// mirroredUplink is mirrored for an uplink.
func (d *Daemon) mirroredUplink(u *uplink) dataplane.Port {
	outer := u.dev.port()
	for _, t := range d.running {
		if t.uplink == u.spec.Name {
			outer = t.wrap(u.id, u.spec.Name, outer)
		}
	}
	return d.guarded(outer)
}

// wrap puts the capture around a port or uplink of that name.
func (t *activeCapture) wrap(id dataplane.PortID, name string, inner dataplane.Port) dataplane.Port {
	t.mu.Lock()
	t.names[id] = name
	t.mu.Unlock()
	return t.c.Wrap(id, inner)
}

// mirror puts the captures around an attached port that d.running has for it.
// When it returns, no worker is in another. The caller holds wiring.
func (d *Daemon) mirror(p *port, n *vswitch.Network) error {
	outer := d.mirrored(p)
	err := n.Swap(p.id, outer)
	if err == nil {
		err = d.engine.Swap(p.id, outer)
	}
	if err != nil {
		return fmt.Errorf("capture: port %s: %w", p.spec.Name, err)
	}
	return nil
}

// startCapture begins to capture on the ports of t, also on those of its
// network that come later. Like stopCapture it waits for no change: who ends a
// capture needn't wait until a host has answered.
func (d *Daemon) startCapture(t *activeCapture) error {
	d.wiring.Lock()
	defer d.wiring.Unlock()
	d.mu.RLock()
	port, network, uplink := d.ports[t.port], d.networks[t.network], d.uplinks[t.uplink]
	d.mu.RUnlock()
	if t.port != "" && port == nil {
		return noPort(t.port)
	}
	if t.network != "" && network == nil {
		return noNetwork(t.network)
	}
	if t.uplink != "" && uplink == nil {
		return noUplink(t.uplink)
	}
	d.running = append(slices.Clone(d.running), t)
	if err := d.mirrorAll(t); err != nil {
		return errors.Join(err, d.endCapture(t))
	}
	return nil
}

// stopCapture ends what startCapture began: nobody is in t.c any more.
func (d *Daemon) stopCapture(t *activeCapture) error {
	d.wiring.Lock()
	defer d.wiring.Unlock()
	return d.endCapture(t)
}

func (d *Daemon) endCapture(t *activeCapture) error {
	d.running = slices.DeleteFunc(slices.Clone(d.running), func(o *activeCapture) bool { return o == t })
	return d.mirrorAll(t)
}

func (d *Daemon) mirrorAll(t *activeCapture) error {
	attached := make(map[*port]*vswitch.Network)
	tunnels := make(map[*remoteTunnel]string) // With the names of where they lead: wiring doesn't keep those.
	d.mu.RLock()
	for _, r := range d.remotes {
		if o := r.tunnels[t.network]; o != nil {
			tunnels[o] = r.name
		}
	}
	network := d.networks[t.network]
	for _, p := range d.ports {
		if p.attached && t.covers(p) {
			attached[p] = d.networks[p.spec.Network].live
		}
	}
	uplink := d.uplinks[t.uplink]
	d.mu.RUnlock()
	var errs []error
	if uplink != nil && uplink.attached {
		outer := d.mirroredUplink(uplink)
		uplink.live.Swap(outer)
		if err := d.engine.Swap(uplink.id, outer); err != nil {
			errs = append(errs, fmt.Errorf("capture: uplink %s: %w", t.uplink, err))
		}
	}
	for p, n := range attached { // wiring keeps them attached.
		errs = append(errs, d.mirror(p, n))
	}
	for o, remote := range tunnels {
		errs = append(errs, network.live.Swap(o.id, d.mirroredTunnel(remote, o)))
	}
	if len(tunnels) > 0 {
		d.engine.Do(func(int) {}) // No worker is in another.
	}
	return errors.Join(errs...)
}

// captureRequest is what a client asks for.
type captureRequest struct {
	port, network string
	uplink        string
	count         uint64 // Frames after which it ends.
	snaplen       int    // Bytes of a frame that are written; 0 means all.
	expr          string
	filter        *filter.Filter
}

func parseCapture(r *http.Request) (c captureRequest, err error) {
	q, err := query(r, "port", "network", "uplink", "count", "snaplen", "filter")
	if err != nil {
		return c, err
	}
	c.port, c.network, c.uplink, c.expr = q["port"], q["network"], q["uplink"], q["filter"]
	if given := slices.DeleteFunc([]string{c.port, c.network, c.uplink}, func(s string) bool { return s == "" }); len(given) != 1 {
		return c, fail(http.StatusBadRequest, "want a port, a network or an uplink")
	}
	if s := q["count"]; s != "" {
		if c.count, err = strconv.ParseUint(s, 10, 63); err != nil {
			return c, fail(http.StatusBadRequest, "count %s: want a number of frames", printable(s))
		}
	}
	if c.count == 0 {
		c.count = math.MaxUint64
	}
	if s := q["snaplen"]; s != "" {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return c, fail(http.StatusBadRequest, "snaplen %s: want a number of bytes", printable(s))
		}
		c.snaplen = int(n)
	}
	if c.filter, err = filter.Compile(c.expr); err != nil {
		return c, fail(http.StatusBadRequest, "%w", err)
	}
	return c, nil
}

// getCapture streams what passes a port, a network or an uplink as pcapng until the
// client goes, the count is reached or swd stops. A client that stops sending
// (a half-closed connection) but goes on reading gets the rest and the
// trailers.
func (d *Daemon) getCapture(w http.ResponseWriter, r *http.Request) {
	req, err := parseCapture(r)
	if err == nil {
		select {
		case d.captures <- struct{}{}:
			defer func() { <-d.captures }()
		default:
			err = fail(http.StatusTooManyRequests, "%d captures run already", maxCaptures).withHint("end one of them")
		}
	}
	if err == nil {
		err = d.runCapture(r.Context(), w, req)
	}
	if err != nil {
		d.answerError(w, "capture", err)
	}
}

// runCapture returns an error only if nothing has been written.
func (d *Daemon) runCapture(ctx context.Context, w http.ResponseWriter, req captureRequest) error {
	snap := req.snaplen
	if snap != 0 && req.filter != nil {
		snap = max(snap, filter.Bytes)
	}
	c, err := capture.New(capture.Config{
		Workers: d.engine.Workers(), SnapLen: snap, RingBytes: ringBytes(d.engine.Workers()),
	})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	t := &activeCapture{c: c, port: req.port, network: req.network, uplink: req.uplink, names: make(map[dataplane.PortID]string)}
	if err := d.startCapture(t); err != nil {
		return err
	}
	stopped := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		c.Stop()
		close(stopped)
	})
	defer func() {
		if !cancel() {
			<-stopped // It has begun: c must not be closed under it.
		}
	}()

	w.Header().Set("Trailer", api.TrailerCaptured+", "+api.TrailerMissed)
	out := stream(w, api.TypePcapng)
	pw, err := newPcapng(d, out, t, req)
	take := func() bool {
		c.Read(func(rec capture.Record) {
			if err == nil {
				err = pw.record(rec)
			}
		})
		if err == nil {
			err = pw.flush()
		}
		return err == nil && !pw.full()
	}
	if err == nil {
		err = pw.flush() // The client learns at once that it is served.
	}
	for err == nil && c.Wait() && take() {
	}
	ended := d.stopCapture(t)
	if err == nil && !pw.full() {
		take() // What was left.
	}
	w.Header().Set(api.TrailerCaptured, strconv.FormatUint(pw.written, 10))
	w.Header().Set(api.TrailerMissed, strconv.FormatUint(c.Missed(), 10))
	if err = errors.Join(ended, err); err != nil {
		panic(http.ErrAbortHandler) // The file isn't whole.
	}
	_ = out.Flush() // Gives the trailers time of their own: the last frame may be long ago.
	return nil
}
