package attach

import (
	"encoding/binary"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"heddle/dataplane/wire"
)

// sharer is the program's name, by which it is recognised.
const sharer = "heddle_share"

// The program, at ingress, after packet sockets have seen the frame:
//
//	for another station, or of another VLAN              host
//	IPv4, IPv6 up to 8 extension headers                 go on, else host
//	later fragment: shot if the first one was            else host
//	TCP, UDP, SCTP to a claimed address and port         shot
//	ICMP error about a packet from such a one            shot
//	everything else                                      host
//
// What it can't read is the host's. It costs two loads and one look-up for a
// packet without options: 0.12 µs (BenchmarkShareProgram).

// Offsets into struct __sk_buff of linux/bpf.h.
const (
	skbPacketType  = 4
	skbProtocol    = 16
	skbVLANPresent = 20
	skbVLANTCI     = 24
)

// The frame's stack, as offsets from the frame pointer.
const (
	stackClaim = -24 // claimKey: the address, then the protocol.
	stackProto = stackClaim + 16
	stackHdr   = -64  // 40 bytes: the header at hand.
	stackFirst = -104 // firstKey: source, destination, identification, protocol.
	stackID    = stackFirst + 32
	stackNow   = -112 // 8 bytes: the time, in nanoseconds.
)

// claimKey is what a bitmap of ports stands under. An IPv4 address is the
// IPv4-mapped one.
type claimKey struct {
	addr  [16]byte
	proto uint32
}

// portBits is a bit for each port: bit p%8 of byte p/8.
type portBits [1 << 16 / 8]byte

// firstKeySize is the size of what tells a fragmented packet from others.
const firstKeySize = 16 + 16 + 4 + 4

const (
	// maxFirsts bounds the fragmented packets that are remembered; when there
	// are more, the kernel forgets about the oldest (LRU).
	maxFirsts = 1024
	// firstLife is how long one is, in nanoseconds, as long as NAT waits for
	// the fragments of a packet.
	firstLife = 15_000_000_000
)

// The registers that live through helper calls.
const (
	regCtx  = asm.R6
	regOff  = asm.R7 // Where the header at hand begins in the frame; later the port.
	regNext = asm.R8 // Its protocol.
	regFrag = asm.R9 // fragNone or fragFirst.
)

const (
	fragNone  = 0
	fragFirst = 1
)

// shareMaps are the program's.
type shareMaps struct {
	claims *ebpf.Map // claimKey to portBits.
	firsts *ebpf.Map // Fragmented packets whose first fragment was shot, to its time.
}

// shareCode assembles the program.
type shareCode struct {
	asm.Instructions
	maps shareMaps
	// next is what the next instruction is called.
	next string
}

func (c *shareCode) add(all ...asm.Instruction) {
	for _, i := range all {
		if c.next != "" {
			i = i.WithSymbol(c.next)
			c.next = ""
		}
		c.Instructions = append(c.Instructions, i)
	}
}

// label names a place to jump to.
func (c *shareCode) label(name string) {
	if c.next != "" {
		c.add(asm.Mov.Reg(regNext, regNext)) // An instruction has one name only.
	}
	c.next = name
}

// load copies n bytes at regOff+plus of the frame to the stack, and goes to
// "pass" if there are fewer.
func (c *shareCode) load(plus, stack, n int32) {
	c.add(
		asm.Mov.Reg(asm.R1, regCtx),
		asm.Mov.Reg(asm.R2, regOff),
		asm.Add.Imm(asm.R2, plus),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stack),
		asm.Mov.Imm(asm.R4, n),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "pass"),
	)
}

// read puts a big-endian field of the header at hand into a register.
func (c *shareCode) read(r asm.Register, at int16, size asm.Size) {
	c.add(asm.LoadMem(r, asm.RFP, stackHdr+at, size))
	if size != asm.Byte {
		c.add(asm.HostTo(asm.BE, r, size))
	}
}

// copyWords copies n 4-byte words on the stack.
func (c *shareCode) copyWords(to, from int16, n int) {
	for range n {
		c.add(
			asm.LoadMem(asm.R1, asm.RFP, from, asm.Word),
			asm.StoreMem(asm.RFP, to, asm.R1, asm.Word),
		)
		to, from = to+4, from+4
	}
}

