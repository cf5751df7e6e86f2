package attach

import (
	"fmt"

	"github.com/safchain/ethtool"
)

// inexpressible are the features by which an interface takes frames that
// struct virtio_net_hdr has no words for: a packet socket or TAP drops such a
// frame, or can't say what it owes. With them off, the kernel segments or sums
// before it hands the frame over. The names are ethtool's
// (net/ethtool/common.c).
var inexpressible = []string{
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
}

// LimitOffloads switches off the offloads that virtio_net_hdr can't express,
// on an interface whose frames Heddle gets by a packet socket. Those that the
// interface doesn't have, or can't change, stay as they are.
func (ns *Namespace) LimitOffloads(name string) error {
	return ns.Do(func() error {
		if err := limitOffloads(name); err != nil {
			return fmt.Errorf("%s: %w", ns, err)
		}
		return nil
	})
}

func limitOffloads(name string) (err error) {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("interface %s: ethtool socket: %w", name, err)
	}
	defer e.Close()
	have, err := e.FeaturesWithState(name)
	if err != nil {
		return fmt.Errorf("interface %s: read offloads: %w", name, err)
	}
	off := make(map[string]bool)
	for _, feature := range inexpressible {
		if state, ok := have[feature]; ok && state.Active && state.Available && !state.NeverChanged {
			off[feature] = false
		}
	}
	if len(off) == 0 {
		return nil
	}
	if err := e.Change(name, off); err != nil {
		return fmt.Errorf("interface %s: switch offloads off: %w", name, err)
	}
	return nil
}
