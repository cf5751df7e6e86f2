package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heddle/bench/golden"
	"heddle/dataplane"
	"heddle/dataplane/wire"
	"heddle/tunnel/underlay"
)

// model is what a VTEP holds as one would write it on a whiteboard.
type model struct {
	peers     map[int]*Peer // By host.
	tunnels   map[dataplane.PortID]*modelTunnel
	announced map[modelKey]modelStation
}

type modelTunnel struct {
	*Tunnel
	host int
	vni  uint32
}

type modelKey struct {
	vni uint32
	ip  netip.Addr
}

type modelStation struct {
	mac wire.MAC
	id  dataplane.PortID
}

func hostAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) }

func stationAddr(i int) netip.Addr {
	if i%2 == 0 {
		return netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
	}
	return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(i >> 8), 15: byte(i)})
}

const (
	modelHosts, modelVNIs, modelPorts, modelStations = 12, 4, 20, 150
	maxModelPeers, maxModelAnnounced                 = 8, 100
	anchorHost, anchorVNI, anchorPort                = 200, 99, 1000
)

// TestTablesDoWhatTheModelDoes runs random operations on a VTEP and on the
// model, while workers receive from all hosts, send into a tunnel that stays
// and ask for addresses that stay: those are never missed.
func TestTablesDoWhatTheModelDoes(t *testing.T) {
	n := newInternet()
	u := n.host("192.0.2.1", 2)
	v, err := New(Config{Workers: 2, Underlay: u, MaxPeers: maxModelPeers, MaxAnnounced: maxModelAnnounced})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, u: u, v: v}
	m := &model{peers: map[int]*Peer{}, tunnels: map[dataplane.PortID]*modelTunnel{}, announced: map[modelKey]modelStation{}}
	anchorNet, others := &tally{}, &tally{}
	m.peers[anchorHost] = s.peer("anchor", hostAddr(anchorHost).String())
	anchor := s.tunnel(m.peers[anchorHost], anchorVNI, anchorPort, anchorNet)
	m.tunnels[anchorPort] = &modelTunnel{anchor, anchorHost, anchorVNI}
	s.must(anchor.Announce(mac(9), announced...))
	for _, a := range announced {
		m.announced[modelKey{anchorVNI, a}] = modelStation{mac(9), anchorPort}
	}

	var done atomic.Bool
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() { workHard(t, v, w, anchor, &done) })
	}
	for seed := range uint64(3) {
		m.run(t, s, rand.New(rand.NewPCG(seed, 5)), others)
	}
	// Workers that had no CPU until now get some.
	for start := time.Now(); anchorNet.frames.Load() == 0 && time.Since(start) < patience; {
		runtime.Gosched()
	}
	done.Store(true)
	wg.Wait()
	got := anchorNet.frames.Load()
	expect(t, "frames of the anchor were received", got > 0, true)
	for d, n := range anchor.Counters().Totals().Drops {
		if n > 0 {
			t.Errorf("the anchor dropped %d: %s", n, dataplane.Drop(d))
		}
	}
}

// tally is a network that only counts.
type tally struct{ frames atomic.Int64 }

func (n *tally) Push(b *dataplane.Batch) { n.frames.Add(int64(selected(b))) }

// workHard is a worker: it receives from hosts that come and go, and from the
// anchor, and asks for the anchor's addresses.
func workHard(t *testing.T, v *VTEP, w int, anchor *Tunnel, done *atomic.Bool) {
	u := v.under.(*memUnderlay)
	r := rand.New(rand.NewPCG(uint64(w), 8))
	b := dataplane.NewBatch(w)
	requests := [][]byte{ask(t, false, 9), ask(t, true, 9)}
	datagram := golden.Bytes(t, "08 00 00 00 00 00 00 00"+arpRequest)
	missed := 0
	for rounds := 1; !done.Load(); rounds++ {
		for _, host := range []int{anchorHost, 2 + r.IntN(modelHosts)} {
			vni := uint32(1 + r.IntN(modelVNIs))
			if host == anchorHost {
				vni = anchorVNI
			}
			d := append([]byte(nil), datagram...)
			binary.BigEndian.PutUint32(d[4:], vni<<8)
			from := netip.AddrPortFrom(hostAddr(host), 50000)
			u.receive(w, packet{d, len(d), underlay.AddrOf(from), 0})
		}
		b.Reset()
		b.Now = int64(rounds)
		v.Pull(b)
		v.Push(b)

		before := v.workers[w].answered.Load()
		b.Reset()
		*b.Next() = frameOf(requests[rounds%2])
		b.Add()
		anchor.Push(b)
		if v.workers[w].answered.Load() == before {
			missed++ // The table was being changed, 16 times in a row.
		}
		u.take()
	}
	if missed > 0 {
		t.Logf("worker %d: %d requests were flooded", w, missed)
	}
}

