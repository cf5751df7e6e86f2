package wire

import (
	"testing"

	"heddle/bench/golden"
)

func TestVNetHdr(t *testing.T) {
	// As a TAP gives a TCP super-frame: checksum from 34, field at 16.
	b := golden.Bytes(t, `
		01        # VIRTIO_NET_HDR_F_NEEDS_CSUM
		81        # VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN
		42 00     # hdr_len 66
		a8 05     # gso_size 1448
		22 00     # csum_start 34
		10 00     # csum_offset 16`)
	var h VNetHdr
	h.Decode(b)
	want := VNetHdr{
		Flags: VNetNeedsCsum, GSOType: VNetGSOTCP4 | VNetGSOECN,
		HdrLen: 66, GSOSize: 1448, CsumStart: 34, CsumOffset: TCPCsumOff,
	}
	if h != want || !h.Partial() || !h.GSO() {
		t.Errorf("decoded %+v, want %+v", h, want)
	}
	var out [VNetHdrLen]byte
	h.Encode(out[:])
	if string(out[:]) != string(b) {
		t.Errorf("encoded % x, want % x", out, b)
	}
	var zero VNetHdr
	if zero.Partial() || zero.GSO() {
		t.Error("the zero header owes something")
	}
}
