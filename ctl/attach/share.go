package attach

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// PortRange is ports First to Last, both included; the zero PortRange is none.
type PortRange struct{ First, Last uint16 }

func (r PortRange) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

func (r PortRange) contains(port uint16) bool {
	return r.First != 0 && r.First <= port && port <= r.Last
}

// check fails if the range is backwards or holds port 0.
func (r PortRange) check() error {
	if r != (PortRange{}) && (r.First == 0 || r.First > r.Last) {
		return fmt.Errorf("ports %s: want 1-65535 or a part of it", r)
	}
	return nil
}

// Published is a range of ports that Heddle answers at.
type Published struct {
	Addr  netip.Addr // One of the claim's addresses; the zero Addr means all.
	Proto uint8      // unix.IPPROTO_TCP, IPPROTO_UDP or IPPROTO_SCTP.
	Ports PortRange
}

// Claim says what of an interface's traffic is Heddle's.
type Claim struct {
	// Addresses are the interface's that Heddle uses, at most MaxClaimed.
	Addresses []netip.Addr
	// Ports are Heddle's on all of them, for TCP, UDP and SCTP: those that
	// containers' connections are given.
	Ports     PortRange
	Published []Published
}

// MaxClaimed bounds the addresses of a claim; each has 24 KB in the kernel.
const MaxClaimed = 1024

// claimedProtos are the protocols that have ports.
var claimedProtos = []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP}

// Shared is an interface that the host shares with Heddle. What is Heddle's
// reaches packet sockets and not the host's stack; everything else reaches
// both, untouched:
//
//   - TCP, UDP and SCTP packets to a claimed address and port are Heddle's, and
//     so are ICMP errors about packets that came from one.
//   - Echo replies are the host's too: which of the two asked can't be told
//     from an identifier, and a host ignores replies that it hasn't asked for.
//   - Of a fragmented packet, the fragments that follow Heddle's first one in
//     the next 15 s are Heddle's, for up to 1024 packets at a time. Those that
//     come before it pass. The host answers them with nothing: it forgets them
//     after a time, and tells only senders whose first fragment it has.
//   - Frames with a VLAN tag are another network's, unless its VID is 0.
type Shared struct {
	name   string
	closer io.Closer
	maps   shareMaps

	mu     sync.Mutex
	closed bool
	// held are the kernel's bitmaps as they are now.
	held map[claimKey]*portBits
}

// Share takes a share of an interface. Where the kernel has tcx (6.6) nothing
// is left however swd ends; before, a clsact filter may be, which the next
// Share replaces and Unsilence removes. It fails with ErrNoLink; with ErrTaken
// if a running swd uses the interface; and with ErrPortInUse if the host may
// take, or has taken, a port of c.Ports that isn't published. Later binds of
// the host to such a port are not seen.
func (ns *Namespace) Share(name string, c Claim) (*Shared, error) {
	s, err := in(ns, func() (*Shared, error) { return share(name, c, attachProgram) })
	if err != nil {
		return nil, fmt.Errorf("%s: share: %w", ns, err)
	}
	return s, nil
}

// attachFunc is attachProgram, or a part of it.
type attachFunc func(index int, program *ebpf.Program, name string) (io.Closer, error)

func share(name string, c Claim, attach attachFunc) (*Shared, error) {
	nl, err := byName(name)
	if err != nil {
		return nil, err
	}
	l := newLink(nl)
	if attached(l.Index) {
		return nil, fmt.Errorf("interface %s: a running swd uses it: %w", name, ErrTaken)
	}
	if !l.Ethernet {
		return nil, fmt.Errorf("interface %s: it carries no Ethernet frames; use another", name)
	}
	if err := c.spares(); err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	s := &Shared{name: name, held: make(map[claimKey]*portBits)}
	if err = s.maps.make(); err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	if err = s.Set(c); err == nil {
		err = s.start(l.Index, attach)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("interface %s: %w", name, err), s.maps.close())
	}
	return s, nil
}

