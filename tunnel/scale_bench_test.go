package tunnel

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strconv"
	"testing"

	"heddle/bench/cost"
	"heddle/dataplane"
	"heddle/dataplane/mem"
	"heddle/dataplane/wire"
	vswitch "heddle/switch"
	"heddle/tunnel/underlay"
)

// scalePeers is the sizes that swbench draws its curves over.
var scalePeers = []int{1, 10, 100, 1000}

// heap is what objects there are take, in bytes, without garbage.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// region is a host with a network of one container, at port 1, and as many
// peers, each with a tunnel and one container behind it.
type region struct {
	site    *site
	under   *still
	net     *vswitch.Network
	home    *mem.Port
	tunnels []*Tunnel
	batch   *dataplane.Batch
	heads   [][wire.MACLen]byte // Destinations of frames that go out, drawn ahead,
	from    []underlay.Addr     // and senders of those that come in.
	next    int
	outs    uint64 // Frames pushed to one tunnel each.
	ins     uint64
}

const farMACs = 1 << 20 // mac(farMACs+i) is the container's behind peer i.

func newRegion(tb testing.TB) *region {
	tb.Helper()
	r := &region{batch: dataplane.NewBatch(0)}
	r.under = &still{memUnderlay: memUnderlay{net: newInternet(), local: netip.MustParseAddrPort("198.18.0.1:4789")}}
	v, err := New(Config{Workers: 1, Underlay: r.under})
	if err != nil {
		tb.Fatal(err)
	}
	r.site = &site{t: tb, v: v, now: 1}
	sw := vswitch.New(1, 0)
	r.net, err = sw.AddNetwork(vswitch.NetworkConfig{})
	r.site.must(err)
	frame := small(1, 4)
	r.home = mem.NewLoop(mem.Config{Workers: 1}, mem.Frame{Data: frame.Bytes()})
	r.site.must(r.net.Attach(1, r.home, vswitch.PortConfig{}))
	r.site.must(r.net.AddStatic(mac(2), 1))
	for range dataplane.BatchSize {
		f := r.batch.Next()
		*f = frameOf(frame.Bytes())
		mac(2).Put(f.Bytes()[wire.EthSrc:])
		r.batch.Add()
	}
	return r
}

// addPeers makes the peers and their tunnels.
func (r *region) addPeers(peers int) {
	at := netip.MustParseAddr("198.19.0.1")
	for i := range peers {
		p := r.site.peer(strconv.Itoa(i), at.String())
		at = at.Next()
		id := dataplane.PortID(2 + i)
		t := r.site.tunnel(p, 42, id, r.net)
		r.site.must(r.net.Attach(id, t, vswitch.PortConfig{Role: vswitch.Tunnel}))
		r.site.must(r.net.Announce(mac(farMACs+i), id))
		r.tunnels = append(r.tunnels, t)
	}
}

// draw has frames go to and come from any of the first so many peers.
func (r *region) draw(ahead, peers int) {
	r.heads, r.from, r.next = make([][wire.MACLen]byte, ahead), make([]underlay.Addr, ahead), 0
	for i := range r.heads {
		k := rand.IntN(peers)
		r.heads[i] = mac(farMACs + k).Bytes()
		r.from[i] = underlay.AddrOf(netip.AddrPortFrom(r.tunnels[k].peer.to.Addr(), 50000))
	}
	r.under.in = nil
	f := small(1, 4)
	for range dataplane.BatchSize {
		d := underlay.Datagram{Buf: make([]byte, dataplane.Headroom+256), Off: dataplane.Headroom}
		(*wire.VXLANHeader)(d.Buf[d.Off:]).Init(42)
		d.Len = wire.VXLANHdrLen + copy(d.Buf[d.Off+wire.VXLANHdrLen:], f.Bytes())
		mac(2).Put(d.Buf[d.Off+wire.VXLANHdrLen:])
		d.SegSize = d.Len
		r.under.in = append(r.under.in, d)
	}
}

