package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"heddle/ctl/attach"
)

// MaxPorts bounds the ports that a Proxy holds, each address counted.
const MaxPorts = 16384

// ErrFull is what Publish fails with when there would be more than MaxPorts.
var ErrFull = errors.New("too many published ports")

// Config is what a Proxy is made from. Zero means the default.
type Config struct {
	// Host is the namespace whose programs reach the publications. It must
	// stay open until Close.
	Host *attach.Namespace
	// MaxSessions bounds TCP connections and UDP clients together, 1024 by
	// default. When there are as many, new ones are refused.
	MaxSessions int
	Timeouts    Timeouts
}

// Timeouts say when a session ends by itself. NAT's for outside clients are the
// same (RFC 5382 REQ-5, RFC 4787 REQ-5).
type Timeouts struct {
	Dial       time.Duration // 5 s for the container to accept.
	Idle       time.Duration // 7,440 s: TCP without data either way.
	HalfClosed time.Duration // 240 s: the same, once one side has finished.
	UDP        time.Duration // 300 s without a datagram either way.
	UDPOneWay  time.Duration // 30 s: nobody answered yet.
}

var defaultTimeouts = Timeouts{
	Dial:       5 * time.Second,
	Idle:       7440 * time.Second,
	HalfClosed: 240 * time.Second,
	UDP:        300 * time.Second,
	UDPOneWay:  30 * time.Second,
}

func (t *Timeouts) fill() {
	for _, v := range []struct {
		to   *time.Duration
		from time.Duration
	}{
		{&t.Dial, defaultTimeouts.Dial},
		{&t.Idle, defaultTimeouts.Idle},
		{&t.HalfClosed, defaultTimeouts.HalfClosed},
		{&t.UDP, defaultTimeouts.UDP},
		{&t.UDPOneWay, defaultTimeouts.UDPOneWay},
	} {
		if *v.to == 0 {
			*v.to = v.from
		}
	}
}

// Proxy holds the published ports of a host.
type Proxy struct {
	config   Config
	sessions chan struct{} // Holds one for each session there is.

	mu    sync.Mutex // Held while ports are bound.
	ports int        // At most MaxPorts.
	held  map[heldKey]*held
}

// New returns a Proxy that holds nothing.
func New(c Config) *Proxy {
	if c.MaxSessions == 0 {
		c.MaxSessions = 1024
	}
	c.Timeouts.fill()
	return &Proxy{config: c, sessions: make(chan struct{}, c.MaxSessions), held: make(map[heldKey]*held)}
}

// Publication is what is to be reachable.
type Publication struct {
	Proto uint8 // unix.IPPROTO_TCP, IPPROTO_UDP or IPPROTO_SCTP.
	// Addrs are the host's addresses, its own ones or 127.0.0.1; none means all
	// of both families.
	Addrs []netip.Addr
	Ports attach.PortRange
}

// Target is where a publication leads.
type Target struct {
	// Namespace is the container's: connections are made from inside it, and so
	// come from its own address. It may be closed at any time, which makes new
	// sessions fail.
	Namespace *attach.Namespace
	Addr      netip.Addr
	First     uint16 // The port that the publication's first leads to; the others follow.
}

// Stats are counts since Publish.
type Stats struct {
	Open     int64  // Sessions there are.
	Sessions uint64 // Sessions there have been.
	Refused  uint64 // For want of room: Config.MaxSessions.
	Failed   uint64 // The container didn't accept, or there is no target.
}

// Listener is a publication that is held.
type Listener struct {
	proxy  *Proxy
	pub    Publication
	ports  int
	target atomic.Pointer[Target]
	home   atomic.Pointer[[]netip.Addr]
	life   context.Context // Ends with Close.
	cancel context.CancelFunc
	done   sync.WaitGroup // Its sessions.

	open                      atomic.Int64
	sessions, refused, failed atomic.Uint64

	mu      sync.Mutex // Guards what follows.
	carried map[session]struct{}
	ended   bool
}

// session is a connection or client that is carried.
type session interface {
	// end makes it end soon.
	end()
}