func (m *shareMaps) make() (err error) {
	if err := allowMemory(); err != nil {
		return err
	}
	m.claims, err = ebpf.NewMap(&ebpf.MapSpec{
		Name: "heddle_claims", Type: ebpf.Hash, MaxEntries: MaxClaimed * uint32(len(claimedProtos)),
		KeySize: 20, ValueSize: uint32(len(portBits{})),
		Flags: unix.BPF_F_NO_PREALLOC,
	})
	if err == nil {
		m.firsts, err = ebpf.NewMap(&ebpf.MapSpec{
			Name: "heddle_firsts", Type: ebpf.LRUHash, MaxEntries: maxFirsts,
			KeySize: firstKeySize, ValueSize: 8,
		})
	}
	if err != nil {
		return errors.Join(fmt.Errorf("make a bpf map (swd needs CAP_BPF and CAP_NET_ADMIN): %w", err), m.close())
	}
	return nil
}

func (m *shareMaps) close() error { return errors.Join(m.claims.Close(), m.firsts.Close()) }

func (s *Shared) start(index int, attach attachFunc) error {
	program, err := loadProgram(sharer, shareProgram(s.maps))
	if err != nil {
		return err
	}
	s.closer, err = attach(index, program, sharer)
	// What it is attached to holds the program, and the program its maps.
	return errors.Join(err, program.Close())
}

// bitmaps computes what the kernel is to hold.
func (c *Claim) bitmaps() (map[claimKey]*portBits, error) {
	if len(c.Addresses) > MaxClaimed {
		return nil, fmt.Errorf("%d addresses: at most %d can be shared", len(c.Addresses), MaxClaimed)
	}
	if err := c.Ports.check(); err != nil {
		return nil, err
	}
	all := make(map[claimKey]*portBits)
	for _, a := range c.Addresses {
		for _, proto := range claimedProtos {
			bits := new(portBits)
			bits.set(c.Ports)
			all[claimKey{a.As16(), uint32(proto)}] = bits
		}
	}
	for _, p := range c.Published {
		if err := p.Ports.check(); err != nil {
			return nil, err
		}
		known := false
		for _, a := range c.Addresses {
			if bits := all[claimKey{a.As16(), uint32(p.Proto)}]; bits != nil && (!p.Addr.IsValid() || p.Addr.Unmap() == a.Unmap()) {
				bits.set(p.Ports)
				known = true
			}
		}
		if !known && p.Addr.IsValid() {
			return nil, fmt.Errorf("published ports %s: protocol %d at %s is not to be shared", p.Ports, p.Proto, p.Addr)
		}
	}
	return all, nil
}

func (b *portBits) set(r PortRange) {
	for p := int(r.First); r.First != 0 && p <= int(r.Last); p++ {
		b[p/8] |= 1 << (p % 8)
	}
}

// Set changes what is Heddle's. Each address and protocol changes at one
// moment. If it fails, some may have changed; the next Set makes all right.
// It doesn't look for ports that the host uses: reserve published ones first.
func (s *Shared) Set(c Claim) error {
	want, err := c.bitmaps()
	if err != nil {
		return fmt.Errorf("interface %s: %w", s.name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.held {
		if want[key] != nil {
			continue
		}
		if err := s.maps.claims.Delete(key.bytes()); err != nil {
			return fmt.Errorf("interface %s: give %s back: %w", s.name, netip.AddrFrom16(key.addr).Unmap(), err)
		}
		delete(s.held, key)
	}
	for key, bits := range want {
		if held := s.held[key]; held != nil && *held == *bits {
			continue
		}
		if err := s.maps.claims.Put(key.bytes(), bits[:]); err != nil {
			return fmt.Errorf("interface %s: claim %s: %w", s.name, netip.AddrFrom16(key.addr).Unmap(), err)
		}
		s.held[key] = bits
	}
	return nil
}

// bytes is the key as the program writes it.
func (k claimKey) bytes() []byte { return binary.NativeEndian.AppendUint32(k.addr[:], k.proto) }

// Close gives everything back to the host. It can be repeated.
func (s *Shared) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if err := s.closer.Close(); err != nil {
		return fmt.Errorf("interface %s: end sharing: %w", s.name, err)
	}
	s.closed = true
	return s.maps.close()
}
