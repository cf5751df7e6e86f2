package api

// Peer is a static peer. Rx is what came from it into the switch, tx what went
// to it; a GSO frame is one.
type Peer struct {
	Name     string            `json:"name"`
	Address  string            `json:"address"` // IP:PORT of its VTEP.
	State    string            `json:"state"`
	Reason   string            `json:"reason,omitempty"` // Why it is down.
	Networks []string          `json:"networks"`         // Those that it shares now.
	MTU      int               `json:"mtu"`              // Of the path to it, outer headers included; 0 while it isn't known.
	RxFrames uint64            `json:"rx_frames"`
	RxBytes  uint64            `json:"rx_bytes"`
	TxFrames uint64            `json:"tx_frames"`
	TxBytes  uint64            `json:"tx_bytes"`
	Drops    map[string]uint64 `json:"drops"` // Non-zero reasons only.
}

// The states of the mesh on this host.
const (
	MeshOff    = "off"    // It is in none.
	MeshAlone  = "alone"  // It listens, and knows no other member that is up.
	MeshJoined = "joined" // It knows at least one.
)

// Mesh is this host's membership.
type Mesh struct {
	Node   string `json:"node"`
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"` // What is wrong, if something is.
	Listen string `json:"listen,omitempty"` // IP:PORT where it gossips.
	VTEP   string `json:"vtep,omitempty"`   // IP:PORT that it tells others to send frames to.
	// Encrypted tells whether members need a key.
	Encrypted bool     `json:"encrypted"`
	Join      []string `json:"join"` // As it was asked for.

	MembersUp int `json:"members_up"` // This host included.
	Members   int `json:"members"`    // Those that are known, failed ones included.

	EndpointsLocal  int    `json:"endpoints_local"`  // That this host announces.
	EndpointsRemote int    `json:"endpoints_remote"` // That others announce.
	Refused         uint64 `json:"refused"`          // Endpoints and messages beyond a bound, or that made no sense.
	TxMessages      uint64 `json:"tx_messages"`      // Of endpoints and networks, full states included.
	TxBytes         uint64 `json:"tx_bytes"`
	RxMessages      uint64 `json:"rx_messages"`
	RxBytes         uint64 `json:"rx_bytes"`
}

// The states of a member besides StateUp and StateDown.
const (
	StateSuspect = "suspect" // It doesn't answer; if that lasts it is taken for down.
	StateLeft    = "left"    // It said goodbye.
)

// Member is a host in the mesh.
type Member struct {
	Name    string `json:"name"`
	Address string `json:"address"` // IP:PORT where it gossips.
	VTEP    string `json:"vtep"`    // IP:PORT where it takes frames.
	State   string `json:"state"`
	Reason  string `json:"reason,omitempty"` // Why it is down, or why frames don't reach it.
	Self    bool   `json:"self"`             // It is this host.
	// Networks are those that it has, by its names.
	Networks []string `json:"networks"`
	// RTTSeconds is the round trip of the newest probe, 0 if there was none.
	RTTSeconds float64 `json:"rtt_seconds"`
	MTU        int     `json:"mtu"`  // As Peer.MTU.
	MACs       int     `json:"macs"` // How many endpoints it announces.
	// Endpoints are those; only with ?endpoints=1.
	Endpoints []Endpoint `json:"endpoints,omitempty"`
	RxFrames  uint64     `json:"rx_frames"`
	TxFrames  uint64     `json:"tx_frames"`
}

// Endpoint is a station that a member announces.
type Endpoint struct {
	VNI     uint32   `json:"vni"`
	Network string   `json:"network,omitempty"` // This host's name of it, if it has it.
	MAC     string   `json:"mac"`
	IPs     []string `json:"ips"`
}

// MeshKey asks for a key: 16, 24 or 32 bytes in Base64.
type MeshKey struct {
	Key string `json:"key"`
}

// Key is a key of the mesh, which is known by an id that tells nothing of it.
type Key struct {
	ID     string `json:"id"`
	Active bool   `json:"active"` // What this host sends is encrypted with it.
}
