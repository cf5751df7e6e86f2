package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"heddle/bench/baseline"
	"heddle/bench/lab"
	"heddle/ctl/api"
)

// cluster is hosts on one Ethernet, the wire, that share networks by VXLAN:
//
//	stations 198.18.0.11…  ── swd ── u0 in host1  192.0.2.1, 2001:db8:2::1 ─┐
//	stations 198.18.0.21…  ── swd ── u0 in host2  192.0.2.2, 2001:db8:2::2 ─┤ br0 in wire
//	stations 198.18.0.31…  ─ br0, vx0 ─ u0 in host3 (no swd)  192.0.2.3     ─┘
//
// All have the network of VNI 7. A host with swd is a node, one without a
// kernelHost. All interfaces of hosts take 1,500 bytes.
type cluster struct {
	*lab.T
	wire  *lab.NetNS
	nodes []*node
}

// vni is that of the network on all hosts.
const vni = baseline.VNI

// newCluster makes a wire without hosts.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	l := lab.New(t)
	c := &cluster{T: l, wire: l.NewNetNS("wire")}
	l.NoError(c.wire.AddBridge("br0"))
	return c
}

// in is the cluster for a subtest, which fails in its own name.
func (c *cluster) in(t *testing.T) *cluster {
	inner, l := *c, *c.T
	l.TB, inner.T, inner.nodes = t, &l, nil
	for _, n := range c.nodes {
		inner.nodes = append(inner.nodes, &node{world: n.within(t), number: n.number})
	}
	return &inner
}

// v4 and v6 are the addresses of host number i on the wire.
func v4(i int) string { return fmt.Sprintf("192.0.2.%d", i) }
func v6(i int) string { return fmt.Sprintf("2001:db8:2::%x", i) }

// plug makes the namespace of host number i and connects it with the wire.
func (c *cluster) plug(i int) *lab.NetNS {
	c.Helper()
	n := c.plugBare(i)
	c.NoError(n.AddAddress("u0", v4(i)+"/24", v6(i)+"/64"))
	return n
}

// plugBare is plug without addresses.
func (c *cluster) plugBare(i int) *lab.NetNS {
	c.Helper()
	n := c.NewNetNS("host" + itoa(i))
	c.Veth(n, "u0", c.wire, wireEnd(i))
	c.Run(c.wire, "ip", "link", "set", wireEnd(i), "master", "br0")
	return n
}

// wireEnd is the wire's interface towards host number i.
func wireEnd(i int) string { return "host" + itoa(i) }

// node is a host with a swd. Its stations are on ports of the swd.
type node struct {
	*world
	number int
}

// node starts swd on host number i.
func (c *cluster) node(i int, flags ...string) *node {
	c.Helper()
	return c.nodeIn(c.plug(i), i, flags...)
}

// nodeIn starts swd in the namespace of host number i.
func (c *cluster) nodeIn(host *lab.NetNS, i int, flags ...string) *node {
	c.Helper()
	n := &node{number: i, world: &world{T: c.T, host: host, next: 10*i + 1}}
	n.swd = c.StartSwd(n.host, append([]string{"--node", n.name()}, flags...)...)
	n.addNetwork(network, "--vni", itoa(vni))
	c.nodes = append(c.nodes, n)
	return n
}

func (n *node) name() string { return "host" + itoa(n.number) }

// v4 is the host's address on the wire.
func (n *node) v4() string { return v4(n.number) }

// peer adds a static peer and waits until frames get there.
func (n *node) peer(name, address string) {
	n.Helper()
	n.ctl("peer", "add", name, "--address", address)
	n.Eventually(patience, "peer "+name+" up", func() error {
		p, err := n.peerState(name)
		if err == nil && (p.State != api.StateUp || !slices.Contains(p.Networks, network)) {
			err = fmt.Errorf("it is %+v", p)
		}
		return err
	})
}

func (n *node) peerState(name string) (p api.Peer, err error) {
	return p, n.ask(&p, "peer", "show", name)
}

