package vswitch

import (
	"heddle/dataplane"
	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
)

// Role is what a port is on its network, and so whom it may talk to.
type Role uint8

// The roles.
const (
	// Ordinary is a container's port, a host's or a NIC. In an isolated
	// network it reaches gateways and tunnels only.
	Ordinary Role = iota
	// Gateway talks to all, in isolated networks too.
	Gateway
	// Tunnel leads to other hosts. What came from a tunnel never leaves by a
	// tunnel (split horizon); in an isolated network it goes to gateways only,
	// as the far end's ports are no better than the near end's.
	Tunnel

	roles
)

// String returns the role's name.
func (r Role) String() string {
	return [...]string{"ordinary", "gateway", "tunnel", "unknown"}[min(r, roles)]
}

// reach is the roles, as bits, that each role may send to.
type reach [roles]uint8

var (
	openReach = reach{
		Ordinary: 1<<Ordinary | 1<<Gateway | 1<<Tunnel,
		Gateway:  1<<Ordinary | 1<<Gateway | 1<<Tunnel,
		Tunnel:   1<<Ordinary | 1<<Gateway,
	}
	isolatedReach = reach{
		Ordinary: 1<<Gateway | 1<<Tunnel,
		Gateway:  1<<Ordinary | 1<<Gateway | 1<<Tunnel,
		Tunnel:   1 << Gateway,
	}
)

// view is a network as a batch sees it. It never changes: control code
// publishes a new one.
type view struct {
	config NetworkConfig
	ageing uint32 // Seconds.
	reach  reach
	slots  []*slot
	flood  [roles][]*slot // The slots that each role reaches, the sender's own included.
}

// slot is a port's place on a network. It never changes.
type slot struct {
	id       dataplane.PortID
	role     Role
	maxLen   int // Longest untagged frame in bytes.
	net      *Network
	port     dataplane.Port
	counters *dataplane.Counters
}

func newView(c NetworkConfig, slots []*slot) *view {
	v := &view{config: c, ageing: seconds(c.Ageing), reach: openReach, slots: slots}
	if c.Isolated {
		v.reach = isolatedReach
	}
	for from := range roles {
		for _, s := range slots {
			if v.reaches(from, s.role) {
				v.flood[from] = append(v.flood[from], s)
			}
		}
	}
	return v
}

func (v *view) reaches(from, to Role) bool { return v.reach[from]>>to&1 != 0 }

// silence is why a frame for all ports reached none.
func (v *view) silence() dataplane.Drop {
	if len(v.slots) > 1 {
		return dataplane.Isolated
	}
	return dataplane.NoEgress
}

// segmentLen returns the length in bytes of the longest frame that f becomes
// on the wire, without its tags. It is asked only of frames that as a whole are
// too long, at 10 ns.
func segmentLen(f *dataplane.Frame) int {
	n := offload.SegmentLen(f.Bytes(), &f.Owes)
	if _, tags := wire.VLANTags(f.Bytes()); tags > 0 {
		n -= tags * wire.VLANTagLen
	}
	return n
}
