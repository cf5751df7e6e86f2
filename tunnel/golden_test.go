package tunnel

import (
	"bytes"
	"testing"
	"unsafe"

	"heddle/bench/golden"
	"heddle/dataplane"
	"heddle/dataplane/wire"
	"heddle/tunnel/underlay"
)

// arpRequest is an inner frame that is not touched on its way.
const arpRequest = `
	ff ff ff ff ff ff  02 00 00 00 00 01  08 06   # Ethernet: broadcast, ARP
	00 01 08 00 06 04 00 01                       # IPv4 over Ethernet, request
	02 00 00 00 00 01  c6 12 00 01                # 198.18.0.1 is at ...01
	00 00 00 00 00 00  c6 12 00 09                # who has 198.18.0.9?`

// wiretap keeps the bytes of what it is told to send.
type wiretap struct {
	memUnderlay
	datagrams [][]byte
	msgs      []underlay.Message
}

func (w *wiretap) Send(_ int, msgs []underlay.Message) {
	for i := range msgs {
		m := &msgs[i]
		m.Drop = dataplane.None
		var data []byte
		for _, iov := range m.Iovs {
			data = append(data, unsafe.Slice(iov.Base, iov.Len)...)
		}
		for len(data) > 0 {
			n := min(m.SegSize, len(data))
			w.datagrams = append(w.datagrams, data[:n])
			data = data[n:]
		}
		w.msgs = append(w.msgs, *m)
	}
}

func TestWhatIsSent(t *testing.T) {
	for _, c := range []struct {
		what  string
		vni   uint32
		frame dataplane.Frame
		want  []string // Datagrams.
		tos   uint8
	}{
		{"a broadcast", 42, frameOf(golden.Bytes(t, arpRequest)), []string{`
			08 00 00 00  00 00 2a 00   # VXLAN: I flag, VNI 42, reserved 0` + arpRequest}, 0},
		{"the highest VNI, an inner tag, ECN-capable", wire.MaxVNI, frameOf(golden.Bytes(t, taggedUDP)), []string{`
			08 00 00 00  ff ff ff 00` + taggedUDP}, 2},
		{"a partial checksum is completed", 1, spec{proto: wire.ProtoUDP, sport: 1000, dport: 2000, payload: 4, partial: true}.frame(), []string{`
			08 00 00 00  00 00 01 00
			02 00 00 00 00 02  02 00 00 00 00 01  08 00
			45 00 00 20 12 34 40 00  40 11 9c 71  c6 12 00 01  c6 12 00 02
			03 e8 07 d0 00 0c 59 da   # UDP, 12 bytes
			00 07 0e 15`}, 0},
		{"a super-frame is cut", 7, spec{sport: 1000, dport: 2000, seq: 0x100, payload: 20, size: 16, partial: true, flags: wire.TCPAck | wire.TCPPsh}.frame(), []string{`
			08 00 00 00  00 00 07 00
			02 00 00 00 00 02  02 00 00 00 00 01  08 00
			45 00 00 38 12 34 40 00  40 06 9c 64  c6 12 00 01  c6 12 00 02   # 56 bytes, identification 0x1234
			03 e8 07 d0 00 00 01 00  00 00 00 09  50 10 fa f0  92 29 00 00   # sequence 0x100, ACK
			00 07 0e 15 1c 23 2a 31 38 3f 46 4d 54 5b 62 69`, `
			08 00 00 00  00 00 07 00
			02 00 00 00 00 02  02 00 00 00 00 01  08 00
			45 00 00 2c 12 35 40 00  40 06 9c 6f  c6 12 00 01  c6 12 00 02   # 44 bytes, 0x1235
			03 e8 07 d0 00 00 01 10  00 00 00 09  50 18 fa f0  2c e2 00 00   # sequence 0x110, PSH ACK
			70 77 7e 85`}, 0},
	} {
		t.Run(c.what, func(t *testing.T) {
			tap := &wiretap{}
			tap.memUnderlay = *newInternet().host("192.0.2.1", 1)
			v, err := New(Config{Workers: 1, Underlay: tap})
			if err != nil {
				t.Fatal(err)
			}
			s := &site{t: t, v: v, now: 1}
			tu := s.tunnel(s.peer("b", "192.0.2.2"), c.vni, 5, &network{})
			s.send(tu, c.frame)
			if len(tap.datagrams) != len(c.want) {
				t.Fatalf("%d datagrams, want %d: % x", len(tap.datagrams), len(c.want), tap.datagrams)
			}
			for i, got := range tap.datagrams {
				if want := golden.Bytes(t, c.want[i]); !bytes.Equal(got, want) {
					t.Errorf("datagram %d:\ngot  % x\nwant % x", i, got, want)
				}
			}
			expect(t, "TOS", tap.msgs[0].TOS, c.tos)
			expect(t, "destination", tap.msgs[0].Dest.Addr().AddrPort().String(), "192.0.2.2:4789")
			total := tu.Counters().Totals()
			expect(t, "counted", []uint64{total.TxFrames, total.TxBytes}, []uint64{1, uint64(c.frame.Len)})
		})
	}
}

