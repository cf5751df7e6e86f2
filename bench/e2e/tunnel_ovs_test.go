package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"heddle/bench/baseline"
	"heddle/bench/lab"
)

// A node and Open vSwitch's datapath in userspace are peers, both ways. It takes
// no partial checksums, so that the node's interface completes them, and cuts
// nothing.
//
//	station tap11 ── swd, host1 ── wire ── host2: br-phy, br0 ── station ovs21
func TestTunnelOVS(t *testing.T) {
	unpacked, err := filepath.Abs("../../.tools/openvswitch/usr")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", strings.Join([]string{os.Getenv("PATH"), unpacked + "/bin", unpacked + "/sbin"}, ":"))
	c := newCluster(t)
	h := c.node(1)
	c.offloads(false, map[*lab.NetNS]string{h.host: "u0"})
	h.peer("ovs", v4(2))
	host := c.plugBare(2)
	far := &station{
		name: "ovs21", kind: "ovs", ns: c.NewNetNS("ovs21"), ifname: baseline.Interface, ip4: "198.18.0.21", ip6: "2001:db8::15",
	}
	c.NoError(baseline.NewOVSHost(t.Context(), c.Lab, host, far.ns, v4(2), v4(1)))
	c.NoError(far.ns.SetMTU(far.ifname, mtu-50))
	c.NoError(far.ns.AddAddress(far.ifname, far.ip4+"/24", far.ip6+"/64"))
	c.NoError(far.ns.SetUp(far.ifname, true))
	near := h.add(onTAP)
	h.across(mtu-50, near, far)
	if e := h.fdb(network)[h.mac(far)]; e.Port != "ovs" {
		t.Errorf("the far station's entry is %+v", e)
	}
}
