package mesh

import (
	"net/netip"
	"time"
)

// State says how a member does.
type State uint8

// States of a member.
const (
	Alive   State = iota // It answers, or others say so.
	Suspect              // This host's last probe of it found no answer; it fails unless it objects.
	Failed               // It has not answered, nor objected.
	Left                 // It said good-bye.
)

// String returns the state's name in lower case.
func (s State) String() string {
	return [...]string{"alive", "suspect", "failed", "left"}[s]
}

// Member is a host of the mesh.
type Member struct {
	Name      string
	Address   netip.AddrPort // Where its gossip is.
	VTEP      netip.AddrPort // Where its VXLAN is.
	State     State
	Networks  []Network     // By VNI; empty if it has failed or left.
	Endpoints int           // How many it announces.
	RTT       time.Duration // Of the last probe that it answered; 0 if none did.
	Self      bool          // It is this host.
	Synced    bool          // All that it had announced at some time is known here.
}
