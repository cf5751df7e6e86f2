package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"heddle/ctl/attach"
	"heddle/ctl/config"
	"heddle/ctl/proxy"
	"heddle/dataplane"
	"heddle/dataplane/packet"
	"heddle/dataplane/tap"
)

// usableTimeout bounds how long a new interface may take until frames pass.
const usableTimeout = 5 * time.Second

// machine is the host that swd runs on.
type machine struct {
	log     *zap.Logger
	own     *attach.Namespace
	watcher *attach.Watcher
	links   linkTable
	proxy   *proxy.Proxy
	rings   *tap.Rings                     // Of TAP ports; nil without io_uring.
	claimed func(port, ifName string) bool // Nil sweeps nothing.
	swept   map[attach.ID]bool             // Namespaces; the daemon calls open and sweep one at a time.
	done    sync.WaitGroup
	// before is called ahead of each step that makes something; tests have it
	// fail, to see that nothing is left. Nil does nothing.
	before func(step string) error
}

// step runs one step of making a device.
func (m *machine) step(name string, do func() error) error {
	if m.before != nil {
		if err := m.before(name); err != nil {
			return err
		}
	}
	return do()
}

// openMachine starts to watch the namespace that swd runs in.
func openMachine(log *zap.Logger) (*machine, error) {
	own, err := attach.Own()
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	w, err := attach.Watch(own)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("host: %w", err), own.Close())
	}
	m := &machine{log: log, own: own, watcher: w, proxy: proxy.New(proxy.Config{Host: own}), swept: make(map[attach.ID]bool)}
	m.links.init()
	m.done.Go(func() {
		for e := range w.Events() {
			m.links.note(e)
		}
	})
	return m, nil
}

func (m *machine) changes() <-chan struct{} { return m.links.changes }

func (m *machine) changed() (ports []string, all bool) { return m.links.changed() }

func (m *machine) close() error {
	err := m.watcher.Close()
	m.done.Wait()
	return errors.Join(err, m.rings.Close(), m.own.Close())
}

