package api

// Uplink is a live uplink. Rx is what came to swd by it, tx what went out; of
// what came to a shared one, that is only what is swd's.
type Uplink struct {
	Name      string            `json:"name"`
	Interface string            `json:"interface"`
	Mode      string            `json:"mode"` // As config.ModeShared, config.ModeOwn.
	State     string            `json:"state"`
	Reason    string            `json:"reason,omitempty"` // Why it is down.
	MAC       string            `json:"mac"`
	Addresses []string          `json:"addresses"` // With prefix length, as they are now.
	NextHops  []NextHop         `json:"next_hops"`
	Ports     string            `json:"ports"` // A-B, what connections from inside are given.
	MTU       int               `json:"mtu"`
	RxFrames  uint64            `json:"rx_frames"`
	RxBytes   uint64            `json:"rx_bytes"`
	TxFrames  uint64            `json:"tx_frames"`
	TxBytes   uint64            `json:"tx_bytes"`
	Drops     map[string]uint64 `json:"drops"` // Non-zero reasons only.
}

// The states of a next hop, by RFC 4861 section 7.3.2.
const (
	HopIncomplete = "incomplete" // It has not answered yet, or no more.
	HopReachable  = "reachable"
	HopStale      = "stale" // It has not been heard for a while; frames go there and it is asked.
)

// NextHop is a router that an uplink sends to.
type NextHop struct {
	Address string `json:"address"`
	MAC     string `json:"mac,omitempty"` // Not while it is incomplete.
	State   string `json:"state"`
}

// NAT is a live masquerade or publication.
type NAT struct {
	ID     string `json:"id"`   // As config.NAT.ID says.
	Type   string `json:"type"` // As config.TypeMasquerade, config.TypePublish.
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"` // Why it is down.
	// Network is the one whose containers it lets out, or that it leads to.
	Network string `json:"network,omitempty"`
	Uplink  string `json:"uplink"`

	// A masquerade's.

	Mapping   string `json:"mapping,omitempty"`
	Filtering string `json:"filtering,omitempty"`
	IPv6      string `json:"ipv6,omitempty"`

	// A publication's.

	Listen string `json:"listen,omitempty"`
	To     string `json:"to,omitempty"` // As it was asked for.
	// ToAddresses is where it leads now, as IP:PORT[-PORT], one of each family
	// at most.
	ToAddresses []string `json:"to_addresses,omitempty"`

	Hits uint64 `json:"hits"` // Connections that it began.
}

// The states of a connection.
const (
	ConnOpening     = "opening"     // TCP, SCTP: not both ends have agreed yet.
	ConnEstablished = "established" // TCP, SCTP.
	ConnClosing     = "closing"     // TCP, SCTP: one end or both have begun to close.
	ConnReset       = "reset"       // TCP, SCTP: ended by RST or ABORT; lingers.
	ConnOneWay      = "one-way"     // UDP: nobody has answered yet.
	ConnTwoWay      = "two-way"     // UDP.
	ConnQuery       = "query"       // ICMP.
)

// Flow is one direction of a connection. Both are IP:PORT, [IP]:PORT with
// IPv6. An ICMP query has its identifier at its inner end and where that is
// translated to, and no port at the other.
type Flow struct {
	Src string `json:"src"`
	Dst string `json:"dst"`
}

// Conn is a connection, as its first packet had it before it was translated and
// as an answer to it comes before it is translated back.
type Conn struct {
	Proto          string  `json:"proto"` // tcp, udp, icmp or sctp.
	Network        string  `json:"network"`
	Uplink         string  `json:"uplink"`
	NAT            string  `json:"nat"` // The id of what began it.
	Original       Flow    `json:"original"`
	Reply          Flow    `json:"reply"`
	State          string  `json:"state"`
	TimeoutSeconds float64 `json:"timeout_seconds"` // Until it ends if nothing more comes from inside.
	Packets        uint64  `json:"packets"`         // Of both directions.
	Bytes          uint64  `json:"bytes"`           // Of both directions, from the IP header on.
}

// ConnCount is how many connections there are and were.
type ConnCount struct {
	Count      int    `json:"count"`
	Max        int    `json:"max"`
	Containers int    `json:"containers"` // Inside addresses that have some.
	Created    uint64 `json:"created"`
	Expired    uint64 `json:"expired"`
	Refused    uint64 `json:"refused"` // For want of room, or by a container's limit.
}
