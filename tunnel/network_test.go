package tunnel

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"heddle/dataplane"
	"heddle/dataplane/mem"
	"heddle/dataplane/wire"
	vswitch "heddle/switch"
)

// Three hosts, each with a network of one container (port 1) and a tunnel to
// each of the others:
//
//	 c1          c2          c3
//	 |1          |1          |1
//	[h1]12─────21[h2]23─────32[h3]
//	 └13───────────────────31─┘
type mesh struct {
	t     *testing.T
	hosts [4]*meshHost // 1 to 3.
}

type meshHost struct {
	*site
	sw      *vswitch.Switch
	net     *vswitch.Network
	port    *mem.Port
	tunnels map[int]*Tunnel
}

func newMesh(t *testing.T) *mesh {
	m := &mesh{t: t}
	n := newInternet()
	addr := func(i int) string { return fmt.Sprintf("192.0.2.%d", i) }
	for i := 1; i <= 3; i++ {
		h := &meshHost{site: newSite(t, n.host(addr(i), 1)), sw: vswitch.New(1, 1000), port: mem.New(mem.Config{Workers: 1}), tunnels: map[int]*Tunnel{}}
		var err error
		h.net, err = h.sw.AddNetwork(vswitch.NetworkConfig{VNI: 42})
		h.must(err)
		h.must(h.net.Attach(1, h.port, vswitch.PortConfig{}))
		m.hosts[i] = h
	}
	for i := 1; i <= 3; i++ {
		for k := 1; k <= 3; k++ {
			if k == i {
				continue
			}
			h, id := m.hosts[i], dataplane.PortID(10*i+k)
			h.tunnels[k] = h.tunnel(h.peer(fmt.Sprint("h", k), addr(k)), 42, id, h.net)
			h.must(h.net.Attach(id, h.tunnels[k], vswitch.PortConfig{Role: vswitch.Tunnel}))
		}
	}
	return m
}

// send has a container send a frame, and returns who got it, as often as they
// did.
func (m *mesh) send(from int, dst, src wire.MAC) string {
	m.t.Helper()
	h := m.hosts[from]
	b := make([]byte, 60)
	dst.Put(b)
	src.Put(b[6:])
	b[12], b[13] = 0x88, 0xb5
	h.port.InjectBytes(0, b)
	batch := dataplane.NewBatch(0)
	batch.In = 1
	h.port.Pull(batch)
	h.net.Push(batch)
	return m.settle()
}

// settle lets what is on its way arrive.
func (m *mesh) settle() string {
	m.t.Helper()
	var got []string
	for range 4 {
		for i := 1; i <= 3; i++ {
			h := m.hosts[i]
			h.pull()
			for range h.port.Sent(0) {
				got = append(got, fmt.Sprint("c", i))
			}
		}
	}
	slices.Sort(got)
	return strings.Join(got, " ")
}

// TestThreeHostsAreOneNetwork: flooding reaches everybody once, MACs are learnt
// behind their tunnel, and what came from a tunnel never leaves by one.
func TestThreeHostsAreOneNetwork(t *testing.T) {
	m := newMesh(t)
	expect(t, "broadcast", m.send(1, wire.Broadcast, mac(1)), "c2 c3")
	expect(t, "to a MAC that was learnt", m.send(2, mac(1), mac(2)), "c1")
	expect(t, "and back", m.send(1, mac(2), mac(1)), "c2")
	expect(t, "unknown unicast", m.send(3, mac(99), mac(3)), "c1 c2")
	expect(t, "multicast", m.send(3, 0x01005e000001, mac(3)), "c1 c2")
	sent := 0
	for i := 1; i <= 3; i++ {
		for _, msg := range m.hosts[i].u.take() {
			sent += msg.Frames
		}
	}
	expect(t, "datagrams", sent, 2+1+1+2+2)

	// A station that moves from h2 to h3 is found with its first frame.
	expect(t, "it says so", m.send(3, wire.Broadcast, mac(2)), "c1 c2")
	expect(t, "and is found", m.send(1, mac(2), mac(1)), "c3")
	for i := 1; i <= 3; i++ {
		h := m.hosts[i]
		for k, tu := range h.tunnels {
			expect(t, fmt.Sprint("drops of tunnel ", i, k), drops(tu.Counters()), "")
		}
	}
}

// TestAnnouncedMACsAreNeverFlooded: before the station has said a word its
// frames go to its host alone.
func TestAnnouncedMACsAreNeverFlooded(t *testing.T) {
	m := newMesh(t)
	h := m.hosts[1]
	h.must(h.net.Announce(mac(3), 13))
	expect(t, "at once", m.send(1, mac(3), mac(1)), "c3")
	expect(t, "datagrams", len(h.u.take()), 1)
	expect(t, "data from elsewhere", m.send(2, wire.Broadcast, mac(3)), "c1 c3")
	e, _ := h.net.Lookup(mac(3), h.now)
	expect(t, "doesn't move it", e.Port, dataplane.PortID(13))
	expect(t, "withdrawn", h.net.Withdraw(mac(3), 13), true)
	h.u.take()
	m.send(1, mac(3), mac(1))
	expect(t, "flooded", len(h.u.take()), 2)
}

// TestARemovedTunnelTakesItsEntriesAlong: what was behind it is unknown again,
// and its host a stranger.
func TestARemovedTunnelTakesItsEntriesAlong(t *testing.T) {
	m := newMesh(t)
	m.send(2, wire.Broadcast, mac(2))
	h := m.hosts[1]
	h.must(h.net.Detach(12))
	h.must(h.v.RemoveTunnel(h.tunnels[2]))
	h.must(h.v.RemovePeer(h.tunnels[2].Peer()))
	h.u.take()
	m.send(1, mac(2), mac(1))
	expect(t, "its MAC is flooded to the other", len(h.u.take()), 1)
	expect(t, "what it sends is a stranger's", m.send(2, wire.Broadcast, mac(2)), "c3")
	expect(t, "drops", drops(h.v.Counters()), "unknown-peer=1")
}
