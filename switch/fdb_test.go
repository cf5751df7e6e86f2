package vswitch

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// known returns the network's entries as "station@port" in order.
func (l *lab) known() []string {
	var s []string
	for e := range l.sw.Entries(int64(l.now)) {
		if e.Network != l.net {
			continue
		}
		mark := ""
		if e.Static {
			mark = "!"
		}
		s = append(s, fmt.Sprintf("%d@%d%s", e.MAC-mac(0), e.Port, mark))
	}
	slices.Sort(s)
	return s
}

// learn has the stations send a broadcast each by the port.
func (l *lab) learn(in dataplane.PortID, stations ...int) {
	for _, s := range stations {
		l.send(in, wire.Broadcast, mac(s))
	}
}

func TestAgeingIs300SecondsByDefault(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary, Ordinary)
	expect(t, "ageing", l.net.Config().Ageing, 300*time.Second)
	l.learn(1, 1)
	l.now = 300 * time.Second
	expect(t, "at 300 s", l.send(2, mac(1), mac(2)), ids(1))
	l.now = 301 * time.Second
	expect(t, "at 301 s, before it is swept", l.send(2, mac(1), mac(2)), ids(1, 3))
	expect(t, "entries then", l.known(), []string{"2@2"})
	expect(t, "swept", l.sw.Expire(int64(l.now), 100), 1)
	expect(t, "aged", l.net.Stats().Aged, 1)
	expect(t, "MACs", l.net.Stats().MACs, 1)
}

func TestAFrameFromTheStationRefreshesItsEntry(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{Ageing: 10 * time.Second}, Ordinary, Ordinary, Ordinary)
	for range 5 {
		l.learn(1, 1)
		l.now += 9 * time.Second
	}
	expect(t, "swept", l.sw.Expire(int64(l.now), 100), 0)
	expect(t, "known", l.send(2, mac(1), mac(2)), ids(1))
	l.now += 20 * time.Second
	l.learn(2, 1)
	expect(t, "seen elsewhere after it aged", l.send(1, mac(1), mac(3)), ids(2))
	expect(t, "is no move", l.net.Stats().Moves, 0)
}

func TestAgeingChangesOnALiveNetwork(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary, Ordinary)
	l.learn(1, 1)
	l.now = 20 * time.Second
	l.must(l.net.Configure(NetworkConfig{Ageing: 5 * time.Second}))
	expect(t, "shorter", l.send(2, mac(1), mac(2)), ids(1, 3))
	l.must(l.net.Configure(NetworkConfig{Ageing: time.Minute}))
	expect(t, "longer", l.send(2, mac(1), mac(2)), ids(1))
}

func TestExpireKeepsToItsBudgetAndStarvesNoPort(t *testing.T) {
	l := newLab(t, 1000, NetworkConfig{Ageing: time.Second}, Ordinary, Ordinary)
	for i := range 300 {
		l.learn(1, i)
	}
	l.learn(2, 500)
	l.now = time.Minute
	expect(t, "first", l.sw.Expire(int64(l.now), 200), 200)
	expect(t, "second", l.sw.Expire(int64(l.now), 200), 101)
	expect(t, "third", l.sw.Expire(int64(l.now), 200), 0)
}

func TestStaticEntriesNeitherAgeNorMove(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary, Ordinary)
	l.must(l.net.AddStatic(mac(1), 1))
	l.now = 1000 * time.Hour
	expect(t, "swept", l.sw.Expire(int64(l.now), 100), 0)
	expect(t, "after 1000 h", l.send(2, mac(1), mac(2)), ids(1))
	// Its frames are forwarded from anywhere, but it stays where it is.
	expect(t, "from elsewhere", l.send(3, mac(2), mac(1)), ids(2))
	expect(t, "still", l.send(2, mac(1), mac(2)), ids(1))
	expect(t, "moves", l.net.Stats().Moves, 0)
	_, err := l.net.Flush(0)
	l.must(err)
	expect(t, "after a flush", l.known(), []string{"1@1!"})
}