func (m *model) run(t *testing.T, s *site, r *rand.Rand, n dataplane.Sink) {
	v := s.v
	for step := range 800 {
		host, vni, id := 2+r.IntN(modelHosts), uint32(1+r.IntN(modelVNIs)), dataplane.PortID(1+r.IntN(modelPorts))
		var what string
		switch op := r.IntN(100); {
		case op < 10:
			p, err := v.AddPeer(PeerConfig{Name: fmt.Sprint(host), Addr: netip.AddrPortFrom(hostAddr(host), 0)})
			what = fmt.Sprintf("add peer %d: %v", host, err)
			switch {
			case m.peers[host] != nil:
				wantErr(t, what, err, ErrInUse)
			case len(m.peers) == maxModelPeers:
				wantErr(t, what, err, ErrFull)
			default:
				s.must(err)
				m.peers[host] = p
			}
		case op < 14 && m.peers[host] != nil:
			p := m.peers[host]
			err := v.RemovePeer(p)
			what = fmt.Sprintf("remove peer %d: %v", host, err)
			if m.hasTunnels(host) {
				wantErr(t, what, err, ErrInUse)
				break
			}
			s.must(err)
			delete(m.peers, host)
			wantErr(t, what+" again", v.RemovePeer(p), ErrUnknown)
		case op < 30 && m.peers[host] != nil:
			tu, err := v.AddTunnel(m.peers[host], TunnelConfig{VNI: vni, Port: id, Network: n})
			what = fmt.Sprintf("add tunnel %d of VNI %d to %d: %v", id, vni, host, err)
			if m.tunnels[id] != nil || m.tunnelOf(host, vni) != nil {
				wantErr(t, what, err, ErrInUse)
				break
			}
			s.must(err)
			m.tunnels[id] = &modelTunnel{tu, host, vni}
		case op < 40 && m.tunnels[id] != nil:
			what = fmt.Sprint("remove tunnel ", id)
			tu := m.tunnels[id]
			s.must(v.RemoveTunnel(tu.Tunnel))
			delete(m.tunnels, id)
			for k, st := range m.announced {
				if k.vni == tu.vni && st.id == id {
					delete(m.announced, k)
				}
			}
			wantErr(t, what+" again", v.RemoveTunnel(tu.Tunnel), ErrUnknown)
			wantErr(t, what+", then announce", tu.Announce(mac(1), stationAddr(1)), ErrUnknown)
			expect(t, what+", then withdraw", tu.Withdraw(mac(1), stationAddr(1)), 0)
		case op < 80 && m.tunnels[id] != nil:
			tu, ip, station := m.tunnels[id], stationAddr(r.IntN(modelStations)), mac(r.IntN(5)+1)
			k := modelKey{tu.vni, ip}
			err := tu.Announce(station, ip)
			what = fmt.Sprintf("announce %v at %v of VNI %d behind %d: %v", ip, station, tu.vni, id, err)
			if _, had := m.announced[k]; !had && len(m.announced) == maxModelAnnounced {
				wantErr(t, what, err, ErrFull)
				break
			}
			s.must(err)
			m.announced[k] = modelStation{station, id}
		case m.tunnels[id] != nil:
			tu, ip, station := m.tunnels[id], stationAddr(r.IntN(modelStations)), mac(r.IntN(5)+1)
			k := modelKey{tu.vni, ip}
			what = fmt.Sprintf("withdraw %v at %v of VNI %d behind %d", ip, station, tu.vni, id)
			want := 0
			if m.announced[k] == (modelStation{station, id}) {
				want = 1
				delete(m.announced, k)
			}
			expect(t, what, tu.Withdraw(station, ip), want)
		}
		m.hold(t, v)
		if t.Failed() {
			t.Fatalf("step %d was: %s", step, what)
		}
	}
}

