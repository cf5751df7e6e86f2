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

// portCounts reads the counters of a host's ports towards A and B.
func portCounts(host *lab.NetNS) (Counts, error) {
	return countsAt(end{host, portA, false}, end{host, portB, false})
}
