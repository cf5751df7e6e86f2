package baseline

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"heddle/bench/lab"
)

func TestMasquerade(t *testing.T) {
	l := lab.New(t)
	p, err := NewMasquerade(t.Context(), l.Lab)
	l.NoError(err)
	before, err := p.Count(t.Context())
	l.NoError(err)
	l.Run(p.A, "ping", "-c20", "-i0.01", "-s1000", "-W10", p.Server)
	after, err := p.Count(t.Context())
	l.NoError(err)
	carried := Count{Frames: 20, Bytes: 20 * (1000 + 42)}
	l.NoError(Verify(before, after, Least{AToB: carried, BToA: carried, Conns: 1}, nil))
	if err := Verify(before, after, Least{Conns: 2}, nil); err == nil {
		t.Errorf("one ping passed as two connections: %+v to %+v", before, after)
	}
	if mac, err := p.GatewayMAC(); err != nil || len(mac) != 6 {
		t.Errorf("the gateway's MAC: %v, %v", mac, err)
	}
	if n, err := p.NAT.Conns(t.Context()); err != nil || n < 1 {
		t.Errorf("%d connections, %v", n, err)
	}
	if n, err := p.NAT.Memory(t.Context()); err != nil || n < 200 {
		t.Errorf("%d bytes, %v", n, err)
	}

	// Inwards, from the outside's own address, and only by the published port.
	if got := asked(l, p, PublishedPort); got != AddrOutside {
		t.Errorf("the published port was asked from %q", got)
	}
	l.Eventually(20*time.Second, "SYN, ACK and FIN, and two answers, are counted", func() error {
		inward, err := p.Count(t.Context())
		if err != nil {
			return err
		}
		return Verify(after, inward, Least{AToB: Count{Frames: 2}, BToA: Count{Frames: 3}, Conns: 1}, nil)
	})
	if got := asked(l, p, PublishedPort+1); got != "" {
		t.Errorf("another port was asked from %q", got)
	}

	// A segment that is still under way begins one anew (nf_conntrack_tcp_loose).
	l.Eventually(20*time.Second, "no connection after a flush", func() error {
		if err := p.NAT.Flush(t.Context()); err != nil {
			return err
		}
		n, err := p.NAT.Conns(t.Context())
		if err == nil && n != 0 {
			err = fmt.Errorf("%d are left", n)
		}
		return err
	})
	if p.NAT.MaxConns < 1 {
		t.Errorf("%d connections at most", p.NAT.MaxConns)
	}
}

// asked listens on a port of A, connects from B to the same one of the external
// address, and returns the address that A was asked from; none if the
// connection was refused.
func asked(l *lab.T, p *Path, port int) string {
	l.Helper()
	var listener net.Listener
	l.NoError(p.A.Do(func() (err error) {
		listener, err = net.ListenTCP("tcp4", &net.TCPAddr{Port: port})
		return err
	}))
	from := make(chan string, 1)
	go func() {
		defer close(from)
		c, err := listener.Accept()
		if err != nil {
			return // Closed without a connection.
		}
		from <- c.RemoteAddr().(*net.TCPAddr).IP.String()
		_ = c.Close()
	}()
	err := p.B.Do(func() error {
		c, err := net.DialTCP("tcp4", nil, &net.TCPAddr{IP: net.ParseIP(p.External), Port: port})
		if err != nil {
			return err
		}
		_, err = io.ReadAll(c)
		_ = c.Close()
		return err
	})
	_ = listener.Close()
	if err != nil {
		return ""
	}
	return <-from
}

// What nft 1.0.6 -j prints, shortened.
func TestRuleHits(t *testing.T) {
	const list = `{"nftables": [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
		{"counter": {"family": "ip", "name": "out", "table": "docker", "handle": 1, "packets": 7, "bytes": 420}},
		{"counter": {"family": "ip", "name": "in", "table": "docker", "handle": 2, "packets": 3, "bytes": 180}}]}`
	if got, err := ruleHits(list); err != nil || got != 10 {
		t.Errorf("%d, %v", got, err)
	}
	for _, bad := range []string{"", `{"nftables": []}`, "Error: No such file or directory"} {
		if _, err := ruleHits(bad); err == nil {
			t.Errorf("%q: accepted", bad)
		}
	}
}

func TestSlabMemory(t *testing.T) {
	const info = `slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>
nf_conntrack_expect      0      0    208   19    1 : tunables    0    0    0 : slabdata      0      0      0
nf_conntrack         100    128    256   16    1 : tunables    0    0    0 : slabdata      8      8      0
`
	if got, err := slabMemory(info, "nf_conntrack"); err != nil || got != 25600 {
		t.Errorf("%d, %v", got, err)
	}
	if _, err := slabMemory(info, "nf_conn"); err == nil {
		t.Error("a cache that isn't there was found")
	}
	if _, err := slabMemory("nf_conn many more 256\n", "nf_conn"); err == nil {
		t.Error("words were taken for numbers")
	}
}
