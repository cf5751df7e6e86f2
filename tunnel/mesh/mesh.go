package mesh

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"heddle/dataplane/wire"
)

// Mesh is this host's part of a mesh.
type Mesh struct {
	keyLock sync.Mutex // Serialises changes of the keyring.
	keyring *memberlist.Keyring
}

// New opens the gossip's sockets and starts a mesh of one member, this host.
func New(cfg Config) (*Mesh, error) { return nil, cfg.check() }

// Join contacts the members at the addresses (HOST[:PORT]) and joins theirs
// and this mesh into one. It returns how many answered. It fails if none did,
// and with ErrNameTaken if a live member has this host's name; then the mesh
// has been left. Addresses of a Join that succeeded are tried again in the
// background when no member is there.
func (m *Mesh) Join(ctx context.Context, addresses []string) (int, error) { return 0, nil }

// Leave says good-bye, waiting for at most the timeout that it gets round, and
// closes the mesh.
func (m *Mesh) Leave(timeout time.Duration) error { return m.Close() }

// Close stops without a word: to the others this host has failed.
func (m *Mesh) Close() error { return nil }

// Self returns this host as the others see it.
func (m *Mesh) Self() Member { return Member{} }

// Members returns all members that are known, this host included, by name.
func (m *Mesh) Members() []Member { return nil }

// SetVTEP changes where this host receives VXLAN.
func (m *Mesh) SetVTEP(vtep netip.AddrPort) error { return nil }

// SetNetworks says which networks this host has, in place of those it had.
func (m *Mesh) SetNetworks(networks []Network) error { return nil }

// Announce says that endpoints are behind this host, all of them or, if one is
// bad or there are too many, none. One that another member announces moves
// here. Announcing again changes the IPs; with the same ones it does nothing,
// unless the endpoint has moved away.
func (m *Mesh) Announce(endpoints ...Endpoint) error { return nil }

// Withdraw says that an endpoint is no longer behind this host. It tells
// whether it was.
func (m *Mesh) Withdraw(vni uint32, mac wire.MAC) bool { return false }

// SetEndpoints announces the endpoints and withdraws all others.
func (m *Mesh) SetEndpoints(endpoints []Endpoint) error { return nil }

// Endpoints returns the endpoints of all live members, this host's included,
// by VNI and MAC: each once, with its owner.
func (m *Mesh) Endpoints() []Endpoint { return nil }

// Stats returns what has been counted since New.
func (m *Mesh) Stats() Stats { return Stats{} }
