// hot: no allocation, lock, log, map, channel, clock or interface call per frame.

package tunnel

import (
	"time"

	"heddle/dataplane"
	"heddle/dataplane/offload"
	"heddle/dataplane/wire"
	"heddle/tunnel/underlay"
)

// Pull implements dataplane.Port: it gives the frames that have come in from
// all peers, TCP segments joined into super-frames. Which tunnel each came by is
// kept for Push.
//
// A frame lies where the underlay received it. Only the second and later frames
// of datagrams that the kernel has joined have no headroom there, and are copied
// to b.Slab. Besides what the underlay does, a frame of 64 B costs about 70 ns,
// half of it to see whether it can be joined and what it owes, and a TCP segment
// of 1,400 bytes 180 ns, most of it for its checksum and for moving its payload
// to that of the one before.
func (v *VTEP) Pull(b *dataplane.Batch) {
	w := &v.workers[b.Worker]
	if w.next == len(w.datagrams) {
		w.datagrams, w.more = v.under.Recv(b.Worker)
		w.next, w.at = 0, 0
		if len(w.datagrams) == 0 {
			return
		}
	}
	p := puller{v: v, w: w, b: b}
	ends := v.ends.Load()
	frames, bytes := b.N, b.Bytes
	for w.next < len(w.datagrams) {
		d := &w.datagrams[w.next]
		peer := ends.peer(&d.Src)
		if peer == nil {
			v.counters.Drop(b.Worker, dataplane.UnknownPeer, max((d.Len+d.SegSize-1)/d.SegSize, 1))
		} else if !p.datagram(d, peer) {
			break
		}
		w.next, w.at = w.next+1, 0
	}
	p.end()
	if b.N > frames {
		v.counters.Rx(b.Worker, b.N-frames, b.Bytes-bytes)
	}
	b.More = w.next < len(w.datagrams) || w.more
}

// puller is one call of Pull.
type puller struct {
	v *VTEP
	w *worker
	b *dataplane.Batch
	// open is the tunnel of the frame that is being joined, nil if there is
	// none: b.Next(), which is not part of the batch yet.
	open *Tunnel
	slab int   // How much of b.Slab is used.
	edge int   // Where the last frame that lies in the datagram at hand ends: an offset in its Buf.
	in   place // Where the open frame lies.
	// uncut is the payload bytes of each segment of the UDP GSO frame that is
	// the datagram at hand, or 0 if it is none. See uncut.
	uncut int
}

// place is where a frame lies.
type place uint8

const (
	inThis    place = iota // In the datagram at hand.
	inEarlier              // In one before it.
	inSlab                 // In b.Slab.
)

// datagram takes the frames of a datagram from w.at on. It returns false if the
// batch is full before its end.
func (p *puller) datagram(d *underlay.Datagram, peer *Peer) bool {
	if now := p.b.Now; now-peer.heard.Load() >= int64(time.Second) || peer.heard.Load() == 0 {
		peer.heard.Store(max(now, 1))
	}
	// The way here may be wider than the way back: what a usual path takes is
	// one segment in any case.
	routes, mtu := peer.routes.Load(), max(peer.MTU(), DefaultPathMTU-p.v.overhead())
	p.edge = 0
	if p.in == inThis {
		p.in = inEarlier
	}
	seg := d.SegSize
	p.uncut = 0
	if p.w.at == 0 && seg < d.Len && uncut(d) {
		p.uncut, seg = seg, d.Len
	}
	if d.Len == 0 {
		p.drop(dataplane.VXLANShort)
	}
	var t *Tunnel
	for p.w.at < d.Len {
		n := min(seg, d.Len-p.w.at)
		off := d.Off + p.w.at
		h, ok := wire.VXLANAt(d.Buf[off:off+n], 0)
		switch {
		case !ok:
			p.drop(dataplane.VXLANShort)
		case !h.HasVNI():
			p.drop(dataplane.VXLANFlags)
		default:
			if vni := h.VNI(); t == nil || t.vni != vni {
				t = routes.find(vni)
			}
			if t == nil {
				p.drop(dataplane.UnknownVNI)
			} else if !p.frame(d, t, off+wire.VXLANHdrLen, n-wire.VXLANHdrLen, mtu) {
				return false
			}
		}
		p.w.at += n
	}
	return true
}

