package vswitch

import (
	"fmt"
	"testing"
	"time"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// fakePort notes what it is told to push.
type fakePort struct {
	id       dataplane.PortID
	counters *dataplane.Counters
	got      []string // Payloads, in order.
	pushes   int
	onPush   func(*dataplane.Batch)
}

func (p *fakePort) Pull(*dataplane.Batch)         {}
func (p *fakePort) FD(int) int                    { return -1 }
func (p *fakePort) Counters() *dataplane.Counters { return p.counters }
func (p *fakePort) Close() error                  { return nil }
func (p *fakePort) drops(d dataplane.Drop) uint64 { return p.counters.Totals().Drops[d] }
func (p *fakePort) allDrops() (n uint64) {
	for _, c := range p.counters.Totals().Drops {
		n += c
	}
	return n
}

func (p *fakePort) Push(b *dataplane.Batch) {
	p.pushes++
	for s := b.Sel; s != 0; s &= s - 1 {
		f := &b.Frames[dataplane.First(s)]
		p.got = append(p.got, string(f.Bytes()[min(wire.EthHdrLen, f.Len):]))
	}
	if p.onPush != nil {
		p.onPush(b)
	}
}

// take returns what the port was given since the last call.
func (p *fakePort) take() []string {
	got := p.got
	p.got = nil
	return got
}

// lab is a switch with one network and fake ports 1 to n.
type lab struct {
	t   testing.TB
	sw  *Switch
	net *Network
	p   map[dataplane.PortID]*fakePort
	top dataplane.PortID // The highest in p.
	now time.Duration
}

func newLab(t testing.TB, maxMACs int, c NetworkConfig, rolesOf ...Role) *lab {
	t.Helper()
	l := &lab{t: t, sw: New(1, maxMACs), p: map[dataplane.PortID]*fakePort{}}
	l.net = l.network(c)
	for i, r := range rolesOf {
		l.attach(l.net, dataplane.PortID(i+1), PortConfig{Role: r})
	}
	return l
}

func (l *lab) network(c NetworkConfig) *Network {
	l.t.Helper()
	n, err := l.sw.AddNetwork(c)
	l.must(err)
	return n
}

func (l *lab) attach(n *Network, id dataplane.PortID, c PortConfig) *fakePort {
	l.t.Helper()
	p := &fakePort{id: id, counters: dataplane.NewCounters(len(l.sw.workers))}
	l.must(n.Attach(id, p, c))
	l.p[id] = p
	l.top = max(l.top, id)
	return p
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// batch makes a batch of the frames.
func (l *lab) batch(in dataplane.PortID, frames ...[]byte) *dataplane.Batch {
	b := &dataplane.Batch{In: in, Now: int64(l.now)}
	for _, data := range frames {
		f := b.Next()
		f.Buf = make([]byte, dataplane.Headroom+len(data))
		f.Off, f.Len = dataplane.Headroom, len(data)
		copy(f.Bytes(), data)
		b.Add()
	}
	return b
}

// send pushes one frame into the lab's network and returns who got it.
func (l *lab) send(in dataplane.PortID, dst, src wire.MAC) []dataplane.PortID {
	return l.sendTo(l.net, in, frame(dst, src, "x"))
}

func (l *lab) sendTo(n *Network, in dataplane.PortID, f []byte) (got []dataplane.PortID) {
	n.Push(l.batch(in, f))
	for id := range l.top + 1 {
		if p := l.p[id]; p != nil {
			for range p.take() {
				got = append(got, id)
			}
		}
	}
	return got
}

// frame makes a frame of an experimental EtherType.
func frame(dst, src wire.MAC, payload string) []byte {
	return append(header(dst, src, 0x88b5), payload...)
}

func header(dst, src wire.MAC, etherType uint16) []byte {
	h := make([]byte, wire.EthHdrLen)
	dst.Put(h)
	src.Put(h[wire.EthSrc:])
	h[12], h[13] = byte(etherType>>8), byte(etherType)
	return h
}

// mac is the address of station i.
func mac(i int) wire.MAC { return wire.MAC(0x020000000000 + i) }

func ids(p ...dataplane.PortID) []dataplane.PortID { return p }

func expect[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s: got %v, want %v", what, g, w)
	}
}