// out is 64 frames from the container, each to whom was drawn.
func (r *region) out() {
	for i := range r.batch.Frames {
		*(*[wire.MACLen]byte)(r.batch.Frames[i].Bytes()) = r.heads[(r.next+i)%len(r.heads)]
	}
	r.batch.In = 1
	r.next += dataplane.BatchSize
	r.outs += dataplane.BatchSize
	r.net.Push(r.batch)
}

// in is 64 frames for the container, each a datagram of who was drawn.
func (r *region) in(b *dataplane.Batch) {
	for i := range r.under.in {
		k := (r.next + i) % len(r.from)
		r.under.in[i].Src = r.from[k]
		*(*[wire.MACLen]byte)(r.under.in[i].Buf[dataplane.Headroom+wire.VXLANHdrLen+wire.EthSrc:]) = r.heads[k]
	}
	r.next += dataplane.BatchSize
	r.ins += dataplane.BatchSize
	b.Reset()
	r.site.v.Pull(b)
	r.site.v.Push(b)
}

// flood is 64 frames from the container to all.
func (r *region) flood() {
	for i := range r.batch.Frames {
		wire.Broadcast.Put(r.batch.Frames[i].Bytes())
	}
	r.batch.In = 1
	r.outs += uint64(dataplane.BatchSize * len(r.tunnels))
	r.net.Push(r.batch)
}

// verify tells whether all frames went the way that they should.
func (r *region) verify(tb testing.TB) {
	tb.Helper()
	var out, in uint64
	for _, t := range r.tunnels {
		c := t.Counters().Totals()
		out, in = out+c.TxFrames, in+c.RxFrames
	}
	if home := r.home.Counters().Totals().TxFrames; out != r.outs || in != r.ins || home != r.ins {
		tb.Fatalf("%d of %d frames went out by tunnels, %d of %d came in and %d went on to the container", out, r.outs, in, r.ins, home)
	}
}

// BenchmarkScalePeers is the whole way in process of a 64-byte frame through
// switch and tunnel, to an underlay that sends nothing, and back, by how many
// peers there are: to and from one of them, any of them, and to all at once, where
// it is of each copy. Besides, the memory that a peer takes with its tunnel. Run
// each size in a process of its own.
func BenchmarkScalePeers(b *testing.B) {
	for _, peers := range scalePeers {
		b.Run(strconv.Itoa(peers), func(b *testing.B) {
			r := newRegion(b)
			before, heapBefore := cost.Resident(b), heap()
			r.addPeers(peers)
			after, heapAfter := cost.Resident(b), heap()
			b.Run("memory", func(b *testing.B) {
				for b.Loop() {
					runtime.KeepAlive(r)
				}
				b.ReportMetric((heapAfter-heapBefore)/float64(peers), "B/entry")
				b.ReportMetric((after-before)/1e6, "grown-MB")
				b.ReportMetric(after/1e6, "rss-MB")
				b.ReportMetric(0, "ns/op")
			})
			for _, of := range []struct {
				name  string
				peers int
			}{{"one", 1}, {"random", peers}} {
				r.draw(1<<16, of.peers)
				b.Run(of.name+" out", func(b *testing.B) {
					cost.Run(b, dataplane.BatchSize, "frame", r.out)
					r.verify(b)
				})
				b.Run(of.name+" in", func(b *testing.B) {
					in := dataplane.NewBatch(0)
					cost.Run(b, dataplane.BatchSize, "frame", func() { r.in(in) })
					r.verify(b)
				})
			}
			b.Run("flood", func(b *testing.B) {
				cost.Run(b, dataplane.BatchSize*peers, "frame", r.flood)
				r.verify(b)
			})
		})
	}
}

// The benchmark's traffic goes the way that it says.
func TestScaleTraffic(t *testing.T) {
	r := newRegion(t)
	r.addPeers(5)
	in := dataplane.NewBatch(0)
	for _, peers := range []int{1, 5} {
		r.draw(1000, peers)
		for range 20 {
			r.out()
			r.in(in)
			r.flood()
		}
		r.verify(t)
	}
	for i, tu := range r.tunnels {
		if c := tu.Counters().Totals(); c.TxFrames == 0 || c.RxFrames == 0 {
			t.Errorf("peer %d: %d frames out, %d in", i, c.TxFrames, c.RxFrames)
		}
	}
}
