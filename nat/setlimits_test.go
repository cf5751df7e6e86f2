package nat

import (
	"errors"
	"testing"
	"time"
)

func TestSetLimits(t *testing.T) {
	l := newLab(t, options{})
	l.outOne(udpPkt(hostA, 5000, far4, 53))
	l.must(l.n.SetLimits(Lifetimes{UDPOneWay: 10 * time.Second}, 2, 0))
	l.outOne(udpPkt(hostA, 5001, far4, 53))
	w, _ := l.out(udpPkt(hostA, 5002, far4b, 53))
	expect(t, "beyond the limit", len(w), 0)
	l.now += 11 * time.Second
	expect(t, "after the new lifetime", l.n.Count(Filter{}, int64(l.now)), 0)
	l.outOne(udpPkt(hostA, 5003, far4, 53))
	none := func(Conn) bool { return false }
	all := func(c Conn) bool { return c.Original.Src.Port() == 5003 }
	expect(t, "flushed none", l.n.FlushFunc(Filter{}, int64(l.now), none), 0)
	expect(t, "flushed one", l.n.FlushFunc(Filter{}, int64(l.now), all), 1)
	for _, err := range []error{
		l.n.SetLimits(Lifetimes{UDP: -1}, 0, 0),
		l.n.SetLimits(Lifetimes{ICMP: 2 * MaxLifetime}, 0, 0),
		l.n.SetLimits(Lifetimes{}, -1, 0),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%v", err)
		}
	}
}
