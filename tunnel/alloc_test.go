package tunnel

import (
	"net/netip"
	"testing"

	"heddle/dataplane"
	"heddle/dataplane/mem"
	"heddle/dataplane/wire"
	"heddle/tunnel/underlay"
)

// still is an underlay that sends nothing, and gives the same datagrams again
// and again.
type still struct {
	memUnderlay
	in       []underlay.Datagram
	pristine [][]byte
	restore  bool
}

func (u *still) Send(_ int, msgs []underlay.Message) {
	for i := range msgs {
		msgs[i].Drop = dataplane.None
	}
}

func (u *still) Recv(int) ([]underlay.Datagram, bool) {
	if u.restore {
		for i := range u.in {
			copy(u.in[i].Buf[u.in[i].Off:], u.pristine[i])
		}
	}
	return u.in, false
}

// give adds what a message of these frames would be on receipt.
func (u *still) give(frames ...dataplane.Frame) {
	d := underlay.Datagram{Buf: make([]byte, dataplane.Headroom+2*dataplane.MaxFrame), Off: dataplane.Headroom, Src: underlay.AddrOf(netip.MustParseAddrPort("192.0.2.2:50000"))}
	for _, f := range frames {
		at := d.Buf[d.Off+d.Len:]
		(*wire.VXLANHeader)(at).Init(42)
		d.Len += wire.VXLANHdrLen + copy(at[wire.VXLANHdrLen:], f.Bytes())
		d.SegSize = max(d.SegSize, wire.VXLANHdrLen+f.Len)
	}
	u.in = append(u.in, d)
	u.pristine = append(u.pristine, append([]byte(nil), d.Buf[d.Off:d.Off+d.Len]...))
	u.restore = true
}

// drain is a network that takes everything.
type drain struct{ frames int }

func (d *drain) Push(b *dataplane.Batch) { d.frames += selected(b) }

func newStill(t testing.TB) (*site, *still, *Tunnel, *drain) {
	u := &still{memUnderlay: memUnderlay{net: newInternet(), local: netip.MustParseAddrPort("192.0.2.1:4789")}}
	v, err := New(Config{Workers: 1, Underlay: u})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, v: v, now: 1}
	d := &drain{}
	return s, u, s.tunnel(s.peer("b", "192.0.2.2"), 42, 5, d), d
}

// segmentsOf is the wire frames of a super-frame.
func segmentsOf(t testing.TB, s spec) (fs []dataplane.Frame) {
	f := s.frame()
	for _, b := range onWire(t, f.Bytes(), f.Owes) {
		fs = append(fs, frameOf(b))
	}
	return fs
}

func TestTheHotPathAllocatesNothing(t *testing.T) {
	gate := func(what string, f func()) {
		t.Helper()
		if n := testing.AllocsPerRun(20, f); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
	s, u, tu, d := newStill(t)
	s.must(tu.Announce(mac(9), announced...))
	s.must(s.v.SetLocal(42, []netip.Addr{netip.MustParseAddr("198.18.0.254")}))
	for what, f := range map[string]dataplane.Frame{
		"small":         small(1, 0),
		"partial":       spec{proto: wire.ProtoUDP, payload: 100, partial: true}.frame(),
		"a super-frame": spec{payload: 60000, size: 1300, partial: true}.frame(),
		"600 segments":  spec{payload: 60000, size: 100, partial: true}.frame(),
		"a SYN":         spec{flags: wire.TCPSyn, options: "020405b4"}.frame(),
		"too long":      spec{payload: 1460}.frame(),
		"too long IPv6": spec{v6: true, payload: 1460}.frame(),
		"ARP":           frameOf(ask(t, false, 9)),
		"ND":            frameOf(ask(t, true, 9)),
	} {
		b := dataplane.NewBatch(0)
		many := dataplane.BatchSize
		if f.Owes.GSO() {
			many = 2
		}
		for range many {
			c := frameOf(f.Bytes())
			c.Owes = f.Owes
			*b.Next() = c
			b.Add()
		}
		now := int64(1)
		gate("push "+what, func() {
			now += 1e9
			b.Now = now
			tu.Push(b)
		})
	}

	u.give(segmentsOf(t, spec{payload: 20000, size: 1300})...)
	u.give(small(1, 0), small(2, 0), small(3, 0))
	u.give(frameOf(ask(t, false, 9)))
	u.in[2].Src.Lo++
	b := dataplane.NewBatch(0)
	gate("pull", func() {
		for {
			b.Reset()
			s.v.Pull(b)
			s.v.Push(b)
			if !b.More {
				break
			}
		}
	})
	expect(t, "frames", d.frames >= 20*4, true)

	udp := small(1, 0)
	g := s.v.Guard(mem.NewLoop(mem.Config{Workers: 1}, mem.Frame{Data: udp.Bytes()}))
	b.Reset()
	g.Pull(b)
	gate("guard", func() { g.Push(b) })
}
