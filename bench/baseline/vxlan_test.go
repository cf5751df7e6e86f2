package baseline

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"heddle/bench/lab"
)

func TestVXLAN(t *testing.T) {
	l := lab.New(t)
	p, err := NewVXLAN(t.Context(), l.Lab)
	l.NoError(err)
	carries(l, p)
	carriesAcross(l, p)
}

func TestOVSVXLAN(t *testing.T) {
	l := lab.New(t)
	p, err := NewOVSVXLAN(t.Context(), l.Lab)
	if errors.Is(err, ErrNotInstalled) {
		t.Logf("Open vSwitch is optional: %v", err)
		return
	}
	l.NoError(err)
	carries(l, p)
	carriesAcross(l, p)
	if !strings.Contains(p.About, "Open vSwitch") || len(p.PIDs) != 2 {
		t.Errorf("path %+v", p)
	}
}

// carriesAcross sends packets as long as containers may across the tunnel, and
// has its counters account for them alone, header by header.
func carriesAcross(l *lab.T, p *Path) {
	l.Helper()
	const pings = 100
	before, err := p.Count(l.Context())
	l.NoError(err)
	l.Run(p.A, "ping", "-c"+strconv.Itoa(pings), "-i0.005", "-Mdo", "-s1422", "-W10", AddrB)
	if _, err := p.A.Run(l.Context(), "ping", "-c1", "-Mdo", "-s1423", "-W1", AddrB); err == nil {
		l.Error("a longer packet than the MTU got across")
	}
	after, err := p.Count(l.Context())
	l.NoError(err)
	if !p.Hosts || before.Tunnel == nil || after.Tunnel == nil {
		l.Fatalf("no tunnel is counted: %+v, %+v", p, after)
	}
	// Not more than there was either, which would pass for other traffic: ARP, ND
	// and MLD make some frames, of fewer bytes than the tunnel's headers would be.
	const frame, strays = 1422 + 42, 40 * pings
	for where, c := range map[string][2]Count{
		"into the tunnel at A's host":   {before.Tunnel.EncapA, after.Tunnel.EncapA},
		"out of the tunnel at B's host": {before.Tunnel.DecapB, after.Tunnel.DecapB},
		"into the tunnel at B's host":   {before.Tunnel.EncapB, after.Tunnel.EncapB},
		"out of the tunnel at A's host": {before.Tunnel.DecapA, after.Tunnel.DecapA},
	} {
		bytes := c[1].Bytes - c[0].Bytes
		if bytes < pings*frame || bytes > pings*frame+strays {
			l.Errorf("%d bytes of %d pings, %d each, %s", bytes, pings, frame, where)
		}
	}
}
