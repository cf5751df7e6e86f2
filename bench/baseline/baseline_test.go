package baseline

import (
	"errors"
	"strings"
	"testing"

	"heddle/bench/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

func TestBridge(t *testing.T) {
	l := lab.New(t)
	p, err := NewBridge(l.Lab)
	l.NoError(err)
	carries(l, p)
}

func TestOVS(t *testing.T) {
	l := lab.New(t)
	p, err := NewOVS(t.Context(), l.Lab)
	if errors.Is(err, ErrNotInstalled) {
		t.Logf("Open vSwitch is optional: %v", err)
		return
	}
	l.NoError(err)
	carries(l, p)
	if !strings.Contains(p.About, "Open vSwitch") || len(p.PIDs) != 1 {
		t.Errorf("path %+v", p)
	}
}

// carries pings from A to B and holds the path's counters against it.
func carries(l *lab.T, p *Path) {
	l.Helper()
	l.Run(p.A, "ping", "-c1", "-W10", AddrB)
	before, err := p.Count(l.Context())
	l.NoError(err)
	l.Run(p.A, "ping", "-c20", "-i0.01", "-s1000", "-W10", AddrB)
	l.Run(p.B, "ping", "-6", "-c1", "-W10", Addr6A)
	after, err := p.Count(l.Context())
	l.NoError(err)
	carried := Count{Frames: 20, Bytes: 20 * (1000 + 42)}
	l.NoError(Verify(before, after, Least{AToB: carried, BToA: carried}, nil))
	tooMuch := Count{Frames: 60, Bytes: 60 * (1000 + 42)}
	if err := Verify(before, after, Least{AToB: tooMuch, BToA: tooMuch}, nil); err == nil {
		l.Errorf("counters %+v to %+v passed for 60 pings", before, after)
	}
}

func TestVerify(t *testing.T) {
	before := Counts{FromA: Count{10, 1000}, ToB: Count{10, 1000}, FromB: Count{5, 300}, ToA: Count{5, 300}, Conns: 6}
	least := Least{AToB: Count{4, 400}, BToA: Count{2, 100}, Conns: 3}
	most := &Most{AToB: Count{5, 500}, BToA: Count{2, 100}, Conns: 3}
	good := Counts{FromA: Count{14, 1400}, ToB: Count{14, 1400}, FromB: Count{7, 400}, ToA: Count{7, 400}, Conns: 9}
	if err := Verify(before, good, least, most); err != nil {
		t.Errorf("what was carried is refused: %v", err)
	}
	bound := Count{14 + 1 + Stray.AToB.Frames, 1400 + 100 + Stray.AToB.Bytes}
	for _, c := range []struct {
		name, says string
		change     func(*Counts)
	}{
		{"in from A, frames", "went another way", func(c *Counts) { c.FromA.Frames-- }},
		{"in from A, bytes", "went another way", func(c *Counts) { c.FromA.Bytes-- }},
		{"out to B", "went another way", func(c *Counts) { c.ToB.Bytes-- }},
		{"in from B", "went another way", func(c *Counts) { c.FromB.Frames-- }},
		{"out to A", "went another way", func(c *Counts) { c.ToA.Bytes-- }},
		{"standing still", "went another way", func(c *Counts) { *c = before }},
		{"all but one standing still", "went another way", func(c *Counts) { c.ToB = before.ToB }},
		{"backwards", "ran backwards", func(c *Counts) { c.FromA.Bytes = 0 }},
		{"begun anew", "ran backwards", func(c *Counts) { *c = Counts{} }},
		{"connections", "untranslated", func(c *Counts) { c.Conns-- }},
		{"fewer connections", "ran backwards", func(c *Counts) { c.Conns = 5 }},
		{"more connections", "other traffic", func(c *Counts) { c.Conns += Stray.Conns + 1 }},
		{"more frames from A", "other traffic", func(c *Counts) { c.FromA.Frames = bound.Frames + 1 }},
		{"more frames to B", "other traffic", func(c *Counts) { c.ToB.Frames = bound.Frames + 1 }},
		{"more bytes from A", "other traffic", func(c *Counts) { c.FromA.Bytes = bound.Bytes + 1 }},
		{"more bytes to A", "other traffic", func(c *Counts) { c.ToA.Bytes = bound.Bytes + 1 }},
	} {
		after := good
		c.change(&after)
		if err := Verify(before, after, least, most); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
	atBound := good
	atBound.FromA, atBound.ToB = bound, bound
	if err := Verify(before, atBound, least, most); err != nil {
		t.Errorf("as much as there may be is refused: %v", err)
	}
}

// A path that gives out each frame twice gives itself away also where nobody
// knows how much there may have been.
func TestVerifyConserved(t *testing.T) {
	counts := func(in, out uint64) Counts {
		return Counts{FromA: Count{100, in}, ToB: Count{200, out}, FromB: Count{100, in}, ToA: Count{200, out}}
	}
	const megabyte = 1 << 20
	for _, c := range []struct {
		in, out uint64
		refused bool
	}{
		{10 * megabyte, 10 * megabyte, false}, {10 * megabyte, 0, false},
		{10 * megabyte, 10.5 * megabyte, false}, // Cut into segments.
		{10 * megabyte, 20 * megabyte, true},
		{100, Stray.AToB.Bytes, false},
	} {
		err := Verify(Counts{}, counts(c.in, c.out), Least{}, nil)
		if (err != nil) != c.refused {
			t.Errorf("%d bytes in, %d out: %v", c.in, c.out, err)
		}
	}
}

// A second way between the containers, or none, is no path to measure.
func TestIsolated(t *testing.T) {
	l := lab.New(t)
	p, err := NewBridge(l.Lab)
	l.NoError(err)
	l.NoError(p.Isolated())
	l.Veth(p.A, "beside", p.B, "beside")
	if err := p.Isolated(); err == nil || !strings.Contains(err.Error(), "beside") {
		t.Errorf("a second veth between the containers: %v", err)
	}
	l.NoError(p.A.DeleteLink("beside"))
	l.NoError(p.Isolated())
	l.NoError(p.B.SetUp(Interface, false))
	if err := p.Isolated(); err == nil {
		t.Error("an interface that is down passed")
	}
}

// What goes around the tunnel, or is lost in it, is no proof.
func TestVerifyTunnel(t *testing.T) {
	counts := func(n uint64) Counts {
		end := TunnelEnd{From: Count{n, 100 * n}, To: Count{n, 100 * n}, Encap: Count{n, 100 * n}, Decap: Count{n, 100 * n}}
		return TunnelCounts(end, end)
	}
	least := Least{AToB: Count{4, 400}, BToA: Count{4, 400}}
	if err := Verify(counts(10), counts(14), least, nil); err != nil {
		t.Errorf("what was carried is refused: %v", err)
	}
	for name, change := range map[string]func(*Tunnel){
		"encap at A": func(t *Tunnel) { t.EncapA.Frames-- },
		"decap at B": func(t *Tunnel) { t.DecapB.Bytes-- },
		"encap at B": func(t *Tunnel) { t.EncapB.Frames = 0 },
		"decap at A": func(t *Tunnel) { t.DecapA.Bytes-- },
	} {
		after := counts(14)
		change(after.Tunnel)
		if err := Verify(counts(10), after, least, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A dump of Open vSwitch 3.1.0.
const dump = ` cookie=0x1, duration=3.391s, table=0, n_packets=24, n_bytes=21540, in_port="port-a" actions=NORMAL
 cookie=0x2, duration=3.386s, table=0, n_packets=22, n_bytes=21322, idle_age=1, in_port="port-b" actions=NORMAL
`

func TestRuleCount(t *testing.T) {
	got, err := ruleCount(dump, 2)
	if err != nil || got != (Count{22, 21322}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := ruleCount(dump, 3); err == nil {
		t.Error("a rule that isn't there was found")
	}
}
