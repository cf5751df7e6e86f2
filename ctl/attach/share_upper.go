package attach

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"heddle/dataplane/wire"
)

// extensions steps over the IPv6 extension headers at regOff as wire.IPv6Walk
// does: the same headers, the same bound. fragment handles a fragment header,
// which is at stackHdr, and jumps to whole if the packet is.
func (c *shareCode) extensions(name string, fragment func(whole string)) {
	const hopByHop, routing, fragmentHdr, auth, options, mobility, hip, shim6 = 0, 43, 44, 51, 60, 135, 139, 140
	end := name + "_end"
	for i := range wire.IPv6MaxExt + 1 {
		at := func(what string) string { return fmt.Sprintf("%s_%s_%d", name, what, i) }
		for _, proto := range []int32{hopByHop, routing, options, mobility, hip, shim6} {
			c.add(asm.JEq.Imm(regNext, proto, at("units8")))
		}
		c.add(
			asm.JEq.Imm(regNext, auth, at("units4")),
			asm.JNE.Imm(regNext, fragmentHdr, end),
		)
		c.load(0, stackHdr, 8)
		c.read(regNext, 0, asm.Byte)
		c.add(asm.Add.Imm(regOff, 8))
		fragment(at("next"))
		c.add(asm.Ja.Label(at("next")))
		c.label(at("units8"))
		c.extension(3)
		c.add(asm.Ja.Label(at("next")))
		c.label(at("units4")) // RFC 4302 2.2: words of 4 bytes, less 2.
		c.extension(2)
		c.label(at("next"))
	}
	c.add(asm.Ja.Label("pass"))
	c.label(end)
}

// extension steps over one whose length is given in units of 1<<shift bytes
// after the first 8.
func (c *shareCode) extension(shift int32) {
	c.load(0, stackHdr, 8)
	c.read(regNext, 0, asm.Byte)
	c.read(asm.R1, 1, asm.Byte)
	c.add(
		asm.LSh.Imm(asm.R1, shift),
		asm.Add.Imm(asm.R1, 8),
		asm.Add.Reg(regOff, asm.R1),
	)
}

// upper handles the header behind IP's. inner finds the header that is behind
// the IP header that an ICMP error carries; R1 is the message's type. It goes
// on at "port", with the port at the start of stackHdr.
func (c *shareCode) upper(name string, icmp int32, inner func()) {
	ports := []int32{wire.ProtoTCP, wire.ProtoUDP, wire.ProtoSCTP}
	for _, proto := range ports {
		c.add(asm.JEq.Imm(regNext, proto, name+"_destination"))
	}
	c.add(asm.JNE.Imm(regNext, icmp, "pass"))
	c.load(0, stackHdr, 1)
	c.read(asm.R1, 0, asm.Byte)
	inner()
	for _, proto := range ports {
		c.add(asm.JEq.Imm(regNext, proto, name+"_source"))
	}
	c.add(asm.Ja.Label("pass"))
	c.label(name + "_source") // The packet was ours, so its source is.
	c.load(0, stackHdr, 2)
	c.add(asm.Ja.Label("port"))
	c.label(name + "_destination")
	c.load(2, stackHdr, 2)
	c.add(asm.Ja.Label("port"))
}

// port drops what is for a port that is claimed.
func (c *shareCode) port() {
	c.label("port")
	c.read(regOff, 0, asm.Half)
	c.add(asm.StoreMem(asm.RFP, stackProto, regNext, asm.Word))
	c.lookUp(c.maps.claims, stackClaim)
	c.add(
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Reg(asm.R1, regOff),
		asm.RSh.Imm(asm.R1, 3),
		asm.Add.Reg(asm.R0, asm.R1),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Byte),
		asm.And.Imm(regOff, 7),
		asm.RSh.Reg(asm.R1, regOff),
		asm.And.Imm(asm.R1, 1),
		asm.JEq.Imm(asm.R1, 0, "pass"),
		asm.JNE.Imm(regFrag, fragFirst, "shot"),
		// The other fragments have no ports.
		asm.FnKtimeGetNs.Call(),
		asm.StoreMem(asm.RFP, stackNow, asm.R0, asm.DWord),
		asm.LoadMapPtr(asm.R1, c.maps.firsts.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackFirst),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stackNow),
		asm.Mov.Imm(asm.R4, int32(ebpf.UpdateAny)),
		asm.FnMapUpdateElem.Call(),
		asm.Ja.Label("shot"),
	)
}

// later handles a fragment that isn't the first.
func (c *shareCode) later() {
	c.label("later")
	c.add(asm.Mov.Imm(regFrag, fragNone))
	c.lookUp(c.maps.firsts, stackFirst)
	c.add(
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(regOff, asm.R0, 0, asm.DWord),
		asm.FnKtimeGetNs.Call(),
		asm.Sub.Reg(asm.R0, regOff),
		asm.LoadImm(asm.R1, firstLife, asm.DWord),
		asm.JGT.Reg(asm.R0, asm.R1, "pass"),
	)
	c.label("shot")
	c.add(asm.Mov.Imm(asm.R0, tcActShot), asm.Return())
}

// pass leaves the frame to the host. Its identification may have been that of
// a packet that wasn't the host's.
func (c *shareCode) pass() {
	c.label("pass")
	c.add(
		asm.JNE.Imm(regFrag, fragFirst, "host"),
		asm.LoadMapPtr(asm.R1, c.maps.firsts.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackFirst),
		asm.FnMapDeleteElem.Call(),
	)
	c.label("host")
	c.add(asm.Mov.Imm(asm.R0, tcNext), asm.Return())
}
