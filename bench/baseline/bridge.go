package baseline

import (
	"context"

	"heddle/bench/lab"
)

// The path's two ports in the namespace that it runs in.
const (
	portA = "port-a"
	portB = "port-b"
)

// NewBridge joins two containers by the kernel's bridge, as docker0 does.
//
//	A: eth0 ── veth ── port-a ┐
//	                          ├ br0
//	B: eth0 ── veth ── port-b ┘
func NewBridge(l *lab.Lab) (*Path, error) {
	a, b, err := NewContainers(l, "bridge")
	if err != nil {
		return nil, err
	}
	host, err := l.NewNetNS("bridge")
	if err != nil {
		return nil, err
	}
	if err := l.Veth(host, portA, a, Interface); err != nil {
		return nil, err
	}
	if err := l.Veth(host, portB, b, Interface); err != nil {
		return nil, err
	}
	if err := host.AddBridge("br0", portA, portB); err != nil {
		return nil, err
	}
	if err := address(a, b); err != nil {
		return nil, err
	}
	return &Path{
		Name:  "bridge",
		About: "kernel bridge, veth",
		A:     a, B: b,
		Server: AddrB,
		Count:  func(context.Context) (Counts, error) { return portCounts(host) },
	}, nil
}

// portCounts reads the counters of the bridge's ports.
func portCounts(host *lab.NetNS) (Counts, error) {
	a, err := host.Stats(portA)
	if err != nil {
		return Counts{}, err
	}
	b, err := host.Stats(portB)
	if err != nil {
		return Counts{}, err
	}
	return Counts{
		FromA: Count{a.RxFrames, a.RxBytes}, ToA: Count{a.TxFrames, a.TxBytes},
		FromB: Count{b.RxFrames, b.RxBytes}, ToB: Count{b.TxFrames, b.TxBytes},
	}, nil
}
