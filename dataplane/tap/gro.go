// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package tap

import (
	"sync/atomic"

	"heddle/dataplane/offload"
)

const (
	// BigTCP is a Config.GROMax that what a Pull brings of one connection fits, in
	// bytes.
	BigTCP = 256 << 10
	// plainGROMax is the kernel's default: what an IPv4 header can tell.
	plainGROMax = 65536
)

// gro is how long packets may be that are written to the device, as an
// offload.GROMax. Control code sets it, workers read it and may shorten it.
type gro struct{ ipv4, ipv6 atomic.Int32 }

func (g *gro) set(m offload.GROMax) {
	g.ipv4.Store(int32(m.IPv4))
	g.ipv6.Store(int32(m.IPv6))
}

func (g *gro) get() offload.GROMax {
	return offload.GROMax{IPv4: int(g.ipv4.Load()), IPv6: int(g.ipv6.Load())}
}

// shorten has no packet be longer than what any kernel takes, until the next set.
func (g *gro) shorten() {
	m := g.get()
	g.set(offload.GROMax{IPv4: min(m.IPv4, plainGROMax), IPv6: min(m.IPv6, plainGROMax)})
}
