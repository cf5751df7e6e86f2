package load

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"heddle/bench/lab"
)

// translated is what a NAT makes of frame number seq of a flow.
func translated(t *testing.T, f Frames, flow uint16, seq uint64, port uint16) []byte {
	t.Helper()
	f.Routed = true
	frame := made(t, f, flow, seq)
	copy(frame[offSrcMAC:], []byte{2, 0, 0, 0, 0, 0x77})
	binary.BigEndian.PutUint16(frame[offSrcPort:], port)
	return frame
}

func TestCheckerRouted(t *testing.T) {
	f := DefaultFrames()
	f.Flows = 2
	frame := func(flow uint16, seq uint64, port uint16) []byte { return translated(t, f, flow, seq, port) }
	damaged := func(at int) []byte {
		b := frame(0, 1, 40_000)
		b[at] ^= 1
		return b
	}
	for _, c := range []struct {
		name   string
		frames [][]byte
		want   Received
	}{
		{"ports of the path's choice", [][]byte{frame(0, 0, 40_000), frame(1, 0, 10_000), frame(0, 1, 40_000)}, Received{Delivered: 3}},
		{"another port in mid-flow", [][]byte{frame(0, 0, 40_000), frame(0, 1, 40_001)}, Received{Delivered: 1, Corrupt: 1}},
		{"one port for two flows", [][]byte{frame(0, 0, 40_000), frame(1, 0, 40_000)}, Received{Delivered: 1, Corrupt: 1}},
		{"another source MAC in mid-flow", [][]byte{frame(0, 0, 40_000), damaged(offSrcMAC)}, Received{Delivered: 1, Corrupt: 1}},
		{"a hop too many left", [][]byte{damaged(14 + 8)}, Received{Corrupt: 1}},
		{"untranslated source", [][]byte{damaged(14 + 12)}, Received{Corrupt: 1}},
		{"a wrong header checksum", [][]byte{damaged(14 + 10)}, Received{Corrupt: 1}},
		{"damaged payload", [][]byte{damaged(offHash)}, Received{Corrupt: 1}},
		{"not UDP", [][]byte{damaged(offProto)}, Received{Foreign: 1}},
		{"for somebody else", [][]byte{damaged(0)}, Received{Foreign: 1}},
		{"too short", [][]byte{frame(0, 0, 40_000)[:20]}, Received{Foreign: 1}},
	} {
		f.Routed = true
		checker, err := NewChecker(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range c.frames {
			checker.Check(b)
		}
		if got := checker.Received(); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// What a router asks of a receiver, and what it is told.
func TestResponder(t *testing.T) {
	l := lab.New(t)
	a, b := l.NewNetNS("a"), l.NewNetNS("b")
	l.Veth(a, "eth0", b, "eth0")
	var asker int
	l.NoError(a.Do(func() (err error) {
		asker, err = openSocket("eth0", unix.ETH_P_ARP)
		return err
	}))
	defer func() { l.NoError(unix.Close(asker)) }()
	var r *responder
	l.NoError(b.Do(func() (err error) {
		r, err = openResponder("eth0", netip.MustParseAddr("192.0.2.3"), net.HardwareAddr{2, 0x48, 0x64, 0x6c, 0, 2})
		return err
	}))
	defer func() { l.NoError(unix.Close(r.fd)) }()
	ask := func(text string) {
		t.Helper()
		frame, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		l.NoError(err)
		l.NoError(unix.Send(asker, frame, 0))
	}
	var buf [100]byte
	answered := func() (n int, err error) {
		if err := r.answer(); err != nil {
			return 0, err
		}
		n, _, err = unix.Recvfrom(asker, buf[:], unix.MSG_DONTWAIT)
		return n, err
	}
	const header = "ffffffffffff 020000000077 0806 0001 0800 06 04 "
	const whoHas3 = header + "0001 020000000077 c0000209 000000000000 c0000203"
	ask(header + "0001 020000000077 c0000209 000000000000 c0000204") // Who has .4?
	ask(header + "0002 020000000077 c0000209 000000000000 c0000203") // An answer.
	ask(whoHas3)
	var n int
	l.Eventually(20*time.Second, "an answer", func() (err error) {
		n, err = answered()
		return err
	})
	want := strings.ReplaceAll("020000000077 0248646c0002 0806 0001 0800 06 04 0002 "+
		"0248646c0002 c0000203 020000000077 c0000209", " ", "")
	if got := hex.EncodeToString(buf[:n]); got != want {
		t.Errorf("answered %s, want %s", got, want)
	}
	if n, err := answered(); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("answered once more: %x, %v", buf[:max(n, 0)], err)
	}
}

// Every frame of a Fill is valid and begins another connection.
func TestFillFrames(t *testing.T) {
	f := Fill{
		Src: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Dst: net.HardwareAddr{2, 0, 0, 0, 0, 2},
		SrcIP: netip.MustParseAddr("198.18.0.64"), DstIP: netip.MustParseAddr("203.0.113.1"),
		Conns: 2*FillEndpoints + 100,
	}
	write, frame, err := f.frames()
	if err != nil {
		t.Fatal(err)
	}
	flows, ports := map[string]bool{}, map[layers.UDPPort]bool{}
	for number := range f.Conns {
		write(frame, uint64(number))
		p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
		ip, okIP := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		udp, okUDP := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if !okIP || !okUDP {
			t.Fatalf("frame %d: %x", number, frame)
		}
		sum := ip.Checksum
		sumHeader(frame[14:34])
		if got := binary.BigEndian.Uint16(frame[24:]); got != sum || ip.SrcIP[3] < 64 || ip.SrcIP[3] > 127 {
			t.Fatalf("frame %d: from %v, checksum %#x, want %#x", number, ip.SrcIP, sum, got)
		}
		flows[ip.NetworkFlow().String()+udp.TransportFlow().String()] = true
		ports[udp.SrcPort] = true
	}
	if len(flows) != f.Conns || len(ports) != FillEndpoints {
		t.Errorf("%d connections of %d, from %d ports", len(flows), f.Conns, len(ports))
	}
	// A checksum that was reckoned elsewhere (RFC 1071).
	header, _ := hex.DecodeString("4500002e000000004011" + "0000" + "c6126401c6126402")
	sumHeader(header)
	if got := binary.BigEndian.Uint16(header[10:]); got != 0x2697 {
		t.Errorf("checksum %#x", got)
	}
	for name, change := range map[string]func(*Fill){
		"none":             func(f *Fill) { f.Conns = 0 },
		"too many":         func(f *Fill) { f.Conns = MaxFill + 1 },
		"sources end":      func(f *Fill) { f.SrcIP = netip.MustParseAddr("198.18.0.200") },
		"destinations end": func(f *Fill) { f.DstIP = netip.MustParseAddr("203.0.113.254") },
		"no MAC":           func(f *Fill) { f.Src = nil },
	} {
		bad := f
		change(&bad)
		if _, _, err := bad.frames(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestFillSend(t *testing.T) {
	l := lab.New(t)
	a := l.NewNetNS("a")
	l.Veth(a, "eth0", a, "peer")
	f := Fill{
		Src: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Dst: net.HardwareAddr{2, 0, 0, 0, 0, 2},
		SrcIP: netip.MustParseAddr("198.18.0.64"), DstIP: netip.MustParseAddr("203.0.113.1"), Conns: 1000,
	}
	send := func(f Fill) (sent Sent) {
		l.NoError(a.Do(func() (err error) {
			sent, err = f.Send(t.Context(), "eth0", 20_000)
			return err
		}))
		return sent
	}
	before, err := a.Stats("eth0")
	l.NoError(err)
	sent := send(f)
	after, err := a.Stats("eth0")
	l.NoError(err)
	if sent.Frames != 1000 || after.TxFrames-before.TxFrames < 1000 || sent.Seconds < 0.04 {
		t.Errorf("%+v, and the interface sent %d", sent, after.TxFrames-before.TxFrames)
	}
}

// A server and its client on one machine; what is no such server is an error.
func TestConnect(t *testing.T) {
	l := lab.New(t)
	n := l.NewNetNS("a")
	at := netip.MustParseAddrPort("127.0.0.1:8080")
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	var server *Server
	l.NoError(n.Do(func() (err error) {
		if server, err = Listen(at); err == nil {
			go func() { ended <- server.Run(ctx) }()
		}
		return err
	}))
	var got Connected
	l.NoError(n.Do(func() (err error) {
		got, err = Connect(ctx, at, 20_000, 300, 60*time.Second)
		return err
	}))
	if got.Conns != 300 || got.Rate() <= 0 {
		t.Errorf("%+v", got)
	}
	if s := server.Served(); s.Requests != 300 || s.Kinds != 1 {
		t.Errorf("the server counts %+v", s)
	}
	l.NoError(n.Do(func() (err error) {
		got, err = Connect(ctx, at, 30_000, 30_000, 50*time.Millisecond)
		return err
	}))
	if got.Conns == 30_000 {
		t.Errorf("in 50 ms: %+v", got)
	}
	for name, to := range map[string]string{"nobody there": "127.0.0.1:8081", "ports": "127.0.0.1:8080"} {
		first := uint16(40_000)
		if name == "ports" {
			first = 65_000
		}
		if err := n.Do(func() error {
			_, err := Connect(ctx, netip.MustParseAddrPort(to), first, 1000, time.Second)
			return err
		}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// What was damaged on its way is another request to the server, and its
	// answer another one to the client.
	l.NoError(n.Do(func() error {
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		if _, err := c.Write([]byte("GET / HTTP/1.1" + endOfRequest)); err != nil {
			return err
		}
		back, err := io.ReadAll(c)
		if err == nil && (string(back) == answerTo([]byte(request)) || !strings.HasPrefix(string(back), answer)) {
			t.Errorf("answered %q", back)
		}
		return err
	}))
	if s := server.Served(); s.Kinds != 2 {
		t.Errorf("after a request that was damaged the server counts %+v", s)
	}
	cancel()
	l.NoError(<-ended)
}
