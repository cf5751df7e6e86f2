package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"heddle/bench/lab"
	"heddle/ctl/api"
)

func TestMain(m *testing.M) { lab.Main(m) }

// world is a host with a swd and the containers on it.
//
//	host:  swd ─┬─ tap ─────────────── eth0 in container t1
//	            ├─ veth hd… ────────── eth0 in container v1
//	            ├─ packet on pk-p1 ─── eth0 in container p1 (a veth that was there before)
//	            └─ tap heddle-h1, a host port
type world struct {
	*lab.T
	host *lab.NetNS
	swd  *lab.Swd
	next int // Number of the next station.
	// packetMTU is what the veths of packet ports get; 0 leaves the kernel's.
	packetMTU int
}

// station is an end of traffic: an interface with addresses.
type station struct {
	name, kind string
	ns         *lab.NetNS
	ifname     string
	ip4, ip6   string
}

// The kinds of port that a station can be on.
const (
	onTAP    = "tap"
	onVeth   = "veth"
	onPacket = "packet"
	onHost   = "host"
)

const network = "net"

// patience is how long a test waits for what has no bound of its own, on a
// machine that may give its time to others for seconds.
const patience = 20 * time.Second

// newWorld starts a swd with one network.
func newWorld(t *testing.T, networkFlags ...string) *world {
	t.Helper()
	l := lab.New(t)
	w := &world{T: l, host: l.NewNetNS("host"), next: 1}
	w.swd = l.StartSwd(w.host)
	w.addNetwork(network, networkFlags...)
	return w
}

func (w *world) addNetwork(name string, flags ...string) {
	w.Helper()
	w.ctl(append([]string{"network", "add", name}, flags...)...)
}

// ctl runs swctl, which must succeed, and returns its stdout.
func (w *world) ctl(args ...string) string {
	w.Helper()
	return w.Swctl(w.swd, args...).Stdout
}

// add puts a station on the network.
func (w *world) add(kind string) *station {
	w.Helper()
	return w.addOn(network, kind)
}

// addOn puts a station on a network. Addresses count up over all networks.
func (w *world) addOn(network, kind string, flags ...string) *station {
	w.Helper()
	n := w.next
	w.next++
	s := &station{
		name: fmt.Sprintf("%s%d", kind, n), kind: kind, ifname: "eth0",
		ip4: fmt.Sprintf("198.18.0.%d", n), ip6: fmt.Sprintf("2001:db8::%x", n),
	}
	args := []string{"port", "add", s.name, "--network", network}
	addresses := []string{"--ip", s.ip4 + "/24", "--ip", s.ip6 + "/64"}
	switch kind {
	case onTAP, onVeth:
		s.ns = w.NewNetNS(s.name)
		args = append(args, "--kind", kind, "--netns", s.ns.Path())
		args = append(args, addresses...)
	case onHost:
		s.ns, s.ifname = w.host, "heddle"+fmt.Sprint(n)
		args = append(args, "--kind", "tap", "--ifname", s.ifname)
		args = append(args, addresses...)
	case onPacket:
		s.ns = w.NewNetNS(s.name)
		w.Veth(w.host, s.hostEnd(), s.ns, s.ifname)
		w.NoError(s.ns.AddAddress(s.ifname, s.ip4+"/24", s.ip6+"/64"))
		if w.packetMTU > 0 {
			w.NoError(w.host.SetMTU(s.hostEnd(), w.packetMTU))
			w.NoError(s.ns.SetMTU(s.ifname, w.packetMTU))
		}
		args = append(args, "--kind", "packet", "--interface", s.hostEnd())
	}
	w.ctl(append(args, flags...)...)
	return s
}

// hostEnd is the interface that a packet port takes.
func (s *station) hostEnd() string { return "pk-" + s.name }

// port asks swd for the station's port.
func (w *world) port(s *station) api.Port {
	w.Helper()
	p, err := w.swd.Port(w.Context(), s.name)
	w.NoError(err)
	return p
}

// fdb asks swd for a network's entries by MAC.
func (w *world) fdb(network string) map[string]api.Entry {
	w.Helper()
	entries, err := w.swd.FDB(w.Context(), network)
	w.NoError(err)
	byMAC := map[string]api.Entry{}
	for _, e := range entries {
		byMAC[e.MAC] = e
	}
	return byMAC
}

// mac returns the station's hardware address.
func (w *world) mac(s *station) string {
	w.Helper()
	mac, err := s.ns.MAC(s.ifname)
	w.NoError(err)
	return mac.String()
}

// tryPing sends one echo request, and waits a second for its answer.
func (w *world) tryPing(from *station, address string, flags ...string) error {
	args := []string{"ping", "-c1", "-W1"}
	if strings.Contains(address, ":") {
		args = append(args, "-6")
	}
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	_, err := from.ns.Run(ctx, append(append(args, flags...), address)...)
	return err
}

// pingOnce sends one echo request, which has to be answered: what reach sends
// may be several.
func (w *world) pingOnce(from *station, address string) {
	w.Helper()
	w.NoError(w.tryPing(from, address, "-W15"))
}

// reach waits until a station gets an answer from an address.
func (w *world) reach(from *station, address string, flags ...string) {
	w.Helper()
	w.Eventually(patience, fmt.Sprintf("%s pings %s", from.name, address), func() error {
		return w.tryPing(from, address, flags...)
	})
}

// noReach fails the test if an address answers.
func (w *world) noReach(from *station, address string) {
	w.Helper()
	if w.tryPing(from, address) == nil {
		w.Errorf("%s reaches %s, but must not", from.name, address)
	}
}

// dropped adds up what was dropped for a reason.
func (w *world) dropped(reason string) uint64 {
	w.Helper()
	var sum uint64
	for _, line := range strings.Split(w.ctl("drops"), "\n") {
		var name string
		var count uint64
		if _, err := fmt.Sscan(line, &name, &count); err == nil && name == reason {
			sum += count
		}
	}
	return sum
}

// awaitState waits until a port is up or down.
func (w *world) awaitState(s *station, state string) {
	w.Helper()
	w.Eventually(patience, "port "+s.name+" "+state, func() error {
		p, err := w.swd.Port(w.Context(), s.name)
		if err == nil && p.State != state {
			err = fmt.Errorf("it is %s (%s)", p.State, p.Reason)
		}
		if err == nil && state == api.StateDown && p.Reason == "" {
			err = errors.New("it has no reason")
		}
		return err
	})
}

func (w *world) writeFile(path, text string) {
	w.Helper()
	w.NoError(os.WriteFile(path, []byte(text), 0o600))
}
