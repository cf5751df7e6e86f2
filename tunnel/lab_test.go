package tunnel

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"heddle/bench/lab"
	"heddle/dataplane"
	"heddle/dataplane/tap"
	vswitch "heddle/switch"
	"heddle/tunnel/underlay"
)

// patience is how long a test waits for something that takes milliseconds, on a
// machine that may stand still for seconds.
const patience = 30 * time.Second

func TestMain(m *testing.M) { lab.Main(m) }

// A container of Heddle's, and the kernel's own VXLAN as the peer:
//
//	┌ c ─────────────┐   ┌ host ───────────────┐   ┌ peer ──────────────────┐
//	│ tap0           ├───┤ switch ── VTEP   u0 ├───┤ u0      vx0 (VNI 42)   │
//	│ 198.18.0.1     │   │          192.0.2.1  │   │ 192.0.2.2  198.18.0.2  │
//	│ 2001:db8:1::1  │   │ 2001:db8:ffff::1    │   │ …::2    2001:db8:1::2  │
//	└────────────────┘   └─────────────────────┘   └────────────────────────┘
//
// tap0 has an MTU of 1,500, which the tunnel doesn't take; vx0's is 1,450, or
// 1,430 over IPv6.
type kernelPeer struct {
	*lab.T
	c, host, peer *lab.NetNS
	vtep          *VTEP
	tunnel        *Tunnel
}

func newKernelPeer(tb testing.TB, v6 bool) *kernelPeer {
	k := &kernelPeer{T: lab.New(tb)}
	k.c, k.host, k.peer = k.NewNetNS("c"), k.NewNetNS("host"), k.NewNetNS("peer")
	k.Veth(k.host, "u0", k.peer, "u0")
	outer := []string{"192.0.2.1", "192.0.2.2"}
	mtu := 1450
	if v6 {
		outer, mtu = []string{"2001:db8:ffff::1", "2001:db8:ffff::2"}, 1430
	}
	for i, n := range []*lab.NetNS{k.host, k.peer} {
		k.Run(n, "ip", "addr", "add", fmt.Sprintf("192.0.2.%d/24", i+1), "dev", "u0")
		k.Run(n, "ip", "addr", "add", fmt.Sprintf("2001:db8:ffff::%d/64", i+1), "dev", "u0", "nodad")
	}
	k.Run(k.peer, "ip", "link", "add", "vx0", "mtu", fmt.Sprint(mtu), "type", "vxlan", "id", "42", "dstport", "4789",
		"local", outer[1], "remote", outer[0])

	var port *tap.Port
	k.NoError(k.c.Do(func() (err error) { port, err = tap.Open(tap.Config{Name: "tap0"}); return err }))
	var under *underlay.Underlay
	k.NoError(k.host.Do(func() (err error) {
		under, err = underlay.Open(underlay.Config{Local: netip.AddrPortFrom(netip.MustParseAddr(outer[0]), 4789)})
		return err
	}))
	var err error
	k.vtep, err = New(Config{Workers: 1, Underlay: under})
	k.NoError(err)

	sw := vswitch.New(1, 0)
	n, err := sw.AddNetwork(vswitch.NetworkConfig{VNI: 42})
	k.NoError(err)
	peer, err := k.vtep.AddPeer(PeerConfig{Name: "kernel", Addr: netip.AddrPortFrom(netip.MustParseAddr(outer[1]), 4789)})
	k.NoError(err)
	k.tunnel, err = k.vtep.AddTunnel(peer, TunnelConfig{VNI: 42, Port: 3, Network: n})
	k.NoError(err)
	k.NoError(n.Attach(1, port, vswitch.PortConfig{}))
	k.NoError(n.Attach(3, k.tunnel, vswitch.PortConfig{Role: vswitch.Tunnel}))
	start := time.Now()
	e, err := dataplane.NewEngine(dataplane.Config{Workers: 1, Clock: func() int64 { return int64(time.Since(start)) }})
	k.NoError(err)
	k.NoError(e.Attach(1, port, n))
	k.NoError(e.Attach(2, k.vtep, k.vtep))
	k.NoError(e.Start())
	k.Cleanup(func() {
		e.Stop()
		k.NoError(port.Delete())
		k.NoError(k.vtep.Close())
	})
	k.NoError(k.c.SetUp("tap0", true))
	k.NoError(k.peer.SetUp("vx0", true))
	for i, end := range []struct {
		n    *lab.NetNS
		name string
	}{{k.c, "tap0"}, {k.peer, "vx0"}} {
		k.Run(end.n, "ip", "addr", "add", fmt.Sprintf("198.18.0.%d/24", i+1), "dev", end.name)
		k.Run(end.n, "ip", "addr", "add", fmt.Sprintf("2001:db8:1::%d/64", i+1), "dev", end.name, "nodad")
	}
	return k
}

