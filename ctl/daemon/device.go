package daemon

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"heddle/ctl/attach"
	"heddle/ctl/config"
	"heddle/ctl/proxy"
	"heddle/dataplane"
	"heddle/tunnel"
	"heddle/tunnel/mesh"
)

// errGone is what a goneError is.
var errGone = errors.New("gone")

// goneError is why a device is of no use any more: it has to be opened anew.
// Any other reason that device.check gives may pass by itself.
type goneError struct{ why error }

func (g goneError) Error() string   { return g.why.Error() }
func (g goneError) Unwrap() []error { return []error{errGone, g.why} }

// order is what a device is made from: a spec in which everything is decided.
type order struct {
	spec    config.Port // With defaults; its IPs are addresses, none is automatic.
	mac     net.HardwareAddr
	mtu     int            // The network's, in bytes of L3.
	ips     []netip.Prefix // Those of spec.IPs.
	routes  []netip.Addr   // The gateways of the default routes to set.
	workers int
}

// facts is what there is to tell of a device that was opened.
type facts struct {
	ifName string
	mac    string
	mtu    int // Bytes of L3: the lesser of the network's and the interface's.
	// shared means that the host's own stack uses the interface too, so that
	// its MAC is the host's, behind the port.
	shared bool
}

// device is what the host lends for a port: a TAP, one end of a veth pair, an
// interface, and everything set on it. The daemon calls its methods one at a
// time, but for those that say otherwise.
type device interface {
	// port is the way in and out for frames. It is closed by release, and asked
	// for at any time before.
	port() dataplane.Port
	// facts is what the last check, or else open, has found.
	facts() facts
	// namespace is the container's; nil where there is none of its own.
	namespace() *attach.Namespace
	// sample asks the kernel how many frames it has dropped since open before
	// the port could count them, and dropped is what the last sample found. They
	// may be called at any time, by anybody, and after release too.
	sample()
	dropped() uint64
	// check returns why the device carries no frames now, nil if it does;
	// a goneError if it never will again. It brings facts up to date.
	check() error
	// calm tells, by a few system calls, whether there is no reason to call check
	// but what an event of the host tells.
	calm() bool
	// configure gives the interface the addresses, MTU and default routes of an
	// order that is otherwise the one it was made from, and sets it up. A failure
	// leaves it as it was.
	configure(ctx context.Context, o order) error
	// restore sets again what the kernel took from the interface while its link
	// was down (IPv6 addresses, routes), if it was down since it was last set.
	restore(ctx context.Context) error
	// release gives back what this process holds and leaves on the host what
	// another swd can take over; what no swd could find again is removed.
	release() error
	// remove is release, and nothing is left on the host.
	remove() error
}

// host is what the daemon asks of the machine; tests have one in memory.
type host interface {
	// open makes the device, or takes over what a swd before this one left of
	// it. A failure leaves nothing that wasn't there.
	open(ctx context.Context, o order) (device, error)
	// reach returns why the namespace that a port names can't be found now, as
	// open would; nil for a port that names none. It may take long, and is
	// called at any time.
	reach(ctx context.Context, p *config.Port) error
	// probe returns why open would refuse the port, as far as that can be told
	// without a change.
	probe(ctx context.Context, p *config.Port) error
	// discard removes what a swd may have left of a device that couldn't be
	// opened by now. That nothing is there is no error.
	discard(ctx context.Context, o order) error
	// sweep removes the interfaces that a swd made and no live one uses, of
	// ports that don't claim them: what a kill left between making and saving.
	// It does so in swd's own namespace now, and in each other one before open
	// makes something there for the first time. claimed is called within.
	sweep(claimed func(port, ifName string) bool)
	// changes says by a value that links have changed: ask changed.
	changes() <-chan struct{}
	// changed returns the ports whose links may have changed since it was last
	// called, by name, or that all may have: ask check.
	changed() (ports []string, all bool)
	// watchUplink begins to tell the states of an interface of swd's namespace;
	// the first is there at once.
	watchUplink(ifName string) (uplinkWatch, error)
	// openUplink takes an interface for an uplink. A failure leaves nothing that
	// wasn't there.
	openUplink(o uplinkOrder) (uplinkDevice, error)
	// openStack makes an interface to the host's own stack. A failure leaves
	// nothing that wasn't there.
	openStack(workers int) (stackDevice, error)
	// publish holds ports of the host's for a publication.
	publish(p proxy.Publication) (localPort, error)
	// openUnderlay opens the UDP port of the tunnels; an unspecified address is
	// all of its family.
	openUnderlay(at netip.AddrPort, workers int) (underlayPort, error)
	// source returns the address by which the host sends to another, and why not
	// if it has no way there.
	source(to netip.Addr) (netip.Addr, error)
	// addresses are those that the host itself has, broadcast ones included.
	addresses() ([]netip.Addr, error)
	// gossip says how the mesh is to reach others, where that is not by the
	// host's sockets.
	gossip(c *mesh.Config)
	close() error
}

// path is the way to another host.
type path struct {
	mtu int   // How long an IP packet may be, in bytes; valid only without err.
	err error // Why there is no way.
}

// underlayPort is the tunnels' UDP port; see underlay.Underlay.
type underlayPort interface {
	tunnel.Underlay
	// paths returns the paths to addresses.
	paths(to []netip.Addr) []path
	// lost returns how many datagrams the kernel has dropped since it was opened,
	// before they could be taken.
	lost() uint64
}

// uplinkWatch tells the states of an uplink's interface; see
// attach.UplinkWatcher.
type uplinkWatch interface {
	States() <-chan attach.UplinkState
	Close() error
}

// uplinkOrder is what an uplink's device is made from.
type uplinkOrder struct {
	name, ifName string
	shared       bool
	claim        attach.Claim // What is swd's of a shared interface's traffic.
	workers      int
}

// uplinkDevice is what the host lends for an uplink. The daemon calls one
// method at a time.
type uplinkDevice interface {
	// port is the way in and out for frames. It is closed by release.
	port() dataplane.Port
	// check is as device's.
	check() error
	// claim changes what is swd's of a shared interface's traffic. Whether the
	// host uses a port of it is what spares tells.
	claim(c attach.Claim) error
	spares(c attach.Claim) error
	// release gives all back.
	release() error
}

// localPort is published ports that the host holds; see proxy.Listener.
type localPort interface {
	SetTarget(t *proxy.Target)
	SetHome(addrs []netip.Addr)
	Stats() proxy.Stats
	Flush()
	Close() error
}
