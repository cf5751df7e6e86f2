package baseline

import (
	"context"
	"strconv"

	"heddle/bench/lab"
)

// What all paths have that tunnel. MTUs are set and not negotiated, so that all
// carry segments of the same length.
const (
	VNI       = 7
	VTEPA     = "192.0.2.1" // Of A's host.
	VTEPB     = "192.0.2.2" // Of B's host.
	VTEPBits  = "/24"       // Length of the prefix that both are in.
	VTEPPort  = 4789
	Underlay  = "u0" // Each host's interface towards the other, of 1,500 bytes.
	TunnelMTU = 1450 // Of the containers' interfaces: 1,500 less IPv4, UDP and VXLAN headers and the inner Ethernet one.
)

// Lengths of headers, in bytes.
const (
	ethernetLen = 14
	outerLen    = ethernetLen + 20 + 8 + 8 // Ethernet, IPv4, UDP and VXLAN around a frame.
)

// Hosts are the namespaces of a path that tunnels.
type Hosts struct {
	A, B         *lab.NetNS // Containers, without interfaces.
	HostA, HostB *lab.NetNS // Joined by Underlay, without addresses there.
}

// NewHosts makes the namespaces of a path that tunnels.
func NewHosts(l *lab.Lab, name string) (h Hosts, err error) {
	if h.A, h.B, err = NewContainers(l, name); err != nil {
		return Hosts{}, err
	}
	if h.HostA, err = l.NewNetNS(name + "-host-a"); err != nil {
		return Hosts{}, err
	}
	if h.HostB, err = l.NewNetNS(name + "-host-b"); err != nil {
		return Hosts{}, err
	}
	return h, l.Veth(h.HostA, Underlay, h.HostB, Underlay)
}

// Address gives both hosts their addresses at an interface.
func (h Hosts) Address(ifname string) error {
	if err := h.HostA.AddAddress(ifname, VTEPA+VTEPBits); err != nil {
		return err
	}
	return h.HostB.AddAddress(ifname, VTEPB+VTEPBits)
}

// equip gives both containers' interfaces their MTU and addresses.
func (h Hosts) equip() error {
	for _, n := range []*lab.NetNS{h.A, h.B} {
		if err := n.SetMTU(Interface, TunnelMTU); err != nil {
			return err
		}
	}
	return address(h.A, h.B)
}

// The kernel's vxlan device and the port beside it on the bridge.
const (
	vxlanDevice = "vx0"
	vxlanPort   = "port"
)

// NewVXLAN joins two containers on two hosts by the kernel's bridges and vxlan
// devices.
//
//	A: eth0 ── veth ── port ┬ br0 ┬ vx0 ── u0 ── veth ── u0 ── vx0 ┬ br0 ┬ port ── veth ── eth0 :B
func NewVXLAN(ctx context.Context, l *lab.Lab) (*Path, error) {
	h, err := NewHosts(l, "vxlan")
	if err != nil {
		return nil, err
	}
	if err := h.Address(Underlay); err != nil {
		return nil, err
	}
	for _, end := range []struct {
		container, host *lab.NetNS
		local, remote   string
	}{{h.A, h.HostA, VTEPA, VTEPB}, {h.B, h.HostB, VTEPB, VTEPA}} {
		if err := l.Veth(end.host, vxlanPort, end.container, Interface); err != nil {
			return nil, err
		}
		_, err := end.host.Run(ctx, "ip", "link", "add", vxlanDevice, "mtu", strconv.Itoa(TunnelMTU), "up", "type", "vxlan",
			"id", strconv.Itoa(VNI), "dstport", strconv.Itoa(VTEPPort), "local", end.local, "remote", end.remote, "dev", Underlay)
		if err != nil {
			return nil, err
		}
		if err := end.host.AddBridge("br0", vxlanPort, vxlanDevice); err != nil {
			return nil, err
		}
	}
	if err := h.equip(); err != nil {
		return nil, err
	}
	return &Path{
		Name:  "vxlan",
		About: "kernel vxlan, bridge, veth",
		A:     h.A, B: h.B,
		Server: AddrB,
		Hosts:  true,
		Count:  func(context.Context) (Counts, error) { return h.vxlanCounts() },
	}, nil
}

// vxlanCounts reads the counters of the bridges' ports.
func (h Hosts) vxlanCounts() (Counts, error) {
	a, err := vxlanEnd(h.HostA)
	if err != nil {
		return Counts{}, err
	}
	b, err := vxlanEnd(h.HostB)
	if err != nil {
		return Counts{}, err
	}
	return TunnelCounts(a, b), nil
}

func vxlanEnd(host *lab.NetNS) (TunnelEnd, error) {
	port, err := host.Stats(vxlanPort)
	if err != nil {
		return TunnelEnd{}, err
	}
	device, err := host.Stats(vxlanDevice)
	if err != nil {
		return TunnelEnd{}, err
	}
	return TunnelEnd{
		From: Count{port.RxFrames, port.RxBytes}, To: Count{port.TxFrames, port.TxBytes},
		// The device counts bytes from the inner IP header on, both ways.
		Encap: Count{device.TxFrames, device.TxBytes + ethernetLen*device.TxFrames},
		Decap: Count{device.RxFrames, device.RxBytes + ethernetLen*device.RxFrames},
	}, nil
}
