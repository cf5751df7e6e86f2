package tunnel

import (
	"net/netip"
	"strings"
	"testing"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

func TestNewRefuses(t *testing.T) {
	u := newInternet().host("192.0.2.1", 1)
	for what, c := range map[string]Config{
		"no underlay":        {Workers: 1},
		"no workers":         {Underlay: u},
		"too many workers":   {Underlay: u, Workers: dataplane.MaxWorkers + 1},
		"negative peers":     {Underlay: u, Workers: 1, MaxPeers: -1},
		"too many peers":     {Underlay: u, Workers: 1, MaxPeers: MaxPeers + 1},
		"negative addresses": {Underlay: u, Workers: 1, MaxAnnounced: -1},
		"too many addresses": {Underlay: u, Workers: 1, MaxAnnounced: MaxAnnounced + 1},
	} {
		_, err := New(c)
		wantErr(t, what, err, ErrInvalid)
	}
}

func TestAddPeerRefuses(t *testing.T) {
	for _, c := range []struct {
		what, own, addr string
		mtu             int
		says            string
	}{
		{"the other family", "192.0.2.1", "[2001:db8::1]:4789", 0, "same family"},
		{"the other family still", "2001:db8::1", "192.0.2.1:4789", 0, "same family"},
		{"nobody", "192.0.2.1", "0.0.0.0:4789", 0, "not one host's"},
		{"a group", "192.0.2.1", "224.0.0.1:4789", 0, "not one host's"},
		{"a zone", "2001:db8::1", "[fe80::1%lo]:4789", 0, "zone"},
		{"a path MTU beyond IP", "192.0.2.1", "192.0.2.9:4789", 65536, "path MTU"},
		{"a negative path MTU", "192.0.2.1", "192.0.2.9:4789", -1, "path MTU"},
	} {
		s := newSite(t, newInternet().host(c.own, 1))
		_, err := s.v.AddPeer(PeerConfig{Name: "thundersnow", Addr: netip.MustParseAddrPort(c.addr), PathMTU: c.mtu})
		wantErr(t, c.what, err, ErrInvalid)
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "thundersnow") {
			t.Errorf("%s: %q doesn't say %q and whose", c.what, err, c.says)
		}
	}
	s := newSite(t, newInternet().host("192.0.2.1", 1))
	_, err := s.v.AddPeer(PeerConfig{})
	wantErr(t, "no address", err, ErrInvalid)
	s.peer("a", "192.0.2.7")
	_, err = s.v.AddPeer(PeerConfig{Name: "b", Addr: netip.MustParseAddrPort("192.0.2.7:99")})
	wantErr(t, "the same address at another port", err, ErrInUse)
	_, err = s.v.AddPeer(PeerConfig{Name: "b", Addr: netip.MustParseAddrPort("[::ffff:192.0.2.7]:99")})
	wantErr(t, "the same address, mapped", err, ErrInUse)
}