// kernelHost is a host whose stations share the network by the kernel's own
// vxlan device, on a bridge.
type kernelHost struct {
	*cluster
	ns     *lab.NetNS
	number int
	next   int
	mtu    int // Of its stations.
}

// kernelHost makes host number i, whose vxlan device floods to the addresses of
// peers, which are all of one family.
func (c *cluster) kernelHost(i int, peers ...string) *kernelHost {
	c.Helper()
	k := &kernelHost{cluster: c, ns: c.plug(i), number: i, next: 10*i + 1, mtu: mtu - 50}
	local := v4(i)
	if strings.Contains(peers[0], ":") {
		local, k.mtu = v6(i), mtu-70
	}
	c.Run(k.ns, "ip", "link", "add", "vx0", "type", "vxlan", "id", itoa(vni), "dstport", "4789", "local", local, "udp6zerocsumrx")
	for _, p := range peers {
		c.Run(k.ns, "bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "vx0", "dst", p)
	}
	c.NoError(k.ns.AddBridge("br0", "vx0"))
	c.NoError(k.ns.SetUp("vx0", true))
	return k
}

// add puts a station on the bridge.
func (k *kernelHost) add() *station {
	k.Helper()
	s := &station{
		name: "kernel" + itoa(k.next), kind: "kernel", ns: k.NewNetNS("kernel" + itoa(k.next)), ifname: "eth0",
		ip4: "198.18.0." + itoa(k.next), ip6: fmt.Sprintf("2001:db8::%x", k.next),
	}
	k.next++
	k.Veth(k.ns, s.name, s.ns, s.ifname)
	k.Run(k.ns, "ip", "link", "set", s.name, "master", "br0")
	k.NoError(s.ns.SetMTU(s.ifname, k.mtu))
	k.NoError(s.ns.AddAddress(s.ifname, s.ip4+"/24", s.ip6+"/64"))
	return s
}

// nft loads rules into a namespace.
func (c *cluster) nft(n *lab.NetNS, rules string) {
	c.Helper()
	file := filepath.Join(c.Dir(), "rules.nft")
	c.NoError(os.WriteFile(file, []byte(rules), 0o600))
	c.Run(n, "nft", "-f", file)
}

// counted reads a named counter of a namespace's nftables.
func (c *cluster) counted(n *lab.NetNS, name string) uint64 {
	c.Helper()
	var reply struct {
		Nftables []struct {
			Counter *struct {
				Name    string
				Packets uint64
			}
		}
	}
	c.NoError(json.Unmarshal([]byte(c.Run(n, "nft", "-j", "list", "counters")), &reply))
	for _, o := range reply.Nftables {
		if o.Counter != nil && o.Counter.Name == name {
			return o.Counter.Packets
		}
	}
	c.Fatalf("no counter %s", name)
	return 0
}

// offloads switches the offloads of interfaces on or off.
func (c *cluster) offloads(on bool, ends map[*lab.NetNS]string) {
	c.Helper()
	for n, ifname := range ends {
		c.NoError(n.SetOffloads(c.Context(), ifname, on))
	}
}

// awaitDropped waits until frames were dropped for a reason since there were so
// many.
func (w *world) awaitDropped(reason string, more, since uint64) {
	w.Helper()
	w.Eventually(patience, "drops for "+reason, func() error {
		if n := w.dropped(reason); n < since+more {
			return fmt.Errorf("%d since then, want %d", n-since, more)
		}
		return nil
	})
}

// vxlan is a VXLAN header (RFC 7348 section 5) before a frame.
func vxlan(flags byte, vni uint32, frame []byte) []byte {
	return append([]byte{flags, 0, 0, 0, byte(vni >> 16), byte(vni >> 8), byte(vni), 0}, frame...)
}

// validVNI is the I flag of RFC 7348.
const validVNI = 0x08

// sendUDP sends a datagram from a namespace's own address.
func (w *world) sendUDP(n *lab.NetNS, to string, payload []byte) {
	w.Helper()
	w.NoError(n.Do(func() error {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
		if err != nil {
			return err
		}
		_, err = c.Write(payload)
		if errClose := c.Close(); err == nil {
			err = errClose
		}
		return err
	}))
}