func TestAStaticEntryTakesTheDynamicOnesPlace(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary)
	l.learn(1, 1)
	l.must(l.net.AddStatic(mac(1), 2))
	l.must(l.net.AddStatic(mac(1), 2))
	expect(t, "entries", l.known(), []string{"1@2!"})
	expect(t, "static", l.net.Stats().Static, 1)
	l.must(l.net.Remove(mac(1)))
	expect(t, "removed", l.known(), []string(nil))
}

func TestLinkDownForgetsThePortsDynamicEntries(t *testing.T) {
	l := newLab(t, 1000, NetworkConfig{}, Ordinary, Ordinary)
	for i := range 200 {
		l.learn(1, i)
	}
	l.learn(2, 500)
	l.must(l.net.AddStatic(mac(501), 1))
	n, err := l.net.Flush(1)
	expect(t, "flushed", fmt.Sprint(n, err), "200 <nil>")
	expect(t, "left", l.known(), []string{"500@2", "501@1!"})
}

func TestPortRemovalForgetsAllItsEntries(t *testing.T) {
	l := newLab(t, 1000, NetworkConfig{}, Ordinary, Ordinary)
	for i := range 200 {
		l.learn(1, i)
	}
	l.learn(2, 500)
	l.must(l.net.AddStatic(mac(501), 1))
	l.must(l.net.Detach(1))
	expect(t, "left", l.known(), []string{"500@2"})
	expect(t, "its frames", l.send(1, wire.Broadcast, mac(1)), ids())
	expect(t, "strays", l.sw.Strays(), 1)
	expect(t, "to it", l.send(2, mac(7), mac(500)), ids())

	// The number is given again, on another network.
	other := l.network(NetworkConfig{})
	l.attach(other, 1, PortConfig{})
	expect(t, "stale network", l.send(1, wire.Broadcast, mac(1)), ids())
	expect(t, "left", l.known(), []string{"500@2"})
}

func TestWhenFullTheOldestOfThePortThatHoldsMostGoes(t *testing.T) {
	l := newLab(t, 10, NetworkConfig{}, Ordinary, Ordinary)
	l.learn(2, 101, 102, 103)
	l.learn(1, 1, 2, 3, 4, 5, 6, 7)
	l.now += time.Second
	l.learn(1, 1) // 2 is the oldest now.
	for i := 8; i < 100; i++ {
		l.learn(1, i)
	}
	expect(t, "the flooding port pushes out its own", l.known(),
		[]string{"101@2", "102@2", "103@2", "93@1", "94@1", "95@1", "96@1", "97@1", "98@1", "99@1"})
	l.learn(2, 104, 105)
	expect(t, "another's new ones cost it", l.known(),
		[]string{"101@2", "102@2", "103@2", "104@2", "105@2", "95@1", "96@1", "97@1", "98@1", "99@1"})
	expect(t, "evicted", l.net.Stats().Evicted, 94)
	expect(t, "bound", l.sw.Stats().MACs, 10)
}

func TestTheOldestIsTheOneNotSeenForLongest(t *testing.T) {
	l := newLab(t, 3, NetworkConfig{}, Ordinary, Ordinary)
	for i := range 3 {
		l.learn(1, i+1)
		l.now += time.Second
	}
	l.learn(1, 1)
	l.learn(1, 4)
	expect(t, "left", l.known(), []string{"1@1", "3@1", "4@1"})
}