// uncut tells whether a datagram that the underlay takes for several is one: a
// kernel's vxlan device, on this host or with a paravirtual device between, leaves it
// to others to cut a container's UDP GSO frame, and nobody does. Its payload is the
// container's, and must not be taken for headers.
func uncut(d *underlay.Datagram) bool {
	return d.Len > wire.VXLANHdrLen && offload.Whole(d.Buf[d.Off+wire.VXLANHdrLen:d.Off+d.Len])
}

func (p *puller) drop(d dataplane.Drop) { p.v.counters.Drop(p.b.Worker, d, 1) }

// frame takes the inner frame d.Buf[off:off+n]. It returns false if the batch
// has no room for it; the frame may then be given again.
func (p *puller) frame(d *underlay.Datagram, t *Tunnel, off, n, mtu int) bool {
	frame := d.Buf[off : off+n]
	if drop := admit(t, frame, d.TOS); drop != dataplane.None {
		t.counters.Drop(p.b.Worker, drop, 1)
		return true
	}
	if p.open == t && p.w.coalescer.Add(frame) {
		return true
	}
	p.end()
	if p.b.Full() || p.b.Bytes >= dataplane.PullBytes {
		return false
	}
	f := p.b.Next()
	f.Buf, f.Off, f.Len = d.Buf, off, n
	p.in = inThis
	if off-dataplane.Headroom < p.edge {
		f.Buf, f.Off = p.b.Slab, p.slab+dataplane.Headroom
		p.in = inSlab
		copy(f.Buf[f.Off:], frame)
	}
	p.w.from[p.b.N&(dataplane.BatchSize-1)] = t
	var open bool
	if f.Owes, open = p.w.coalescer.Begin(f.Buf, f.Off, n, mtu); open {
		p.open = t
	} else {
		if p.uncut > 0 {
			f.Owes = offload.Adopt(f.Bytes(), mtu, p.uncut)
		}
		p.clamp(t, f)
		p.add(f)
	}
	return true
}

// end makes the frame that is being joined, if there is one, part of the batch.
func (p *puller) end() {
	if p.open == nil {
		return
	}
	p.open = nil
	f := p.b.Next()
	f.Len, f.Owes = p.w.coalescer.End()
	p.add(f)
}

func (p *puller) add(f *dataplane.Frame) {
	switch p.in {
	case inThis:
		p.edge = f.Off + f.Len
	case inSlab:
		p.slab = (f.Off + f.Len + lineLen - 1) &^ (lineLen - 1)
	}
	p.b.Add()
}

// lineLen is the length of a cache line in bytes.
const lineLen = 64

// clamp lowers the MSS of a SYN, so that what answers it fits the tunnel. A SYN is
// never joined.
func (p *puller) clamp(t *Tunnel, f *dataplane.Frame) {
	var in inner
	in.look(f.Bytes())
	if in.l4 == 0 {
		return
	}
	mss := in.mss(int(t.mtu.Load()), int(t.peer.maxLen.Load()))
	if wire.ClampMSS(f.Bytes(), in.l4, mss, f.Owes.Partial()) {
		count(&p.w.clamped, 1)
	}
}

// admit tells whether an inner frame may go on, and takes over the ECN mark of
// its way; twice is as good as once.
func admit(t *Tunnel, frame []byte, tos uint8) dataplane.Drop {
	if len(frame) < wire.EthHdrLen {
		return dataplane.Runt
	}
	if g := t.gates.Load(); g != nil && g.lies(frame) {
		return dataplane.GatewayAddress
	}
	if tos&ecn != notECT && !innerECN(frame, tos) {
		return dataplane.ECNMarked
	}
	return dataplane.None
}
