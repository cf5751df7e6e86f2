package vswitch

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"heddle/dataplane"
)

// Ports 1 and 2 are ordinary, 3 and 4 tunnels.
func announceLab(t *testing.T, maxMACs int) *lab {
	return newLab(t, maxMACs, NetworkConfig{}, Ordinary, Ordinary, Tunnel, Tunnel)
}

func TestAnnouncedUnicastIsNeverFlooded(t *testing.T) {
	l := announceLab(t, 100)
	l.must(l.net.Announce(mac(9), 3))
	expect(t, "at once", l.send(1, mac(9), mac(1)), ids(3))
	l.now = 1000 * time.Hour
	expect(t, "expired", l.sw.Expire(int64(l.now), 100), 1) // mac(1)
	expect(t, "after 1000 h", l.send(1, mac(9), mac(1)), ids(3))
	e, ok := l.net.Lookup(mac(9), int64(l.now))
	expect(t, "entry", fmt.Sprint(ok, e.Announced, e.Static, e.Port, e.Age), "true true false 3 0s")
	expect(t, "stats", fmt.Sprint(l.net.Stats().Announced, l.net.Stats().Static), "1 0")
}

func TestAnAnnouncedStationMovesOnlyToALocalPort(t *testing.T) {
	l := announceLab(t, 100)
	l.must(l.net.Announce(mac(9), 3))
	l.send(4, mac(1), mac(9))
	expect(t, "data from another tunnel", l.send(1, mac(9), mac(1)), ids(3))
	l.send(3, mac(1), mac(9))
	expect(t, "data from its own", l.send(1, mac(9), mac(1)), ids(3))
	expect(t, "moves", l.net.Stats().Moves, 0)
	l.send(2, mac(1), mac(9))
	expect(t, "data from a local port", l.send(1, mac(9), mac(1)), ids(2))
	expect(t, "moves", l.net.Stats().Moves, 1)
	expect(t, "announced", l.net.Stats().Announced, 0)
	expect(t, "withdrawn", l.net.Withdraw(mac(9), 3), false)
	expect(t, "after that", l.send(1, mac(9), mac(1)), ids(2))
}

func TestAnnouncingToAndFroIsNoFlapping(t *testing.T) {
	l := announceLab(t, 100)
	for range 20 {
		l.must(l.net.Announce(mac(9), 3))
		expect(t, "there", l.send(1, mac(9), mac(1)), ids(3))
		l.send(2, mac(1), mac(9))
		expect(t, "here", l.send(1, mac(9), mac(1)), ids(2))
		l.must(l.net.Announce(mac(9), 4))
		expect(t, "elsewhere", l.send(1, mac(9), mac(1)), ids(4))
	}
	expect(t, "held", l.net.Stats().Held, 0)
	expect(t, "drops", l.p[2].drops(dataplane.MACFlapping), 0)
}

func TestWithdrawTakesBackOnlyWhatWasSaid(t *testing.T) {
	l := announceLab(t, 100)
	l.must(l.net.Announce(mac(9), 3))
	l.must(l.net.Announce(mac(9), 4)) // The station has moved on.
	expect(t, "the old place", l.net.Withdraw(mac(9), 3), false)
	expect(t, "still", l.send(1, mac(9), mac(1)), ids(4))
	expect(t, "the new place", l.net.Withdraw(mac(9), 4), true)
	expect(t, "flooded", l.send(1, mac(9), mac(1)), ids(2, 3, 4))
	expect(t, "twice", l.net.Withdraw(mac(9), 4), false)

	l.must(l.net.AddStatic(mac(8), 1))
	expect(t, "a static one", l.net.Withdraw(mac(8), 1), false)
	if err := l.net.Announce(mac(8), 3); !errors.Is(err, ErrInUse) {
		t.Errorf("announce a static MAC: got %v, want %v", err, ErrInUse)
	}
	l.must(l.net.Announce(mac(7), 3))
	l.must(l.net.Detach(3))
	expect(t, "after its port has gone", l.net.Stats().Announced, 0)
}

func TestAnnouncedEntriesLeaveRoomToLearn(t *testing.T) {
	l := announceLab(t, 10)
	for i := range 5 {
		l.must(l.net.Announce(mac(100+i), 3))
	}
	if err := l.net.Announce(mac(200), 3); !errors.Is(err, ErrFull) {
		t.Errorf("one more: got %v, want %v", err, ErrFull)
	}
	expect(t, "refused", l.net.Stats().Refused, 1)
	for i := range 20 {
		l.learn(1, i)
	}
	expect(t, "announced", l.net.Stats().Announced, 5)
	expect(t, "the newest is known", l.send(2, mac(19), mac(50)), ids(1))
	_, err := l.net.Flush(0)
	l.must(err)
	expect(t, "after a flush", l.net.Stats().MACs, 5)
}

func TestAnnounceRefuses(t *testing.T) {
	l := announceLab(t, 10)
	for _, c := range []struct {
		what string
		err  error
		want error
	}{
		{"no port", l.net.Announce(mac(1), 9), ErrUnknown},
		{"zero", l.net.Announce(0, 3), ErrInvalid},
		{"multicast", l.net.Announce(0x01005e000001, 3), ErrInvalid},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: got %v, want %v", c.what, c.err, c.want)
		}
	}
}
