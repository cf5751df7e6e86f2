package e2e

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"heddle/ctl/api"
)

// A container is named by a process in it, and gets its address from the
// network's subnet and its default route from the network's gateway.
//
//	process in namespace pid ── swd, network with subnets and gateways ── heddle1, the gateway's address
func TestByPIDWithAutomaticAddress(t *testing.T) {
	w := newWorld(t,
		"--subnet", "198.18.0.0/24", "--gateway", "198.18.0.1",
		"--subnet", "2001:db8::/64", "--gateway", "2001:db8::1")
	gateway := w.add(onHost) // Takes .1 and ::1.
	n := w.NewNetNS("pid")
	process, err := n.Start("sleep", "300")
	w.NoError(err)
	w.ctl("port", "add", "web", "--network", network, "--pid", strconv.Itoa(process.PID()),
		"--ip", "auto", "--mac", "02:00:00:00:00:77", "--default-route")
	p, err := w.swd.Port(t.Context(), "web")
	w.NoError(err)
	if p.State != api.StateUp || p.IfName != "eth0" || p.MAC != "02:00:00:00:00:77" || len(p.IPs) == 0 {
		t.Fatalf("the port is %+v", p)
	}
	for _, ip := range p.IPs {
		prefix, err := netip.ParsePrefix(ip)
		if err != nil || prefix.Addr().String() == gateway.ip4 || prefix.Addr().String() == gateway.ip6 {
			t.Errorf("automatic address %q: %v", ip, err)
		}
		w.reach(gateway, prefix.Addr().String())
	}
	// Outside the subnet, by the default route.
	w.NoError(w.host.AddAddress("lo", "198.51.100.1/32"))
	web := &station{name: "web", ns: n, ifname: "eth0"}
	w.reach(web, "198.51.100.1")
	routes := w.Run(n, "ip", "route")
	if !strings.Contains(routes, "default via 198.18.0.1") {
		t.Errorf("the routes are\n%s", routes)
	}
}

// swctl capture writes a pcapng that others read, filtered.
//
//	container tap1 ── swd ── container veth2: ping, while the port tap1 is captured
func TestCapture(t *testing.T) {
	w := newWorld(t)
	a, b := w.add(onTAP), w.add(onVeth)
	w.reach(a, b.ip4)
	var requests, replies int
	for _, p := range w.capture(func() {
		w.reach(a, b.ip6) // Not what the filter wants.
		w.pingOnce(a, b.ip4)
		w.pingOnce(a, b.ip4)
	}, a.name, "-c", "4", "icmp and host "+b.ip4) {
		icmp, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
		switch {
		case !ok:
			t.Errorf("captured %v", p)
		case icmp.TypeCode.Type() == layers.ICMPv4TypeEchoRequest:
			requests++
		case icmp.TypeCode.Type() == layers.ICMPv4TypeEchoReply:
			replies++
		}
	}
	if requests != 2 || replies != 2 {
		t.Errorf("captured %d requests and %d replies", requests, replies)
	}
}

// capture runs swctl capture with the arguments, which make it end by itself,
// while something happens, and returns what is in the file.
func (w *world) capture(happens func(), args ...string) (packets []gopacket.Packet) {
	w.Helper()
	file := filepath.Join(w.Dir(), "capture.pcapng")
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(w.Context(), 3*patience)
	defer cancel()
	go func() {
		_, err := w.swd.Control(ctx, append([]string{"capture", "-w", file}, args...)...)
		done <- err
	}()
	// The capture begins when its file has a header.
	w.Eventually(patience, "capture started", func() error {
		info, err := os.Stat(file)
		if err == nil && info.Size() == 0 {
			err = errNotYet
		}
		return err
	})
	happens()
	w.NoError(<-done)
	f, err := os.Open(file)
	w.NoError(err)
	defer func() { w.NoError(f.Close()) }()
	r, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	w.NoError(err)
	for {
		data, _, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return packets
		}
		w.NoError(err)
		packets = append(packets, gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default))
	}
}