// Publish holds the ports and starts to carry, all or nothing; until SetTarget
// sessions fail. It fails with attach.ErrPortInUse, naming what uses one, if
// the host does, and with ErrFull.
//
// Several publications may have a port. A session is for the one that names the
// address that it came to; else for one of all addresses: that whose home it is,
// then that with the narrower range, then the earlier.
func (p *Proxy) Publish(pub Publication) (*Listener, error) {
	r := pub.Ports
	if r.First == 0 || r.First > r.Last {
		return nil, fmt.Errorf("publish ports %s: want 1-65535 or a part of it", r)
	}
	l := &Listener{
		proxy: p, pub: pub, ports: (int(r.Last-r.First) + 1) * max(1, len(pub.Addrs)), carried: make(map[session]struct{}),
	}
	l.life, l.cancel = context.WithCancel(context.Background())
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ports+l.ports > MaxPorts {
		return nil, fmt.Errorf("publish ports %s: %w: the host's own programs can reach %d at most, and %d are there", r, ErrFull, MaxPorts, p.ports)
	}
	port := int(r.First)
	err := p.config.Host.Do(func() (err error) {
		for ; port <= int(r.Last) && err == nil; port++ {
			err = p.hold(heldKey{pub.Proto, uint16(port)}, claim{l, port - int(r.First)})
		}
		return err
	})
	if err != nil {
		l.cancel()
		return nil, errors.Join(fmt.Errorf("publish port %w", err), l.letGo(port-1))
	}
	p.ports += l.ports
	return l, nil
}

// letGo gives back the ports up to last. The caller holds Proxy.mu.
func (l *Listener) letGo(last int) error {
	var errs []error
	for port := int(l.pub.Ports.First); port <= last; port++ {
		errs = append(errs, l.proxy.release(heldKey{l.pub.Proto, uint16(port)}, l))
	}
	return errors.Join(errs...)
}

// SetHome says which addresses of the host's are its uplink's: there it comes
// before publications of others for all addresses.
func (l *Listener) SetHome(addrs []netip.Addr) {
	home := slices.Clone(addrs)
	l.home.Store(&home)
}

// SetTarget changes where the publication leads; nil is nowhere. Sessions that
// are there go on; see Flush.
func (l *Listener) SetTarget(t *Target) { l.target.Store(t) }

// Stats returns the counts.
func (l *Listener) Stats() Stats {
	return Stats{Open: l.open.Load(), Sessions: l.sessions.Load(), Refused: l.refused.Load(), Failed: l.failed.Load()}
}

// Flush ends the sessions that are there.
func (l *Listener) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.carried {
		s.end()
	}
}

// Close gives the ports back and ends the sessions, and waits until they have.
// It can be repeated.
func (l *Listener) Close() error {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return nil
	}
	l.ended = true
	l.cancel()
	l.mu.Unlock()
	p := l.proxy
	p.mu.Lock()
	err := l.letGo(int(l.pub.Ports.Last))
	p.ports -= l.ports
	p.mu.Unlock()
	l.Flush()
	l.done.Wait()
	return err
}

// begin runs a session in a goroutine that Close waits for; false after Close.
func (l *Listener) begin(session func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.done.Go(session)
	}
	return !l.ended
}

// admit takes room for a session; false if there is none.
func (l *Listener) admit() bool {
	select {
	case l.proxy.sessions <- struct{}{}:
		l.open.Add(1)
		l.sessions.Add(1)
		return true
	default:
		l.refused.Add(1)
		return false
	}
}

// leave gives the room back: there is room for what Stats doesn't show any more.
func (l *Listener) leave() {
	<-l.proxy.sessions
	l.open.Add(-1)
}

// add makes a session known to Flush and Close; false after Close.
func (l *Listener) add(s session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.carried[s] = struct{}{}
	}
	return !l.ended
}

func (l *Listener) remove(s session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.carried, s)
}

// errNoTarget: a publication leads nowhere at present.
var errNoTarget = errors.New("no target")

// dial connects to the target of the publication's port number offset, from
// inside its namespace.
func (l *Listener) dial(network string, offset int) (c net.Conn, err error) {
	t := l.target.Load()
	if t == nil || int(t.First)+offset > 1<<16-1 {
		return nil, errNoTarget
	}
	ctx, cancel := context.WithTimeout(l.life, l.proxy.config.Timeouts.Dial)
	defer cancel()
	address := net.JoinHostPort(t.Addr.String(), strconv.Itoa(int(t.First)+offset))
	err = t.Namespace.Do(func() error {
		var d net.Dialer
		// An address without a name is dialled on this thread.
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}
