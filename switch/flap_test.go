package vswitch

import (
	"fmt"
	"testing"
	"time"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

func TestSixthMoveInASecondHoldsTheEntryForOne(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary, Ordinary)
	at := func(d time.Duration) { l.now = 10*time.Second + d }
	at(0)
	l.learn(1, 1)
	for i := range 5 {
		at(time.Duration(i+1) * 100 * time.Millisecond)
		expect(t, fmt.Sprint("move ", i+1), len(l.send(dataplane.PortID(2-i%2), wire.Broadcast, mac(1))), 2)
	}
	// It is on port 2 now.
	at(600 * time.Millisecond)
	expect(t, "sixth", l.send(1, wire.Broadcast, mac(1)), ids())
	expect(t, "mac-flapping", l.p[1].drops(dataplane.MACFlapping), 1)
	at(700 * time.Millisecond)
	expect(t, "held against a third port", l.send(3, wire.Broadcast, mac(1)), ids())
	expect(t, "but not where it is", l.send(2, wire.Broadcast, mac(1)), ids(1, 3))
	at(1599 * time.Millisecond)
	expect(t, "until a second has passed", l.send(1, wire.Broadcast, mac(1)), ids())
	expect(t, "frames go where it is held", l.send(3, mac(1), mac(3)), ids(2))
	at(1600 * time.Millisecond)
	expect(t, "then it moves", l.send(1, wire.Broadcast, mac(1)), ids(2, 3))

	st := l.net.Stats()
	expect(t, "moves, held", fmt.Sprint(st.Moves, st.Held), "6 1")
	buf := make([]FlapEvent, 8)
	n, lost := l.sw.TakeFlaps(buf)
	expect(t, "events", fmt.Sprint(n, lost), "1 0")
	expect(t, "event", buf[0], FlapEvent{Network: l.net, MAC: mac(1), Port: 2, Other: 1, Now: int64(10600 * time.Millisecond)})
}

func TestFiveMovesInASecondAreNoFlapping(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary)
	for i := range 100 {
		l.learn(dataplane.PortID(1+i%2), 1)
		l.now += 201 * time.Millisecond
	}
	st := l.net.Stats()
	expect(t, "moves, held", fmt.Sprint(st.Moves, st.Held), "99 0")
}

func TestMovesBetweenManyPortsAreNoFlapping(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary, Ordinary)
	for i := range 100 {
		l.learn(dataplane.PortID(1+i%3), 1)
	}
	expect(t, "held", l.net.Stats().Held, 0)
}

func TestFlapEventsAreRateLimitedBoundedAndTheirLossCounted(t *testing.T) {
	l := newLab(t, 1000, NetworkConfig{}, Ordinary, Ordinary)
	for range 5 { // Seconds.
		for i := range 8 {
			l.learn(dataplane.PortID(1+i%2), 1)
		}
		l.now += 1100 * time.Millisecond
	}
	buf := make([]FlapEvent, 2*flapEvents)
	n, _ := l.sw.TakeFlaps(buf)
	expect(t, "events of one MAC in 10 s", n, 1)
	for s := range flapEvents + 10 {
		for i := range 8 {
			l.learn(dataplane.PortID(1+i%2), 100+s)
		}
	}
	n, lost := l.sw.TakeFlaps(buf)
	expect(t, "events, lost", fmt.Sprint(n, lost), fmt.Sprint(flapEvents, 10))
}

func TestFlapTableForgetsTheMACThatMovedLongestAgo(t *testing.T) {
	var f flapTable
	for i := range 10 * len(f.movers) {
		f.move(nil, keyOf(uint64(mac(i))<<16, 1), 1, 2, int64(i))
	}
	for i := range 2 {
		k := keyOf(uint64(mac(10*len(f.movers)-1-i))<<16, 1)
		expect(t, "a recent one", f.find(k).key, k)
	}
	k := keyOf(uint64(mac(0))<<16, 1)
	expect(t, "the first is there", f.find(k).key == k, false)
}