func (m *model) hasTunnels(host int) bool {
	for _, tu := range m.tunnels {
		if tu.host == host {
			return true
		}
	}
	return false
}

func (m *model) tunnelOf(host int, vni uint32) *modelTunnel {
	for _, tu := range m.tunnels {
		if tu.host == host && tu.vni == vni {
			return tu
		}
	}
	return nil
}

// hold holds the VTEP's tables against the model.
func (m *model) hold(t *testing.T, v *VTEP) {
	t.Helper()
	st := v.Stats()
	expect(t, "sizes", []int{st.Peers, st.Tunnels, st.Announced}, []int{len(m.peers), len(m.tunnels), len(m.announced)})
	ends := v.ends.Load()
	for host := 2; host < 2+modelHosts; host++ {
		if got := ends.at(addrOf(hostAddr(host))).peer; got != m.peers[host] || v.PeerOf(hostAddr(host)) != got {
			t.Errorf("host %d is peer %v", host, got)
		}
		if m.peers[host] == nil {
			continue
		}
		for vni := uint32(1); vni <= modelVNIs; vni++ {
			got, want := m.peers[host].routes.Load().find(vni), m.tunnelOf(host, vni)
			if want == nil && got != nil || want != nil && got != want.Tunnel {
				t.Errorf("VNI %d of host %d goes by %v, want %v", vni, host, got, want)
			}
		}
	}
	by := map[dataplane.PortID]int{}
	for vni := uint32(1); vni <= modelVNIs; vni++ {
		for i := range modelStations {
			ip := stationAddr(i)
			station, id, ok := v.known.find(vni, addrOf(ip))
			want, has := m.announced[modelKey{vni, ip}]
			if ok != has || station != want.mac || id != want.id {
				t.Errorf("%v of VNI %d: %v behind %d, %v; want %+v", ip, vni, station, id, ok, want)
			}
		}
	}
	for _, st := range m.announced {
		by[st.id]++
	}
	for id, tu := range m.tunnels {
		if tu.Announced() != by[id] {
			t.Errorf("%d addresses are announced for tunnel %d, want %d", tu.Announced(), id, by[id])
		}
	}
}

func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

// TestNeighboursGrow to many, and shrink, each found all the while by readers.
func TestNeighboursGrow(t *testing.T) {
	const many, stay = 20000, 500
	var n neighbours
	n.init()
	at := func(i int) addr { return addr{uint64(i) * 7, uint64(i)} }
	for i := range stay {
		n.set(1, at(i), mac(i), 1)
	}
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; !done.Load(); i++ {
			k := i % stay
			if got, id, ok := n.find(1, at(k)); ok && (got != mac(k) || id != 1) {
				t.Errorf("station %d is %v behind %d", k, got, id)
				return
			}
		}
	})
	for i := stay; i < many; i++ {
		n.set(2, at(i), mac(i), dataplane.PortID(1+i%3))
	}
	for i := stay; i < many; i++ {
		if got, id, ok := n.find(2, at(i)); !ok || got != mac(i) || id != dataplane.PortID(1+i%3) {
			t.Fatalf("station %d is %v behind %d, %v", i, got, id, ok)
		}
	}
	removed := n.removeAll(2, 1) + n.removeAll(2, 2)
	for i := stay; i < many; i++ {
		if _, _, ok := n.find(2, at(i)); ok != (i%3 == 2) {
			t.Fatalf("station %d is there: %v", i, ok)
		}
	}
	for i := stay; i < many; i++ {
		if i%3 == 2 {
			n.remove(2, at(i))
			removed++
		}
	}
	done.Store(true)
	wg.Wait()
	expect(t, "removed", removed, many-stay)
	expect(t, "left", n.count, stay)
	for i := range stay {
		if _, _, ok := n.find(1, at(i)); !ok {
			t.Fatalf("station %d is gone", i)
		}
	}
}
