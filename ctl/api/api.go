package api

import "fmt"

// Paths. A collection answers GET with a list and POST with the object made;
// a member, collection + "/" + name, answers GET and DELETE.
const (
	PathStatus   = "/v1/status"   // GET Status
	PathConfig   = "/v1/config"   // GET config.Config (export), POST config.Config (apply) → Applied
	PathNetworks = "/v1/networks" // config.Network → Network
	PathPorts    = "/v1/ports"    // config.Port → Port
	PathFDB      = "/v1/fdb"      // GET ?network=; POST config.Static → Entry; DELETE ?network=&mac=, or flush: ?network=&port=
	PathDrops    = "/v1/drops"    // GET ?port= → []DropCount
	PathCapture  = "/v1/capture"  // GET ?port=|network=|uplink=&count=&snaplen=&filter= → a pcapng stream, then the trailers
	PathEvents   = "/v1/events"   // GET ?follow=1 → Event a line (application/x-ndjson)
	PathUplinks  = "/v1/uplinks"  // config.Uplink → Uplink
	PathNAT      = "/v1/nat"      // config.NAT → NAT; a member's name is its id

	// PathConns answers GET ?network=&proto=&src=&dst=&limit= with []Conn, and
	// flushes by DELETE with the same but limit.
	PathConns     = "/v1/conns"
	PathConnCount = PathConns + "/count" // GET ConnCount

	PathPeers   = "/v1/peers"           // config.Peer → Peer
	PathMesh    = "/v1/mesh"            // GET Mesh; POST config.Mesh joins → Mesh; DELETE leaves
	PathMembers = PathMesh + "/members" // GET ?endpoints=1 → []Member
	PathKeys    = PathMesh + "/keys"    // GET []Key; POST MeshKey → Key; DELETE of a member retires it
	// ActionActivate after the path of a key: POST → Key.
	ActionActivate = "/activate"
)

// Trailers of a capture, decimal numbers. A capture ends when count frames are
// caught, or when the client shuts down its half of the connection
// (shutdown(2) with SHUT_WR); both ways the trailers follow the last block. A
// client that closes the connection gets none.
const (
	TrailerCaptured = "Heddle-Captured" // Frames in the stream.
	TrailerMissed   = "Heddle-Missed"   // Frames that could not be kept, whether or not the filter would have matched: it sees what is kept.
)

// Content types of answers.
const (
	TypeJSON   = "application/json"
	TypeLines  = "application/x-ndjson" // A JSON document a line.
	TypePcapng = "application/x-pcapng"
)

// Error is the body of every answer that is not 2xx. Status codes: 400 bad
// request, 403 not let in, 404 no such object or path, 405 no such method, 409 it
// exists or is in use, 413 body too large, 422 the host refused, 429 too many
// clients, 500 swd's fault.
type Error struct {
	What string `json:"what"`           // The operation and its object, as `port add web`; empty if the client wasn't let in to ask.
	Why  string `json:"why"`            // The reason.
	Hint string `json:"hint,omitempty"` // What to do next, where there is something.
}

// Error formats it as swctl prints it after "error: ".
func (e *Error) Error() string {
	if e.What == "" {
		return e.Why
	}
	return fmt.Sprintf("%s: %s", e.What, e.Why)
}

// Network is a live network.
type Network struct {
	Name          string   `json:"name"`
	VNI           uint32   `json:"vni"`
	Subnets       []string `json:"subnets"`
	Gateways      []string `json:"gateways"`
	MTU           int      `json:"mtu"`
	AgeingSeconds float64  `json:"ageing_seconds"`
	MaxMACs       int      `json:"max_macs"`
	Isolated      bool     `json:"isolated"`
	Ports         []string `json:"ports"`
	MACs          int      `json:"macs"` // Entries in the FDB now.
}

// The states of a port.
const (
	StateUp   = "up"
	StateDown = "down"
)

// Port is a live port. Rx is what came into the switch by it, tx what went out.
type Port struct {
	Name      string            `json:"name"`
	Kind      string            `json:"kind"`
	Network   string            `json:"network"`
	State     string            `json:"state"`
	Reason    string            `json:"reason,omitempty"` // Why it is down.
	IfName    string            `json:"ifname"`
	NetNS     string            `json:"netns,omitempty"`
	PID       int               `json:"pid,omitempty"`
	Container string            `json:"container,omitempty"`
	MAC       string            `json:"mac"`
	IPs       []string          `json:"ips"`
	MTU       int               `json:"mtu"`
	RxFrames  uint64            `json:"rx_frames"`
	RxBytes   uint64            `json:"rx_bytes"`
	TxFrames  uint64            `json:"tx_frames"`
	TxBytes   uint64            `json:"tx_bytes"`
	Drops     map[string]uint64 `json:"drops"` // Non-zero reasons only.
}

// Entry is an FDB entry.
type Entry struct {
	MAC        string  `json:"mac"`
	Network    string  `json:"network"`
	Port       string  `json:"port"`
	Static     bool    `json:"static"`
	AgeSeconds float64 `json:"age_seconds"` // Since the MAC was last seen; 0 for a static one.
}

// DropCount is how many frames went no further for one reason, at one port
// (`?port=`) or at all.
type DropCount struct {
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
	Port   string `json:"port,omitempty"`
}

// Status is the daemon at a glance.
type Status struct {
	Version       string  `json:"version"`
	Node          string  `json:"node"`
	PID           int     `json:"pid"`
	UptimeSeconds float64 `json:"uptime_seconds"`
	Workers       int     `json:"workers"`
	Networks      int     `json:"networks"`
	Ports         int     `json:"ports"`
	PortsDown     int     `json:"ports_down"`
	MACs          int     `json:"macs"`
	MaxMACs       int     `json:"max_macs"`
	MACsRefused   uint64  `json:"macs_refused"` // Entries evicted because the FDB or a network was full.
	RxFrames      uint64  `json:"rx_frames"`
	RxBytes       uint64  `json:"rx_bytes"`
	TxFrames      uint64  `json:"tx_frames"`
	TxBytes       uint64  `json:"tx_bytes"`
	Drops         uint64  `json:"drops"`
	Uplinks       int     `json:"uplinks"`
	UplinksDown   int     `json:"uplinks_down"`
	Conns         int     `json:"conns"` // Connections that NAT tracks.
	MaxConns      int     `json:"max_conns"`
	ConnsRefused  uint64  `json:"conns_refused"` // For want of room, or by a container's limit.
	Peers         int     `json:"peers"`         // Static ones.
	PeersDown     int     `json:"peers_down"`
	Mesh          string  `json:"mesh"`       // As Mesh.State.
	MembersUp     int     `json:"members_up"` // As Mesh.MembersUp.
	Members       int     `json:"members"`
}

// Applied tells what an apply did, by object as `port web`.
type Applied struct {
	Created   []string `json:"created"`
	Changed   []string `json:"changed"`
	Unchanged []string `json:"unchanged"`
}

// Event is something that happened to the switch.
type Event struct {
	Time    string `json:"time"`   // RFC 3339 with nanoseconds.
	Kind    string `json:"kind"`   // As port-down, port-up, mac-flapping, network-added.
	Object  string `json:"object"` // As `port web`.
	Message string `json:"message"`
}
