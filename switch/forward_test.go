package vswitch

import (
	"testing"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

func TestUnknownUnicastBroadcastAndMulticastGoToAllOthers(t *testing.T) {
	for name, dst := range map[string]wire.MAC{
		"unknown unicast":      mac(99),
		"broadcast":            wire.Broadcast,
		"multicast":            0x01005e000001,
		"01-80-c2-00-00-10":    0x0180c2000010,
		"IPv6 multicast (33:)": 0x333300000001,
	} {
		l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary, Ordinary, Ordinary)
		expect(t, name, l.send(2, dst, mac(2)), ids(1, 3, 4))
	}
}

func TestKnownUnicastGoesToOnePort(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary, Ordinary)
	l.send(1, wire.Broadcast, mac(1))
	expect(t, "to station 1", l.send(3, mac(1), mac(3)), ids(1))
	expect(t, "and back", l.send(1, mac(3), mac(1)), ids(3))
}

func TestNeverBackOutOfTheIngress(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary)
	l.send(1, wire.Broadcast, mac(1))
	expect(t, "to a station on the same port", l.send(1, mac(1), mac(11)), ids())
	expect(t, "same-port", l.p[1].drops(dataplane.SamePort), 1)
}