// compareWords goes to "pass" if n 4-byte words on the stack differ.
func (c *shareCode) compareWords(a, b int16, n int) {
	for range n {
		c.add(
			asm.LoadMem(asm.R1, asm.RFP, a, asm.Word),
			asm.LoadMem(asm.R2, asm.RFP, b, asm.Word),
			asm.JNE.Reg(asm.R1, asm.R2, "pass"),
		)
		a, b = a+4, b+4
	}
}

// lookUp leaves a pointer to a map's value, or 0, in R0.
func (c *shareCode) lookUp(m *ebpf.Map, key int32) {
	c.add(
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, key),
		asm.FnMapLookupElem.Call(),
	)
}

// mapped writes the first 12 bytes of an IPv4-mapped address (RFC 4291
// 2.5.5.2).
func (c *shareCode) mapped(stack int16) {
	prefix := [4]byte{0, 0, 0xff, 0xff}
	c.add(
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, stack, asm.R1, asm.Word),
		asm.StoreMem(asm.RFP, stack+4, asm.R1, asm.Word),
		asm.Mov.Imm(asm.R1, int32(binary.NativeEndian.Uint32(prefix[:]))),
		asm.StoreMem(asm.RFP, stack+8, asm.R1, asm.Word),
	)
}

// shareProgram assembles the whole.
func shareProgram(maps shareMaps) asm.Instructions {
	c := &shareCode{maps: maps}
	c.frame()
	c.ipv4()
	c.ipv6()
	c.port()
	c.later()
	c.pass()
	return c.Instructions
}

// frame sorts by what stands in the frame's metadata. The kernel has taken a
// VLAN tag out of the frame by now; priority tags (VID 0, IEEE 802.1Q 6.9) are
// this network's.
func (c *shareCode) frame() {
	ethertype := func(t uint16) int32 {
		return int32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, t)))
	}
	c.add(
		asm.Mov.Reg(regCtx, asm.R1),
		asm.Mov.Imm(regOff, wire.EthHdrLen),
		asm.Mov.Imm(regFrag, fragNone),
		asm.Mov.Imm(regNext, 0),
		asm.LoadMem(asm.R0, regCtx, skbPacketType, asm.Word),
		asm.JEq.Imm(asm.R0, unix.PACKET_OTHERHOST, "pass"),
		asm.LoadMem(asm.R0, regCtx, skbVLANPresent, asm.Word),
		asm.JEq.Imm(asm.R0, 0, "untagged"),
		asm.LoadMem(asm.R0, regCtx, skbVLANTCI, asm.Word),
		asm.And.Imm(asm.R0, 0xfff),
		asm.JNE.Imm(asm.R0, 0, "pass"),
	)
	c.label("untagged")
	c.add(
		asm.LoadMem(asm.R0, regCtx, skbProtocol, asm.Word),
		asm.JEq.Imm(asm.R0, ethertype(wire.EtherTypeIPv4), "ipv4"),
		asm.JEq.Imm(asm.R0, ethertype(wire.EtherTypeIPv6), "ipv6"),
		asm.Ja.Label("pass"),
	)
}

