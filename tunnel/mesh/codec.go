package mesh

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"heddle/dataplane/wire"
)

// protocol is the version of everything in this file. It is the first byte of
// every message and of a member's metadata, and memberlist's delegate version:
// members that don't share one don't join.
const protocol = 1

// Messages, by their second byte. docs/MESH.md draws them.
const (
	msgDelta  = 1 // Numbered changes of one instance.
	msgHead   = 2 // How far an instance's numbers go: more changed than is worth gossiping.
	msgWant   = 3 // Asks for what the sender lacks of some instances.
	msgState  = 4 // All that an instance announces, up to a number.
	msgAsk    = 5 // Asks for a digest.
	msgDigest = 6 // How far the sender knows each instance.
	msgBundle = 7 // Several of these in one.
	msgBye    = 8 // An instance leaves.
)

// Changes, by their first byte.
const (
	changeSet        = 1 // An endpoint is there: key, mobility, IPs.
	changeGone       = 2 // An endpoint is not: key.
	changeNetwork    = 3 // A network is there: VNI, name.
	changeNetworkOut = 4 // A network is not: VNI.
)

var (
	errMalformed = errors.New("malformed message")
	errVersion   = errors.New("unknown version of the protocol")
)

// origin names one run of one member's daemon. The instance is drawn at random
// when the daemon starts; it is compared with others of the same name only.
type origin struct {
	name     string
	instance uint32
}

// nodeSeparator stands between name and instance in memberlist's node names.
// No member's name contains it.
const nodeSeparator = "~"

// node is the origin as memberlist's name of a node.
func (o origin) node() string {
	return fmt.Sprintf("%s%s%08x", o.name, nodeSeparator, o.instance)
}

func parseNode(node string) (origin, error) {
	name, id, ok := strings.Cut(node, nodeSeparator)
	b, err := hex.DecodeString(id)
	if !ok || err != nil || len(b) != 4 || !nameRE.MatchString(name) {
		return origin{}, fmt.Errorf("%q is no member's name", node)
	}
	return origin{name, binary.BigEndian.Uint32(b)}, nil
}

// key is what an endpoint is known by.
type key struct {
	mac wire.MAC
	vni uint32
}

// record is what is told of an endpoint besides its key.
type record struct {
	ips      addrs
	mobility uint32
}

// addrs are an endpoint's addresses, packed: a byte with the number of IPv4
// addresses in its upper half and of IPv6 ones in its lower, then those of 4
// and those of 16 bytes, in order. It has no pointers but the string's own.
type addrs string

// packAddrs returns the addresses, each once, IPv4-mapped ones as IPv4.
func packAddrs(ips []netip.Addr) addrs {
	list := make([]netip.Addr, len(ips))
	for i, ip := range ips {
		list[i] = ip.Unmap()
	}
	slices.SortFunc(list, netip.Addr.Compare)
	list = slices.Compact(list)
	b := make([]byte, 1, 1+16*len(list))
	for _, ip := range list {
		if ip.Is4() {
			b[0] += 0x10
		} else {
			b[0]++
		}
		b = append(b, ip.AsSlice()...)
	}
	return addrs(b)
}

// list returns the addresses, in order.
func (a addrs) list() []netip.Addr {
	if len(a) < 2 {
		return nil
	}
	n4, n6 := int(a[0]>>4), int(a[0]&0xf)
	ips := make([]netip.Addr, 0, n4+n6)
	for b := []byte(a[1:]); len(b) > 0; {
		n := 4
		if len(ips) >= n4 {
			n = 16
		}
		ip, _ := netip.AddrFromSlice(b[:n])
		ips, b = append(ips, ip), b[n:]
	}
	return ips
}

// change is one numbered change of what an instance announces.
type change struct {
	op      byte
	key     key // Networks use only the VNI.
	record  record
	network string
}

// delta is a run of changes: first is the number of the first one.
type delta struct {
	first   uint64
	changes []change
}

// wanted is how far an instance is known: 0 if nothing is, else its number + 1.
type wanted struct {
	origin
	known uint64
}

func begin(kind byte) []byte { return []byte{protocol, kind} }

func appendOrigin(b []byte, o origin) []byte {
	b = append(append(b, byte(len(o.name))), o.name...)
	return binary.BigEndian.AppendUint32(b, o.instance)
}

func appendKey(b []byte, k key) []byte {
	mac := k.mac.Bytes()
	return append(append(b, byte(k.vni>>16), byte(k.vni>>8), byte(k.vni)), mac[:]...)
}

func appendRecord(b []byte, r record) []byte {
	return append(binary.AppendUvarint(b, uint64(r.mobility)), r.ips...)
}

func appendNetwork(b []byte, vni uint32, name string) []byte {
	b = append(b, byte(vni>>16), byte(vni>>8), byte(vni), byte(len(name)))
	return append(b, name...)
}

func appendChange(b []byte, c change) []byte {
	b = append(b, c.op)
	switch c.op {
	case changeSet:
		return appendRecord(appendKey(b, c.key), c.record)
	case changeGone:
		return appendKey(b, c.key)
	case changeNetwork:
		return appendNetwork(b, c.key.vni, c.network)
	default:
		return append(b, byte(c.key.vni>>16), byte(c.key.vni>>8), byte(c.key.vni))
	}
}

// appendWanted writes a list of origins and numbers, as msgWant and msgDigest
// end with.
func appendWanted(b []byte, list []wanted) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, w := range list {
		b = binary.AppendUvarint(appendOrigin(b, w.origin), w.known)
	}
	return b
}