func TestMaxMACsOfANetworkCostsNoOther(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{MaxMACs: 3}, Ordinary, Ordinary)
	other := l.network(NetworkConfig{})
	l.attach(other, 3, PortConfig{})
	for i := range 10 {
		l.sendTo(other, 3, frame(wire.Broadcast, mac(i), "x"))
	}
	l.learn(1, 1, 2, 3, 4, 5)
	expect(t, "here", l.known(), []string{"3@1", "4@1", "5@1"})
	expect(t, "there", other.Stats().MACs, 10)
	expect(t, "evicted", fmt.Sprint(l.net.Stats().Evicted, other.Stats().Evicted), "2 0")

	l.must(l.net.Configure(NetworkConfig{MaxMACs: 1}))
	expect(t, "lowered", l.known(), []string{"5@1"})
	l.must(l.net.Configure(NetworkConfig{MaxMACs: 2}))
	l.learn(2, 9)
	expect(t, "raised", l.known(), []string{"5@1", "9@2"})
}

func TestStaticEntriesAreNeverEvicted(t *testing.T) {
	l := newLab(t, 2, NetworkConfig{}, Ordinary, Ordinary)
	l.must(l.net.AddStatic(mac(1), 1))
	l.learn(1, 5)
	l.must(l.net.AddStatic(mac(2), 1)) // Costs the dynamic one.
	l.learn(2, 6)
	expect(t, "entries", l.known(), []string{"1@1!", "2@1!"})
	expect(t, "refused", l.net.Stats().Refused, 1)
	err := l.net.AddStatic(mac(3), 1)
	expect(t, "third", errors.Is(err, ErrFull), true)
}

func TestEntriesTellPortAgeAndKind(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{}, Ordinary, Ordinary)
	l.now = 5 * time.Second
	l.learn(2, 7)
	l.must(l.net.AddStatic(mac(8), 1))
	l.now = 47 * time.Second
	for e := range l.sw.Entries(int64(l.now)) {
		want := Entry{Network: l.net, MAC: mac(7), Port: 2, Age: 42 * time.Second}
		if e.Static {
			want = Entry{Network: l.net, MAC: mac(8), Port: 1, Static: true}
		}
		expect(t, "entry", e, want)
		one, ok := l.net.Lookup(e.MAC, int64(l.now))
		expect(t, "lookup", one, want)
		expect(t, "found", ok, true)
	}
	_, ok := l.net.Lookup(mac(9), int64(l.now))
	expect(t, "unknown", ok, false)
}

// Entries that are there all the while come exactly once, whatever is removed
// and learnt between two pieces.
func TestEntriesMissNoneThatStays(t *testing.T) {
	const stay, go1 = 5000, 5000
	l := newLab(t, stay+go1, NetworkConfig{}, Ordinary)
	for i := range stay + go1 {
		l.learn(1, i)
	}
	seen := map[wire.MAC]int{}
	gone, made := stay, stay+go1
	for e := range l.sw.Entries(0) {
		seen[e.MAC]++
		if gone < stay+go1 {
			l.must(l.net.Remove(mac(gone)))
			gone++
			l.learn(1, made)
			made++
		}
	}
	for i := range stay {
		if n := seen[mac(i)]; n != 1 {
			t.Fatalf("station %d came %d times", i, n)
		}
	}
	for m, n := range seen {
		if n != 1 {
			t.Errorf("%v came %d times", m, n)
		}
	}
}