// ipv4 handles an IPv4 packet (RFC 791 3.1).
func (c *shareCode) ipv4() {
	const protocol, source, destination = 9, 12, 16
	c.label("ipv4")
	c.load(0, stackHdr, wire.IPv4MinHdrLen)
	c.mapped(stackClaim)
	c.copyWords(stackClaim+12, stackHdr+destination, 1)
	c.ipv4Header()
	c.read(asm.R1, 6, asm.Half)
	c.add(
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.And.Imm(asm.R2, 0x3fff), // More fragments, and the offset.
		asm.JEq.Imm(asm.R2, 0, "ipv4_upper"),
		// It is a fragment.
		asm.Mov.Reg(regFrag, asm.R1),
	)
	c.mapped(stackFirst)
	c.copyWords(stackFirst+12, stackHdr+source, 1)
	c.mapped(stackFirst + 16)
	c.copyWords(stackFirst+28, stackHdr+destination, 1)
	c.add(
		asm.LoadMem(asm.R1, asm.RFP, stackHdr+4, asm.Half),
		asm.StoreMem(asm.RFP, stackID, asm.R1, asm.Word),
		asm.StoreMem(asm.RFP, stackID+4, regNext, asm.Word),
		asm.And.Imm(regFrag, 0x1fff),
		asm.JNE.Imm(regFrag, 0, "later"),
		asm.Mov.Imm(regFrag, fragFirst),
	)
	c.label("ipv4_upper")
	c.upper("ipv4", wire.ProtoICMP, func() {
		// Errors carry the packet's start after 8 bytes (RFC 792).
		for _, t := range []int32{wire.ICMPUnreachable, wire.ICMPSourceQuench, wire.ICMPRedirect, wire.ICMPTimeExceeded, wire.ICMPParamProblem} {
			c.add(asm.JEq.Imm(asm.R1, t, "ipv4_inner"))
		}
		c.add(asm.Ja.Label("pass"))
		c.label("ipv4_inner")
		c.add(asm.Add.Imm(regOff, wire.ICMPHdrLen))
		c.load(0, stackHdr, wire.IPv4MinHdrLen)
		c.compareWords(stackHdr+source, stackClaim+12, 1)
		c.read(asm.R1, 6, asm.Half)
		c.add(asm.And.Imm(asm.R1, 0x1fff), asm.JNE.Imm(asm.R1, 0, "pass"))
		c.ipv4Header()
	})
}

// ipv4Header passes over the header at hand.
func (c *shareCode) ipv4Header() {
	c.read(regNext, 9, asm.Byte)
	c.read(asm.R1, 0, asm.Byte)
	c.add(
		asm.And.Imm(asm.R1, 0x0f),
		asm.LSh.Imm(asm.R1, 2),
		asm.JLT.Imm(asm.R1, wire.IPv4MinHdrLen, "pass"),
		asm.Add.Reg(regOff, asm.R1),
	)
}

// ipv6 handles an IPv6 packet (RFC 8200).
func (c *shareCode) ipv6() {
	const source, destination = 8, 24
	c.label("ipv6")
	c.load(0, stackHdr, wire.IPv6HdrLen)
	c.copyWords(stackClaim, stackHdr+destination, 4)
	// Only fragments need it, but by then the header is gone.
	c.copyWords(stackFirst, stackHdr+source, 8)
	c.read(regNext, 6, asm.Byte)
	c.add(asm.Add.Imm(regOff, wire.IPv6HdrLen))
	c.extensions("ipv6_outer", func(whole string) {
		c.copyWords(stackID, stackHdr+4, 1)
		c.add(
			asm.Mov.Imm(asm.R1, 0),
			asm.StoreMem(asm.RFP, stackID+4, asm.R1, asm.Word),
		)
		c.read(asm.R1, 2, asm.Half)
		c.add(
			asm.JGT.Imm(asm.R1, 7, "later"), // RFC 8200 4.5: the low 3 bits are no offset.
			asm.And.Imm(asm.R1, 1),
			asm.JEq.Imm(asm.R1, 0, whole), // RFC 6946.
			asm.Mov.Imm(regFrag, fragFirst),
		)
	})
	c.upper("ipv6", wire.ProtoICMPv6, func() {
		// Errors carry the packet's start after 8 bytes (RFC 4443 2.1).
		c.add(asm.JGT.Imm(asm.R1, 127, "pass"), asm.Add.Imm(regOff, wire.ICMPHdrLen))
		c.load(0, stackHdr, wire.IPv6HdrLen)
		c.compareWords(stackHdr+source, stackClaim, 4)
		c.read(regNext, 6, asm.Byte)
		c.add(asm.Add.Imm(regOff, wire.IPv6HdrLen))
		c.extensions("ipv6_inner", func(string) {
			c.read(asm.R1, 2, asm.Half)
			c.add(asm.JGT.Imm(asm.R1, 7, "pass"))
		})
	})
}
