package baseline

import (
	"context"

	"heddle/bench/lab"
)

// relayReady is what a relay prints when it relays.
const relayReady = "ready\n"

// NewTAPRelay joins two containers by a program that passes frames between two
// TAPs: command, to which the files of the containers' namespaces are added.
//
//	A: eth0 (TAP) ── relay ── eth0 (TAP) :B
func NewTAPRelay(ctx context.Context, l *lab.Lab, name string, command []string) (*Path, error) {
	a, b, err := NewContainers(l, name)
	if err != nil {
		return nil, err
	}
	host, err := l.NewNetNS(name)
	if err != nil {
		return nil, err
	}
	p, err := startRelay(ctx, host, append(command, a.Path(), b.Path()))
	if err != nil {
		return nil, err
	}
	for _, n := range []*lab.NetNS{a, b} {
		if err := setUpTAP(ctx, n); err != nil {
			return nil, err
		}
	}
	if err := address(a, b); err != nil {
		return nil, err
	}
	return &Path{
		Name: name, About: "a null relay, TAP ports", A: a, B: b, Server: AddrB, PIDs: []int{p.PID()},
		Count: func(context.Context) (Counts, error) {
			return countsAt(end{a, Interface, true}, end{b, Interface, true})
		},
	}, nil
}

// NewUplinkRelay joins a container and the outside by a program that passes
// frames between a TAP and the host's uplink: command, to which the file of the
// container's namespace and the uplink's name are added. Nobody routes or
// translates: the outside has the gateway's address too.
//
//	A: eth0 (TAP) ── relay ── wan0 ── veth ── eth0 .254 :B
func NewUplinkRelay(ctx context.Context, l *lab.Lab, name string, command []string) (*Path, error) {
	a, host, b, err := NewOutside(ctx, l, name)
	if err != nil {
		return nil, err
	}
	// The host's stack is not to speak at the relay's port.
	if err := host.Sysctl("net/ipv6/conf/"+Uplink+"/disable_ipv6", "1"); err != nil {
		return nil, err
	}
	p, err := startRelay(ctx, host, append(command, a.Path(), Uplink))
	if err != nil {
		return nil, err
	}
	if err := setUpTAP(ctx, a); err != nil {
		return nil, err
	}
	if err := addressInside(ctx, a); err != nil {
		return nil, err
	}
	if err := b.AddAddress(Interface, Gateway+"/24"); err != nil {
		return nil, err
	}
	return &Path{
		Name: name, About: "a null relay, TAP port and uplink (AF_PACKET), no NAT", A: a, B: b,
		Server: AddrOutside, External: AddrA, PIDs: []int{p.PID()},
		Count: func(context.Context) (Counts, error) {
			return countsAt(end{a, Interface, true}, end{host, Uplink, false})
		},
	}, nil
}

// NewVethRelay joins two containers by a program that passes frames between
// two veth ends: command, to which the ends' names are added.
//
//	A: eth0 ── veth ── port-a ┐
//	                          ├ relay
//	B: eth0 ── veth ── port-b ┘
func NewVethRelay(ctx context.Context, l *lab.Lab, name string, command []string) (*Path, error) {
	a, b, err := NewContainers(l, name)
	if err != nil {
		return nil, err
	}
	host, err := l.NewNetNS(name)
	if err != nil {
		return nil, err
	}
	for _, end := range []struct {
		name string
		of   *lab.NetNS
	}{{portA, a}, {portB, b}} {
		if err := l.Veth(host, end.name, end.of, Interface); err != nil {
			return nil, err
		}
		// The host's stack is not to speak at the relay's ports.
		if err := host.Sysctl("net/ipv6/conf/"+end.name+"/disable_ipv6", "1"); err != nil {
			return nil, err
		}
	}
	p, err := startRelay(ctx, host, append(command, portA, portB))
	if err != nil {
		return nil, err
	}
	if err := address(a, b); err != nil {
		return nil, err
	}
	return &Path{
		Name: name, About: "a null relay, veth ports (AF_PACKET)", A: a, B: b, Server: AddrB, PIDs: []int{p.PID()},
		Count: func(context.Context) (Counts, error) { return portCounts(host) },
	}, nil
}

// setUpTAP sets a container's TAP up, without a queueing discipline, as swd's has
// none.
func setUpTAP(ctx context.Context, n *lab.NetNS) error {
	if _, err := n.Run(ctx, "tc", "qdisc", "replace", "dev", Interface, "root", "noqueue"); err != nil {
		return err
	}
	return n.SetUp(Interface, true)
}

func startRelay(ctx context.Context, host *lab.NetNS, command []string) (*lab.Process, error) {
	p, err := host.Start(command...)
	if err != nil {
		return nil, err
	}
	return p, p.WaitStdout(ctx, relayReady)
}