// reader takes a message apart. Once something is missing, all that follows is
// zero and bad is set.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > limit {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) name() string {
	name := string(r.take(int(r.byte())))
	if !nameRE.MatchString(name) {
		r.bad, r.b = true, nil
	}
	return name
}

func (r *reader) origin() origin {
	o := origin{name: r.name()}
	if b := r.take(4); b != nil {
		o.instance = binary.BigEndian.Uint32(b)
	}
	return o
}

func (r *reader) vni() uint32 {
	b := r.take(3)
	if b == nil {
		return 0
	}
	vni := uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])
	r.bad = r.bad || vni == 0
	return vni
}

func (r *reader) key() key {
	k := key{vni: r.vni()}
	k.mac = wire.MACAt(r.take(wire.MACLen))
	r.bad = r.bad || k.mac.IsZero() || k.mac.IsMulticast()
	return k
}

func (r *reader) record() record {
	rec := record{mobility: uint32(r.uvarint(math.MaxUint32))}
	if len(r.b) == 0 {
		r.bad = true
		return rec
	}
	n4, n6 := int(r.b[0]>>4), int(r.b[0]&0xf)
	rec.ips = addrs(r.take(1 + 4*n4 + 16*n6))
	if n4+n6 > MaxEndpointIPs {
		r.bad = true
	}
	for _, ip := range rec.ips.list() {
		r.bad = r.bad || ip.IsMulticast() || ip.IsUnspecified()
	}
	return rec
}

func (r *reader) change() change {
	c := change{op: r.byte()}
	switch c.op {
	case changeSet:
		c.key, c.record = r.key(), r.record()
	case changeGone:
		c.key = r.key()
	case changeNetwork:
		c.key.vni, c.network = r.vni(), r.name()
	case changeNetworkOut:
		c.key.vni = r.vni()
	default:
		r.bad = true
	}
	return c
}

// delta reads to the end of the message.
func (r *reader) delta() delta {
	d := delta{first: r.uvarint(math.MaxUint64 >> 1)}
	for len(r.b) > 0 && !r.bad && len(d.changes) < 2*maxLog {
		d.changes = append(d.changes, r.change())
	}
	r.bad = r.bad || d.first == 0 || len(d.changes) == 0
	return d
}

func (r *reader) wanted() []wanted {
	n := r.uvarint(MaxMembers)
	list := make([]wanted, 0, n)
	for range n {
		list = append(list, wanted{r.origin(), r.uvarint(math.MaxUint64)})
	}
	return list
}

// state reads what an instance announces: the number and the lists.
func (r *reader) state() (seq uint64, networks map[uint32]string, entries map[key]record) {
	seq = r.uvarint(math.MaxUint64 >> 1)
	networks = map[uint32]string{}
	for n := r.uvarint(MaxNetworks); n > 0 && !r.bad; n-- {
		vni := r.vni()
		networks[vni] = r.name()
	}
	n := r.uvarint(MaxEndpoints)
	entries = make(map[key]record, min(n, uint64(len(r.b)/minEndpoint)))
	for ; n > 0 && !r.bad; n-- {
		k := r.key()
		entries[k] = r.record()
	}
	return seq, networks, entries
}

// minEndpoint is what an endpoint without addresses takes: VNI, MAC, mobility,
// count.
const minEndpoint = 3 + wire.MACLen + 1 + 1

// end returns an error if something was missing or is left over.
func (r *reader) end() error {
	if r.bad || len(r.b) > 0 {
		return errMalformed
	}
	return nil
}

// open checks the two bytes that every message begins with.
func open(msg []byte) (kind byte, r reader, err error) {
	switch {
	case len(msg) < 2:
		return 0, reader{}, errMalformed
	case msg[0] != protocol:
		return 0, reader{}, errVersion
	}
	return msg[1], reader{b: msg[2:]}, nil
}

// meta is what travels with a member's address: memberlist's node metadata.
type meta struct {
	vtep     netip.AddrPort
	replaces []uint32 // Instances of the same name that this one has found dead.
}

// maxReplaces bounds meta.replaces; the oldest go.
const maxReplaces = 4

func (m meta) encode() []byte {
	ip := m.vtep.Addr().Unmap().AsSlice()
	b := append([]byte{protocol, byte(len(ip))}, ip...)
	b = binary.BigEndian.AppendUint16(b, m.vtep.Port())
	b = append(b, byte(len(m.replaces)))
	for _, id := range m.replaces {
		b = binary.BigEndian.AppendUint32(b, id)
	}
	return b
}

// decodeMeta reads metadata. Bytes that follow are a later version's.
func decodeMeta(b []byte) (meta, error) {
	r := reader{b: b}
	if v := r.byte(); v != protocol {
		return meta{}, errVersion
	}
	var m meta
	ip, ok := netip.AddrFromSlice(r.take(int(r.byte())))
	port := r.take(2)
	if !ok || port == nil || ip.IsUnspecified() || ip.IsMulticast() {
		return meta{}, errMalformed
	}
	m.vtep = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(port))
	for n := min(r.byte(), maxReplaces); n > 0; n-- {
		if b := r.take(4); b != nil {
			m.replaces = append(m.replaces, binary.BigEndian.Uint32(b))
		}
	}
	if r.bad {
		return meta{}, errMalformed
	}
	return m, nil
}