func TestControlRefusesWhatItCannotDo(t *testing.T) {
	l := newLab(t, 100, NetworkConfig{VNI: 7}, Ordinary)
	l.must(l.net.AddStatic(mac(1), 1))
	gone := l.network(NetworkConfig{})
	l.must(l.sw.RemoveNetwork(gone))
	port := l.p[1]
	second := func(_ any, err error) error { return err }
	tests := []struct {
		name string
		err  error
		want error
	}{
		{"VNI taken", second(l.sw.AddNetwork(NetworkConfig{VNI: 7})), ErrInUse},
		{"VNI too large", second(l.sw.AddNetwork(NetworkConfig{VNI: 1 << 24})), ErrInvalid},
		{"ageing below 0", second(l.sw.AddNetwork(NetworkConfig{Ageing: -1})), ErrInvalid},
		{"ageing too long", second(l.sw.AddNetwork(NetworkConfig{Ageing: MaxAgeing + 1})), ErrInvalid},
		{"max MACs below 0", second(l.sw.AddNetwork(NetworkConfig{MaxMACs: -1})), ErrInvalid},
		{"another VNI", l.net.Configure(NetworkConfig{VNI: 8}), ErrInvalid},
		{"network with ports", l.sw.RemoveNetwork(l.net), ErrInUse},
		{"network removed before", l.sw.RemoveNetwork(gone), ErrUnknown},
		{"port 0", l.net.Attach(0, port, PortConfig{}), ErrInvalid},
		{"port too high", l.net.Attach(dataplane.MaxPorts, port, PortConfig{}), ErrInvalid},
		{"port taken", l.net.Attach(1, port, PortConfig{}), ErrInUse},
		{"role", l.net.Attach(2, port, PortConfig{Role: roles}), ErrInvalid},
		{"MTU too small", l.net.Attach(2, port, PortConfig{MTU: 67}), ErrInvalid},
		{"MTU too large", l.net.SetMTU(1, 65536), ErrInvalid},
		{"attach to no network", gone.Attach(2, port, PortConfig{}), ErrUnknown},
		{"swap of no port", l.net.Swap(2, port), ErrUnknown},
		{"detach of no port", l.net.Detach(2), ErrUnknown},
		{"detach out of bounds", l.net.Detach(65535), ErrUnknown},
		{"flush of no port", second(l.net.Flush(2)), ErrUnknown},
		{"static on no port", l.net.AddStatic(mac(2), 2), ErrUnknown},
		{"static on another port", l.net.AddStatic(mac(1), 2), ErrUnknown},
		{"static zero", l.net.AddStatic(0, 1), ErrInvalid},
		{"static multicast", l.net.AddStatic(0x01005e000001, 1), ErrInvalid},
		{"static beyond 48 bits", l.net.AddStatic(1<<48|2, 1), ErrInvalid},
		{"remove of no MAC", l.net.Remove(mac(9)), ErrUnknown},
	}
	for _, tt := range tests {
		if !errors.Is(tt.err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, tt.err, tt.want)
		}
	}
	expect(t, "entries", l.known(), []string{"1@1!"})
	l.attach(l.net, 2, PortConfig{})
	if err := l.net.AddStatic(mac(1), 2); !errors.Is(err, ErrInUse) {
		t.Errorf("static on two ports: got %v, want %v", err, ErrInUse)
	}
}

func TestNetworksAreBounded(t *testing.T) {
	sw := New(1, 10)
	for range MaxNetworks - 1 {
		if _, err := sw.AddNetwork(NetworkConfig{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := sw.AddNetwork(NetworkConfig{}); !errors.Is(err, ErrFull) {
		t.Errorf("one more: got %v, want %v", err, ErrFull)
	}
}

func TestCountersOfRemovedNetworksAreKept(t *testing.T) {
	l := newLab(t, 10, NetworkConfig{}, Ordinary, Ordinary)
	l.learn(1, 1)
	l.learn(2, 1)
	l.must(l.net.Detach(1))
	l.must(l.net.Detach(2))
	l.must(l.sw.RemoveNetwork(l.net))
	st := l.sw.Stats()
	expect(t, "MACs, learned, moves", fmt.Sprint(st.MACs, st.Learned, st.Moves), "0 1 1")
}

// The zero MAC is no station's, but frames may be sent to it: their look-up must
// not find what a removal leaves behind for a moment.
func TestNobodyLooksUpAGoneCell(t *testing.T) {
	for _, network := range []uint16{1, MaxNetworks - 1} {
		for _, m := range []wire.MAC{0, 1, wire.Broadcast} {
			if keyOf(uint64(m)<<16, network) == gone {
				t.Errorf("%v on network %d has the key of a gone cell", m, network)
			}
		}
	}
}
