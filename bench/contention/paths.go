package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"heddle/dataplane"
	"heddle/dataplane/mem"
	"heddle/dataplane/wire"
	"heddle/nat"
	vswitch "heddle/switch"
	"heddle/tunnel"
	"heddle/tunnel/underlay"
)

// The ways that are measured.
const (
	pathSwitch = "switch"
	pathNAT    = "switch + NAT"
	pathVXLAN  = "switch + VXLAN"
)

var pathNames = []string{pathSwitch, pathNAT, pathVXLAN}

const (
	gateMAC   wire.MAC = 0x02000000aa01
	uplinkMAC wire.MAC = 0x02000000bb01
	routerMAC wire.MAC = 0x020000000cc1
	farMAC    wire.MAC = 0x020000000dd1
)

// path is a way of frames of 64 B from in-memory ports, which each worker goes
// with flows, and stations, of its own.
type path struct {
	name    string
	workers int
	// inside is the container's port of each worker.
	inside []*mem.Port
	net    *vswitch.Network
	// out counts what got through.
	out *dataplane.Counters
	// roots are the objects that workers share, by name.
	roots map[string]any

	batches []*dataplane.Batch
}

// newPath makes a way for so many workers, which push frames by the batch.
func newPath(name string, workers, frames int) (*path, error) {
	p := &path{name: name, workers: workers, roots: map[string]any{}}
	sw := vswitch.New(workers, 1000)
	network, err := sw.AddNetwork(vswitch.NetworkConfig{VNI: 42, Ageing: vswitch.MaxAgeing})
	if err != nil {
		return nil, err
	}
	p.net, p.roots["switch"], p.roots["network"] = network, sw, network
	to, err := p.attachExit(name)
	if err != nil {
		return nil, fmt.Errorf("path %s: %w", name, err)
	}
	for w := range workers {
		var loop []mem.Frame
		for i := range frames {
			loop = append(loop, mem.Frame{Data: udpFrame(to, stationMAC(w), w, i)})
		}
		port := mem.NewLoop(mem.Config{Workers: workers, Restore: 64}, loop...)
		p.inside = append(p.inside, port)
		p.roots[fmt.Sprintf("port %d", w)] = port
		if err := network.Attach(dataplane.PortID(100+w), port, vswitch.PortConfig{}); err != nil {
			return nil, fmt.Errorf("path %s: %w", name, err)
		}
		p.batches = append(p.batches, dataplane.NewBatch(w))
	}
	return p, nil
}

// attachExit attaches what the frames go out by, as port 2, and returns the MAC
// that they go to.
func (p *path) attachExit(name string) (wire.MAC, error) {
	sink := mem.NewLoop(mem.Config{Workers: p.workers}, mem.Frame{Data: make([]byte, 64)})
	p.roots["egress"], p.out = sink, sink.Counters()
	switch name {
	case pathSwitch:
		return farMAC, errors.Join(p.net.Attach(2, sink, vswitch.PortConfig{}), p.net.AddStatic(farMAC, 2))
	case pathNAT:
		return gateMAC, p.translate(sink)
	case pathVXLAN:
		return farMAC, p.encapsulate()
	}
	return 0, errors.New("no such path")
}

func (p *path) translate(sink *mem.Port) error {
	n, err := nat.New(nat.Config{Workers: p.workers, MaxConns: 500})
	if err != nil {
		return err
	}
	p.roots["nat"] = n
	gate, err := n.AddGateway(nat.GatewayConfig{
		Name: "net", MAC: gateMAC, Addresses: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/15")}, MTU: 1500, Network: p.net, Port: 2,
	})
	if err != nil {
		return err
	}
	up, err := n.AddUplink(nat.UplinkConfig{
		Name: "up", Mode: nat.Own, MAC: uplinkMAC, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")},
		NextHop4: netip.MustParseAddr("192.0.2.1"), MTU: 1500, Port: sink,
	})
	if err != nil {
		return err
	}
	p.roots["gateway"], p.roots["uplink"] = gate, up
	_, err = n.AddMasquerade(nat.MasqueradeConfig{Gateway: gate, Uplink: up})
	return errors.Join(err,
		up.SetNeighbour(netip.MustParseAddr("192.0.2.1"), routerMAC),
		p.net.Attach(2, gate, vswitch.PortConfig{Role: vswitch.Gateway}),
		p.net.AddStatic(gateMAC, 2))
}

func (p *path) encapsulate() error {
	v, err := tunnel.New(tunnel.Config{Workers: p.workers, Underlay: &void{}})
	if err != nil {
		return err
	}
	peer, err := v.AddPeer(tunnel.PeerConfig{Name: "far", Addr: netip.MustParseAddrPort("192.0.2.2:4789")})
	if err != nil {
		return err
	}
	t, err := v.AddTunnel(peer, tunnel.TunnelConfig{VNI: 42, Port: 2, Network: p.net})
	if err != nil {
		return err
	}
	p.roots["vtep"], p.roots["peer"], p.roots["tunnel"], p.out = v, peer, t, t.Counters()
	return errors.Join(p.net.Attach(2, t, vswitch.PortConfig{Role: vswitch.Tunnel}), p.net.AddStatic(farMAC, 2))
}

// void is an underlay that sends nothing and says that it did.
type void struct{}

func (*void) Recv(int) ([]underlay.Datagram, bool) { return nil, false }
func (*void) Send(int, []underlay.Message)         {}
func (*void) FD(int) int                           { return -1 }
func (*void) Local() netip.AddrPort                { return netip.MustParseAddrPort("192.0.2.1:4789") }
func (*void) Close() error                         { return nil }

// push sends a worker's batch the whole way.
func (p *path) push(w int) {
	b := p.batches[w]
	b.Reset()
	b.In = dataplane.PortID(100 + w)
	p.inside[w].Pull(b)
	p.net.Push(b)
}

// carried returns an error unless the frames of so many batches got through.
func (p *path) carried(frames uint64) error {
	if t := p.out.Totals(); t.TxFrames < frames {
		return fmt.Errorf("path %s: %d of %d frames got through", p.name, t.TxFrames, frames)
	}
	return nil
}

func stationMAC(worker int) wire.MAC { return 0x020000010000 + wire.MAC(worker) }

// udpFrame is a UDP frame of 64 B of a worker's flow number i.
func udpFrame(dst, src wire.MAC, worker, i int) []byte {
	b := make([]byte, 64)
	dst.Put(b)
	src.Put(b[6:])
	b[12] = 8
	h := b[14:]
	h[0], h[8], h[9] = 0x45, 64, wire.ProtoUDP
	binary.BigEndian.PutUint16(h[2:], 50)
	copy(h[12:], []byte{198, 18, 1, byte(worker)})
	copy(h[16:], []byte{203, 0, 113, 9})
	binary.BigEndian.PutUint16(h[10:], ^wire.Fold(wire.Sum(h[:20], 0)))
	binary.BigEndian.PutUint16(h[20:], uint16(5000+i))
	binary.BigEndian.PutUint16(h[22:], 53)
	binary.BigEndian.PutUint16(h[24:], 30)
	return b
}