// TestTheKernelsVXLANIsAPeer: both families, outside and inside, both ways,
// whatever is partial or cut where; nothing is damaged, and what is too long is
// told.
func TestTheKernelsVXLANIsAPeer(t *testing.T) {
	for _, outer6 := range []bool{false, true} {
		t.Run(fmt.Sprint("IPv6 outside ", outer6), func(t *testing.T) {
			k := newKernelPeer(t, outer6)
			for _, inner := range []string{"198.18.0.", "2001:db8:1::"} {
				k.pings(k.c, inner+"2")
				k.pings(k.peer, inner+"1")
				k.carries(k.c, k.peer, inner+"2")
				k.carries(k.peer, k.c, inner+"1")
			}
			for d, n := range k.tunnel.Counters().Totals().Drops {
				if n > 0 {
					t.Errorf("%d drops: %s", n, dataplane.Drop(d))
				}
			}
			expect(t, "SYNs clamped", k.vtep.Stats().Clamped > 0, true)
			tooLong, err := k.c.Run(context.Background(), "ping", "-c", "1", "-W", "20", "-M", "do", "-s", "1472", "198.18.0.2")
			if says := tooLong.Stdout + tooLong.Stderr; err == nil || !strings.Contains(says, fmt.Sprintf("mtu = %d", k.tunnel.MTU())) {
				t.Errorf("a packet of 1,500 bytes: %v\n%s", err, says)
			}
			// What may be fragmented is, by its sender, who knows by now.
			k.Run(k.c, "ping", "-c", "1", "-w", "20", "-M", "dont", "-s", "5000", "198.18.0.2")
		})
	}
}

// pings waits until a ping is answered: the first may be lost before carriers are up.
func (k *kernelPeer) pings(from *lab.NetNS, addr string) {
	k.Helper()
	k.Eventually(patience, "pings of "+addr+" are answered", func() error {
		_, err := from.Run(k.Context(), "ping", "-c1", "-W1", addr)
		return err
	})
}

// carries sends 8 MB by TCP and compares.
func (k *kernelPeer) carries(from, to *lab.NetNS, addr string) {
	k.Helper()
	var l net.Listener
	k.NoError(to.Do(func() (err error) { l, err = net.Listen("tcp", net.JoinHostPort(addr, "0")); return err }))
	defer func() { k.NoError(l.Close()) }()
	data := make([]byte, 8<<20)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(data)
	got := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			got <- err
			return
		}
		_ = conn.SetDeadline(time.Now().Add(4 * patience))
		hash := sha256.New()
		n, err := io.Copy(hash, conn)
		if err == nil && string(hash.Sum(nil)) != string(sum(data)) {
			err = fmt.Errorf("%d bytes came, and not those that were sent", n)
		}
		_ = conn.Close()
		got <- err
	}()
	var conn net.Conn
	k.NoError(from.Do(func() (err error) { conn, err = net.DialTimeout("tcp", l.Addr().String(), patience); return err }))
	_ = conn.SetDeadline(time.Now().Add(4 * patience))
	_, err := conn.Write(data)
	k.NoError(err)
	k.NoError(conn.Close())
	k.NoError(<-got)
}

func sum(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}