func TestAddTunnelRefuses(t *testing.T) {
	p := newPair(t, "192.0.2.1", "192.0.2.2")
	peer, n := p.ta.Peer(), &network{}
	for what, c := range map[string]TunnelConfig{
		"VNI 0":           {Port: 6, Network: n},
		"a VNI too high":  {VNI: wire.MaxVNI + 1, Port: 6, Network: n},
		"port 0":          {VNI: 1, Network: n},
		"a port too high": {VNI: 1, Port: dataplane.MaxPorts, Network: n},
		"no network":      {VNI: 1, Port: 6},
		"an MTU too low":  {VNI: 1, Port: 6, Network: n, MTU: 67},
		"an MTU too high": {VNI: 1, Port: 6, Network: n, MTU: 65536},
	} {
		_, err := p.a.v.AddTunnel(peer, c)
		wantErr(t, what, err, ErrInvalid)
	}
	_, err := p.a.v.AddTunnel(p.tb.Peer(), TunnelConfig{VNI: 1, Port: 6, Network: n})
	wantErr(t, "another VTEP's peer", err, ErrUnknown)
	wantErr(t, "another VTEP's peer removed", p.a.v.RemovePeer(p.tb.Peer()), ErrUnknown)
	wantErr(t, "another VTEP's tunnel removed", p.a.v.RemoveTunnel(p.tb), ErrUnknown)
	wantErr(t, "an MTU too low", p.ta.SetMTU(1), ErrInvalid)
	wantErr(t, "a path MTU too high", p.a.v.SetPathMTU(peer, 1<<20), ErrInvalid)
	wantErr(t, "a gateway of no network", p.a.v.SetLocal(0, announced), ErrInvalid)
	wantErr(t, "a gateway without an address", p.a.v.SetLocal(1, []netip.Addr{{}}), ErrInvalid)
	wantErr(t, "too many gateways", p.a.v.SetLocal(1, make([]netip.Addr, MaxLocal+1)), ErrFull)
	wantErr(t, "too many own addresses", p.a.v.SetAddrs(make([]netip.Addr, MaxLocal+1)), ErrFull)
	wantErr(t, "announcing a group's MAC", p.ta.Announce(wire.Broadcast, announced...), ErrInvalid)
	wantErr(t, "announcing a group", p.ta.Announce(mac(1), netip.MustParseAddr("ff02::1")), ErrInvalid)
	wantErr(t, "announcing nothing", p.ta.Announce(mac(1), netip.Addr{}), ErrInvalid)
	expect(t, "withdrawing nothing", p.ta.Withdraw(mac(1), netip.Addr{}), 0)
}

func TestWhatIsShown(t *testing.T) {
	p := newPair(t, "2001:db8:ffff::1", "2001:db8:ffff::2")
	peer := p.ta.Peer()
	expect(t, "peer", []string{peer.Name(), peer.Addr().String()}, []string{"b", "[2001:db8:ffff::2]:4789"})
	expect(t, "MTUs", []int{peer.PathMTU(), peer.MTU(), p.ta.MTU()}, []int{1500, 1430, 1430})
	p.a.must(p.a.v.SetPathMTU(peer, 100))
	expect(t, "MTUs at the floor", []int{peer.PathMTU(), peer.MTU()}, []int{1280, 1210})
	p.a.must(p.ta.SetMTU(1000))
	expect(t, "MTU of the tunnel", p.ta.MTU(), 1000)
	expect(t, "tunnel", []any{p.ta.VNI(), p.ta.ID(), len(peer.Tunnels()), len(p.a.v.Peers())}, []any{42, 5, 1, 1})
	expect(t, "local", p.a.v.Local().String(), "[2001:db8:ffff::1]:4789")
	expect(t, "segments", peer.Segments(), true)
	expect(t, "peer of an address", p.a.v.PeerOf(netip.MustParseAddr("2001:db8:ffff::2")) == peer, true)
	expect(t, "peer of none", p.a.v.PeerOf(netip.Addr{}) == nil, true)
	b := dataplane.NewBatch(0)
	p.ta.Pull(b)
	expect(t, "the tunnel as a port", []any{b.N, p.ta.FD(0), p.ta.Close(), p.a.v.FD(0), p.a.v.Close()}, []any{0, -1, nil, -1, nil})
}

func TestBoundsAreCounted(t *testing.T) {
	u := newInternet().host("192.0.2.1", 1)
	v, err := New(Config{Workers: 1, Underlay: u, MaxPeers: 1, MaxAnnounced: 2})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, v: v}
	tu := s.tunnel(s.peer("b", "192.0.2.2"), 1, 1, &network{})
	_, err = v.AddPeer(PeerConfig{Addr: netip.MustParseAddrPort("192.0.2.3:4789")})
	wantErr(t, "a second peer", err, ErrFull)
	wantErr(t, "three addresses", tu.Announce(mac(9), append(announced, netip.MustParseAddr("198.18.0.10"))...), ErrFull)
	expect(t, "those with room", tu.Announced(), 2)
	expect(t, "refused", v.Stats().Refused, Refused{Peers: 1, Announced: 1})
}
