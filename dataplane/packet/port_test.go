package packet

import (
	"testing"

	"github.com/google/gopacket/layers"

	"heddle/dataplane"
	"heddle/dataplane/wire"
)

// oneTag and twoTags are the tags of a customer's and of a provider's frames.
var (
	oneTag  = []layers.EthernetType{layers.EthernetTypeDot1Q}
	twoTags = []layers.EthernetType{layers.EthernetTypeQinQ, layers.EthernetTypeDot1Q}
)

// everyFrame is each kind of frame that passes a port, by name.
func everyFrame() map[string]sent {
	m := map[string]sent{}
	for _, v6 := range []bool{false, true} {
		for _, tcp := range []bool{false, true} {
			for i, tags := range [][]layers.EthernetType{nil, oneTag, twoTags} {
				name := map[bool]string{false: "IPv4 ", true: "IPv6 "}[v6] + map[bool]string{false: "UDP ", true: "TCP "}[tcp] +
					[]string{"", "tagged ", "double-tagged "}[i]
				r := recipe{v6: v6, tcp: tcp, tags: tags, seed: uint64(len(m))}
				r.payload = 18
				m[name+"small"] = build(r)
				r.payload = 1401
				m[name+"large"] = build(r)
				r.partial = true
				m[name+"partial"] = build(r)
				r.payload, r.gso = 64000, 1000
				m[name+"GSO 64 KB"] = build(r)
			}
		}
	}
	m["ARP"] = sent{frame: append(append(append([]byte{}, farMAC...), nearMAC...), append([]byte{
		0x08, 0x06, // EtherType ARP
		0, 1, 8, 0, 6, 4, 0, 1, // Ethernet, IPv4, request
		2, 0, 0, 0, 0, 0x0a, 198, 18, 0, 1, // sender
		0, 0, 0, 0, 0, 0, 198, 18, 0, 2, // target
	}, make([]byte, 18)...)...)}
	m["header only"] = sent{frame: m["ARP"].frame[:14]}
	return m
}

func TestPullGivesWhatCame(t *testing.T) {
	c := newCable(t, 1)
	for name, want := range everyFrame() {
		t.Run(name, func(t *testing.T) {
			must(t, c.far.send(want))
			same(t, pull(t, c.port, 0, 1)[0], want)
		})
	}
	if d := drops(c.port); len(d) > 0 {
		t.Errorf("drops: %v", d)
	}
}

func TestPushSendsWhatItIsGiven(t *testing.T) {
	c := newCable(t, 1)
	frames := everyFrame()
	for name, want := range frames {
		t.Run(name, func(t *testing.T) {
			c.port.Push(batchOf(0, want))
			same(t, c.far.recv(), want)
		})
	}
	if d := drops(c.port); len(d) > 0 {
		t.Errorf("drops: %v", d)
	}
	if got := c.port.Counters().Totals().TxFrames; got != uint64(len(frames)) {
		t.Errorf("%d frames counted, %d sent", got, len(frames))
	}
}

// TestTagsComeStripped makes sure that the tests of tagged frames pass
// the way by tpacket2_hdr: a frame whose tag was put back begins 4 bytes early.
func TestTagsComeStripped(t *testing.T) {
	c := newCable(t, 1)
	b := dataplane.NewBatch(0)
	must(t, c.far.send(build(recipe{payload: 18, tags: twoTags})))
	if !readable(t, c.port.FD(0), patience) {
		t.Fatal("nothing arrived")
	}
	c.port.Pull(b)
	if b.N != 1 || b.Frames[0].Off != plainMAC-bufStart-wire.VLANTagLen {
		t.Errorf("%d frames, the first at %d", b.N, b.Frames[0].Off)
	}
}
