package attach

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The names of features are ethtool's (net/ethtool/common.c).

// inexpressible are the features by which an end of a veth pair passes frames
// on that struct virtio_net_hdr has no words for: a packet socket drops such a
// frame, and with it all that come after (packet.ErrStuck), or can't say what it
// owes. With them off on both ends, the kernel segments or sums before it hands
// the frame over.
var inexpressible = append([]string{
	"tx-checksum-sctp", // CRC32c isn't an internet checksum.
	"tx-sctp-segmentation",
	"tx-esp-segmentation",
	"tx-gre-segmentation",
	"tx-gre-csum-segmentation",
	"tx-ipxip4-segmentation",
	"tx-ipxip6-segmentation",
	"tx-udp_tnl-segmentation",
	"tx-udp_tnl-csum-segmentation",
	"tx-tunnel-remcsum-segmentation",
	"tx-gso-partial",
	"tx-gso-list",
	"rx-gro-list",
}, before62("tx-udp-segmentation")...)

// unforwardable are the features by which an interface merges what it receives
// into frames that can't be sent on as they came.
var unforwardable = append([]string{
	"rx-gro-list", // Keeps the frames as a list, which struct virtio_net_hdr has no words for.
	"rx-lro",      // Forgets how they were cut; a bridge switches it off too (dev_disable_lro).
}, before62("rx-udp-gro-forwarding")...)

// before62 returns features that are to be off before Linux 6.2, where struct
// virtio_net_hdr has no words for UDP GSO either (VIRTIO_NET_HDR_GSO_UDP_L4).
func before62(features ...string) []string {
	var u unix.Utsname
	if unix.Uname(&u) == nil && older(unix.ByteSliceToString(u.Release[:]), 6, 2) {
		return features
	}
	return nil
}

// older tells whether a kernel's release, such as 6.1.0-13-amd64, is before a
// version. One that can't be read is not.
func older(release string, major, minor int) bool {
	var a, b int
	if _, err := fmt.Sscanf(release, "%d.%d", &a, &b); err != nil {
		return false
	}
	return a < major || a == major && b < minor
}

// LimitOffloads switches off the offloads of an existing interface that would
// spoil what Heddle receives from it by a packet socket, until the Closer is
// closed, which switches those on again that were on. What the interface
// sends is left alone. Features that it doesn't have or can't change stay as
// they are. A swd that is killed leaves them off. It fails with ErrNoLink.
func (ns *Namespace) LimitOffloads(name string) (io.Closer, error) {
	return in(ns, func() (io.Closer, error) {
		nl, err := byName(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ns, err)
		}
		off, err := switchOff(name, unforwardable)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ns, err)
		}
		if len(off) == 0 {
			return &offloadCloser{}, nil
		}
		// The Closer may run after the caller has closed ns.
		here, err := Own()
		if err != nil {
			return nil, errors.Join(err, setFeatures(name, off, true))
		}
		return &offloadCloser{ns: here, index: nl.Attrs().Index, off: off}, nil
	})
}

// offloadCloser switches on again what LimitOffloads switched off.
type offloadCloser struct {
	mu    sync.Mutex
	ns    *Namespace // Open while something is off.
	index int
	off   []string
}

// Close can be repeated. An interface that is gone needs nothing.
func (c *offloadCloser) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ns == nil {
		return nil
	}
	err := c.ns.Do(func() error {
		nl, err := netlink.LinkByIndex(c.index) // It may have another name now.
		var missing netlink.LinkNotFoundError
		switch {
		case errors.As(err, &missing):
			return nil
		case err != nil:
			return fmt.Errorf("look up: %w", err)
		}
		return setFeatures(nl.Attrs().Name, c.off, true)
	})
	if err != nil {
		return fmt.Errorf("%s: interface number %d: restore offloads: %w", c.ns, c.index, err)
	}
	err = c.ns.Close()
	c.ns = nil
	return err
}

// switchOff returns which of the features were on and are off now. It runs
// inside the namespace.
func switchOff(name string, features []string) (off []string, err error) {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return nil, fmt.Errorf("interface %s: ethtool socket: %w", name, err)
	}
	have, err := e.FeaturesWithState(name)
	e.Close()
	if err != nil {
		return nil, fmt.Errorf("interface %s: read offloads: %w", name, err)
	}
	for _, f := range features {
		if state, ok := have[f]; ok && state.Active && state.Available && !state.NeverChanged {
			off = append(off, f)
		}
	}
	return off, setFeatures(name, off, false)
}

// setFeatures switches all of them on or off, inside the namespace.
func setFeatures(name string, features []string, on bool) error {
	if len(features) == 0 {
		return nil
	}
	e, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("interface %s: ethtool socket: %w", name, err)
	}
	defer e.Close()
	want, state := make(map[string]bool), "off"
	for _, f := range features {
		want[f] = on
	}
	if on {
		state = "on"
	}
	if err := e.Change(name, want); err != nil {
		return fmt.Errorf("interface %s: switch offloads %s: %w", name, state, err)
	}
	return nil
}