const taggedUDP = `
	02 00 00 00 00 02  02 00 00 00 00 01  81 00 00 0a  08 00   # VLAN 10
	45 02 00 20 12 34 40 00  40 11 9c 6f  c6 12 00 01  c6 12 00 02   # ECN-capable
	03 e8 07 d0 00 0c 59 da
	00 07 0e 15`

func TestWhatIsReceived(t *testing.T) {
	const stranger, friend = "198.51.100.7:50000", "192.0.2.2:50000"
	for _, c := range []struct {
		what, from string
		datagram   string
		tos        uint8
		inner      string // What reaches the network; nothing if empty.
		vtep, port string // Drops.
	}{
		{"a frame", friend, "08 00 00 00 00 00 2a 00" + arpRequest, 0, arpRequest, "", ""},
		{"any source port is the peer's", "192.0.2.2:1", "08 00 00 00 00 00 2a 00" + arpRequest, 0, arpRequest, "", ""},
		{"reserved bits are ignored", friend, "ff ff ff ff 00 00 2a ff" + arpRequest, 0, arpRequest, "", ""},
		{"without the I flag", friend, "f7 00 00 00 00 00 2a 00" + arpRequest, 0, "", "vxlan-flags=1", ""},
		{"a header of 7 bytes", friend, "08 00 00 00 00 00 2a", 0, "", "vxlan-short=1", ""},
		{"an empty datagram", friend, "", 0, "", "vxlan-short=1", ""},
		{"one byte", friend, "08", 0, "", "vxlan-short=1", ""},
		{"another VNI", friend, "08 00 00 00 00 00 2b 00" + arpRequest, 0, "", "unknown-vni=1", ""},
		{"the VNI in the wrong place", friend, "08 00 00 00 2a 00 00 00" + arpRequest, 0, "", "unknown-vni=1", ""},
		{"VNI 0", friend, "08 00 00 00 00 00 00 00" + arpRequest, 0, "", "unknown-vni=1", ""},
		{"nothing inside", friend, "08 00 00 00 00 00 2a 00", 0, "", "", "runt=1"},
		{"13 bytes inside", friend, "08 00 00 00 00 00 2a 00 ff ff ff ff ff ff 02 00 00 00 00 01 08", 0, "", "", "runt=1"},
		{"14 bytes inside", friend, "08 00 00 00 00 00 2a 00 ff ff ff ff ff ff 02 00 00 00 00 01 08 06", 0,
			"ff ff ff ff ff ff 02 00 00 00 00 01 08 06", "", ""},
		{"a stranger", stranger, "08 00 00 00 00 00 2a 00" + arpRequest, 0, "", "unknown-peer=1", ""},
		{"a stranger's empty datagram", stranger, "", 0, "", "unknown-peer=1", ""},
		{"a stranger's rubbish", stranger, "00", 0, "", "unknown-peer=1", ""},
		{"an inner tag", friend, "08 00 00 00 00 00 2a 00" + taggedUDP, 0, taggedUDP, "", ""},
		{"marked on its way", friend, "08 00 00 00 00 00 2a 00" + taggedUDP, 3, `
			02 00 00 00 00 02  02 00 00 00 00 01  81 00 00 0a  08 00
			45 03 00 20 12 34 40 00  40 11 9c 6e  c6 12 00 01  c6 12 00 02   # CE
			03 e8 07 d0 00 0c 59 da
			00 07 0e 15`, "", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			p := newPair(t, "192.0.2.1", "192.0.2.2")
			p.a.u.inject(c.from, c.tos, golden.Bytes(t, c.datagram))
			p.a.pull()
			got := p.netA.take()
			if c.inner == "" {
				expect(t, "frames", len(got), 0)
			} else if want := golden.Bytes(t, c.inner); len(got) != 1 || !bytes.Equal(got[0].data, want) || got[0].in != 5 {
				t.Errorf("got %x\nwant % x on port 5", got, want)
			}
			expect(t, "drops at the VTEP", drops(p.a.v.Counters()), c.vtep)
			expect(t, "drops at the tunnel", drops(p.ta.Counters()), c.port)
			expect(t, "rx", p.ta.Counters().Totals().RxFrames, uint64(len(got)))
			expect(t, "rx of the VTEP", p.a.v.Counters().Totals().RxFrames, uint64(len(got)))
			heard := p.ta.Peer().Heard() > 0
			expect(t, "heard of the peer", heard, c.from != stranger)
		})
	}
}