// namespace opens the one that the spec names. A port without any is in swd's
// own, opened anew so that every device can close its own handle.
func (m *machine) namespace(ctx context.Context, p *config.Port) (ns *attach.Namespace, err error) {
	switch {
	case p.NetNS != "":
		ns, err = attach.ByPath(p.NetNS)
	case p.PID != 0:
		ns, err = attach.ByPID(p.PID)
	case p.Container != "":
		ns, err = attach.ByContainer(ctx, p.Container)
	default:
		err = m.own.Do(func() error {
			ns, err = attach.Own()
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	// What names a container must not lead here, where the port would change
	// the host's own addresses and routes: not the path of the host's
	// namespace, not the number that a later process of the host has now.
	if at := located(p); at != "" && ns.Same(m.own) {
		return nil, errors.Join(fmt.Errorf("%s: %w: leave --%s out for a host port", ns, errOwn, at), ns.Close())
	}
	return ns, nil
}

// errOwn is returned where a spec that names a container's namespace leads to
// swd's.
var errOwn = errors.New("it is swd's own namespace")

// located returns which of the spec's fields names a namespace, empty if none.
func located(p *config.Port) string {
	switch {
	case p.NetNS != "":
		return "netns"
	case p.PID != 0:
		return "pid"
	case p.Container != "":
		return "container"
	}
	return ""
}

// link is a device of this machine.
type link struct {
	m        *machine
	name     string // The port's.
	p        faulty
	f        facts
	mtu      int               // The network's.
	index    int               // The interface's number in ns.
	want     attach.Interface  // What configure has set; without a name for a borrowed one.
	wentDown atomic.Bool       // Its link was set down, and it wasn't configured again since.
	lost     atomic.Uint64     // Frames that the kernel dropped by the last sample.
	outer    string            // The host's end of a veth pair.
	ns       *attach.Namespace // Where the interface is.
	silence  io.Closer         // Keeps the host's stack off; nil where it isn't kept off.
	offloads io.Closer         // Keeps offloads off; nil where they are as they were.
	destroy  func() error      // Removes the interface; nil for one that isn't Heddle's.
	made     bool              // This swd made the interface, rather than to take it over.
	borrowed bool              // A packet port's interface: swd sets no MAC, MTU or addresses.
}

// faulty is a port that can tell why it carries no frames.
type faulty interface {
	dataplane.Port
	Fault() error
}

func (l *link) port() dataplane.Port { return l.p }
func (l *link) facts() facts         { return l.f }

func (l *link) namespace() *attach.Namespace {
	if l.ns.Same(l.m.own) {
		return nil
	}
	return l.ns
}

func (l *link) dropped() uint64 { return l.lost.Load() }

func (l *link) sample() {
	if t, ok := l.p.(*tap.Port); ok { // A packet port counts them itself.
		t.Refresh()
		l.lost.Store(t.Dropped())
	}
}

func (l *link) check() error {
	if err := l.ns.Alive(); err != nil {
		return goneError{err}
	}
	err := verdict(l.p.Fault())
	if !errors.Is(err, errGone) {
		l.refresh()
	}
	return err
}

// verdict returns what a port's Fault says as a device's check says it.
func verdict(fault error) error {
	for _, end := range []error{packet.ErrGone, packet.ErrStuck, tap.ErrGone, net.ErrClosed} {
		if errors.Is(fault, end) {
			return goneError{fault}
		}
	}
	return fault
}

// calm implements device: the link's name, MAC and MTU are left out, because they
// don't change without an event, and to ask for them takes a thread that enters
// the namespace.
func (l *link) calm() bool {
	return l.ns.Alive() == nil && l.p.Fault() == nil && (l.borrowed || !l.wentDown.Load())
}

// refresh looks at what others may have changed of the interface: its name and,
// of one that isn't Heddle's, its MAC and MTU.
func (l *link) refresh() {
	info, err := l.ns.LinkAt(l.index)
	if err != nil {
		return // The next check tells.
	}
	l.f.ifName = info.Name
	if l.borrowed {
		l.f.mac, l.f.mtu = info.MAC.String(), min(l.mtu, info.MTU)
	}
}

// release removes the interface if what its namespace was named by leads there
// no more: nobody could find it to take it over or to remove it, and the
// namespace may live on.
func (l *link) release() error {
	var err error
	if lost := l.ns.Alive(); errors.Is(lost, attach.ErrNoNamespace) || errors.Is(lost, attach.ErrMoved) {
		err = l.wipe()
	}
	return errors.Join(err, l.letGo(), l.ns.Close())
}

func (l *link) remove() error { return errors.Join(l.wipe(), l.letGo(), l.ns.Close()) }

// letGo gives back what the process holds, but for the namespace.
func (l *link) letGo() error {
	l.m.links.remove(l)
	var errs []error
	if l.p != nil {
		errs = append(errs, l.p.Close())
	}
	if l.offloads != nil {
		errs = append(errs, l.offloads.Close())
	}
	if l.silence != nil {
		errs = append(errs, l.silence.Close())
	}
	return errors.Join(errs...)
}

// wipe removes the interface if it is Heddle's.
func (l *link) wipe() error {
	if l.destroy == nil {
		return nil
	}
	if err := l.destroy(); !absent(err) {
		return err
	}
	return nil
}

// undo takes back an open that failed: an interface that was taken over stays
// as it was found.
func (l *link) undo() error {
	var err error
	if l.made {
		err = l.wipe()
	}
	return errors.Join(err, l.letGo())
}

// absent tells whether an error says that what is to be removed isn't there.
func absent(err error) bool {
	return err == nil || errors.Is(err, attach.ErrNoLink) || errors.Is(err, attach.ErrNoNamespace) ||
		errors.Is(err, attach.ErrNoContainer) || errors.Is(err, attach.ErrNotRunning) || errors.Is(err, attach.ErrMoved)
}

// open implements host.
func (m *machine) open(ctx context.Context, o order) (device, error) {
	ns, err := m.namespace(ctx, &o.spec)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, usableTimeout)
	defer cancel()
	m.sweepOnce(ns, &o.spec)
	l := &link{m: m, ns: ns, name: o.spec.Name, mtu: o.mtu, borrowed: o.spec.Kind == config.KindPacket}
	switch o.spec.Kind {
	case config.KindTAP:
		err = l.openTAP(ctx, o)
	case config.KindVeth:
		err = l.openVeth(ctx, o)
	case config.KindPacket:
		err = l.openPacket(o)
	default:
		err = fmt.Errorf("kind %q: unknown", o.spec.Kind)
	}
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	err = m.step("follow", func() error { return m.watcher.Follow(ns) })
	if err == nil {
		err = m.links.add(l)
	}
	if err != nil {
		return nil, errors.Join(err, l.undo(), ns.Close())
	}
	return l, nil
}

// reach implements host.
func (m *machine) reach(ctx context.Context, p *config.Port) error {
	if located(p) == "" {
		return nil
	}
	ns, err := m.namespace(ctx, p)
	if err != nil {
		return err
	}
	return ns.Close()
}

// probe implements host.
func (m *machine) probe(ctx context.Context, p *config.Port) error {
	ns, err := m.namespace(ctx, p)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	if p.Kind == config.KindPacket {
		_, err := ns.Free(p.Interface)
		return err
	}
	was, err := ns.Link(p.IfName)
	if errors.Is(err, attach.ErrNoLink) {
		return nil
	}
	if err != nil {
		return err
	}
	if port, ours := was.Port(); ours && port == p.Name || was.Alias == "" && was.Kind == "tun" && p.Kind == config.KindTAP {
		return nil
	}
	return fmt.Errorf("%s: interface %s: %w", ns, p.IfName, attach.ErrLinkExists)
}

// sweep implements host.
func (m *machine) sweep(claimed func(port, ifName string) bool) {
	m.claimed = claimed
	m.sweepOnce(m.own, &config.Port{})
}

// sweepOnce sweeps a namespace that hasn't been swept. The port opening, which
// is about to be opened there, claims its interfaces too.
func (m *machine) sweepOnce(ns *attach.Namespace, opening *config.Port) {
	if m.claimed == nil || m.swept[ns.ID()] {
		return
	}
	m.swept[ns.ID()] = true
	ours, err := ns.Owned()
	if err != nil {
		m.log.Warn("can't look for interfaces that a killed swd left", zap.Stringer("namespace", ns), zap.Error(err))
	}
	for _, l := range ours {
		port, _ := l.Port()
		if port == opening.Name && hasLink(opening, l.Name) || m.claimed(port, l.Name) {
			continue
		}
		err := ns.Delete(l.Name, port)
		switch {
		case err == nil:
			m.log.Info("removed an interface that a killed swd left", zap.Stringer("namespace", ns), zap.String("interface", l.Name), zap.String("port", port))
		case !absent(err) && !errors.Is(err, attach.ErrTaken): // Another swd's is its own.
			m.log.Warn("can't remove an interface that a killed swd left", zap.Stringer("namespace", ns), zap.String("interface", l.Name), zap.Error(err))
		}
	}
}

// hasLink tells whether the port has an interface of that name, in whichever
// namespace.
func hasLink(p *config.Port, ifName string) bool {
	return p.WithDefaults().IfName == ifName || p.Kind == config.KindVeth && attach.HostName(p.Name) == ifName
}

// discard implements host.
func (m *machine) discard(ctx context.Context, o order) error {
	name, port := o.spec.IfName, o.spec.Name
	if o.spec.Kind == config.KindPacket {
		return m.own.Unsilence(o.spec.Interface)
	}
	if o.spec.Kind == config.KindVeth {
		// The other end goes with it. It alone may be that of a running swd's.
		if err := m.own.Delete(attach.HostName(port), port); !absent(err) && !errors.Is(err, attach.ErrTaken) {
			return err
		}
		return nil
	}
	ns, err := m.namespace(ctx, &o.spec)
	if err != nil {
		if absent(err) || errors.Is(err, attach.ErrNoEngine) || errors.Is(err, errOwn) {
			return nil
		}
		return err
	}
	defer func() { _ = ns.Close() }()
	if err := ns.Delete(name, port); !absent(err) && !errors.Is(err, attach.ErrTaken) {
		return err
	}
	return nil
}
