package underlay

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// planned is a datagram that was given to an Outbox.
type planned struct {
	to      *Dest
	entropy uint16
	tos     uint8
	data    []byte
}

// model says which datagrams become one message, by the rules as they are
// documented: a slow Outbox without bounds of its own.
func model(all []planned) (messages [][]planned) {
	for _, p := range all {
		if n := len(messages); n > 0 {
			m := messages[n-1]
			first, last, sum := m[0], m[len(m)-1], 0
			for _, q := range m {
				sum += len(q.data)
			}
			if first.to == p.to && first.entropy == p.entropy && first.tos == p.tos &&
				len(last.data) == len(first.data) && len(p.data) <= len(first.data) &&
				len(m) < MaxSegments && sum+len(p.data) <= MaxMessage {
				messages[n-1] = append(m, p)
				continue
			}
		}
		messages = append(messages, []planned{p})
	}
	return messages
}

// pieces returns the bytes of iovecs.
func pieces(iovs []unix.Iovec) (all []byte) {
	for _, v := range iovs {
		all = append(all, unsafe.Slice(v.Base, v.Len)...)
	}
	return all
}

func TestOutboxAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(10, 10))
	to := []*Dest{dest(t, netip.MustParseAddrPort("192.0.2.1:4789")), dest(t, netip.MustParseAddrPort("[2001:db8::1]:1"))}
	var box Outbox
	for range 300 {
		var in []planned
		last := planned{to: to[0], data: make([]byte, 1)}
		count := func() (frames int) {
			for _, m := range box.Messages() {
				frames += m.Frames
			}
			return frames
		}
		for {
			p := last
			length := len(last.data)
			switch r.IntN(12) {
			case 0:
				p.to = to[r.IntN(2)]
			case 1:
				p.entropy = uint16(r.IntN(3))
			case 2:
				p.tos = uint8(r.IntN(3))
			case 3:
				length = 1 + r.IntN(length)
			case 4:
				length = 1 + r.IntN(1400)
			}
			p.data = random(r, length)
			cut := r.IntN(length + 1)
			m := box.Add(p.to, p.entropy, p.tos, p.data[:cut], p.data[cut:])
			if m == nil {
				break
			}
			m.Frames++
			in, last = append(in, p), p
		}
		want := model(in)
		got := box.Messages()
		if len(got) != len(want) || len(got) != OutboxMessages && len(in) < outboxIovs/2-1 {
			t.Fatalf("%d datagrams became %d messages, want %d", len(in), len(got), len(want))
		}
		if count() != len(in) {
			t.Fatalf("%d frames counted, want %d", count(), len(in))
		}
		for i, m := range got {
			var data []byte
			for _, p := range want[i] {
				data = append(data, p.data...)
			}
			w := want[i][0]
			if m.Dest != w.to || m.Entropy != w.entropy || m.TOS != w.tos || m.SegSize != len(w.data) ||
				m.Len != len(data) || !bytes.Equal(pieces(m.Iovs), data) || m.Frames != len(want[i]) {
				t.Fatalf("message %d of %d bytes in %d is not the %d datagrams of %d", i, m.Len, m.SegSize, len(want[i]), len(w.data))
			}
		}
		box.Reset()
		for i := range box.iovs {
			if box.iovs[i].Base != nil {
				t.Fatal("an empty outbox holds on to memory")
			}
		}
	}
}

// TestTogether: what had better be in one message begins another only if it fits
// one, but not what is left of the last.
func TestTogether(t *testing.T) {
	to := dest(t, netip.MustParseAddrPort("192.0.2.1:4789"))
	for _, c := range []struct {
		what               string
		before, count, len int // Datagrams.
		want               []int
	}{
		{"there is room", 20, 24, 1460, []int{44}},
		{"there is none", 21, 24, 1460, []int{21, 24}},
		{"there is none in any", 20, 45, 1460, []int{44, 21}},
		{"nothing is before", 0, 44, 1460, []int{44}},
		{"segments are short", 40, 30, 100, []int{40, 30}},
	} {
		t.Run(c.what, func(t *testing.T) {
			var box Outbox
			data := make([]byte, c.len)
			for range c.before {
				box.Add(to, 1, 0, data, nil)
			}
			box.Together(c.count, c.len)
			for range c.count {
				box.Add(to, 1, 0, data, nil)
			}
			var got []int
			for _, m := range box.Messages() {
				got = append(got, m.Len/m.SegSize)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("messages of %v datagrams, want %v", got, c.want)
			}
		})
	}
}

// TestSplit: a message that is sent a datagram at a time is cut into those that
// were added, however its pieces lie in memory.
func TestSplit(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 11))
	to := dest(t, netip.MustParseAddrPort("192.0.2.1:4789"))
	for range 200 {
		count, size := 1+r.IntN(MaxSegments), 1+r.IntN(1000)
		memory := random(r, 2*count*size)
		var box Outbox
		var want [][]byte
		for i := range count {
			at, n := i*size, size
			if r.IntN(2) == 0 {
				at += count * size // Not behind the one before.
			}
			if i == count-1 {
				n = 1 + r.IntN(size)
			}
			cut := r.IntN(n + 1)
			box.Add(to, 1, 0, memory[at:at+cut], memory[at+cut:at+n])
			want = append(want, memory[at:at+n])
		}
		var s sender
		n := s.split(&box.Messages()[0])
		if n != count {
			t.Fatalf("%d datagrams, want %d", n, count)
		}
		for i, w := range want {
			h := &s.eachHdrs[i].hdr
			if got := pieces(unsafe.Slice(h.Iov, h.Iovlen)); !bytes.Equal(got, w) {
				t.Fatalf("datagram %d of %d has %d bytes, want %d", i, count, len(got), len(w))
			}
		}
	}
}

func TestAddr(t *testing.T) {
	for _, s := range []string{"192.0.2.1:4789", "0.0.0.0:0", "[2001:db8::1]:65535", "[::]:1"} {
		ap := netip.MustParseAddrPort(s)
		a := AddrOf(ap)
		if a.AddrPort() != ap {
			t.Errorf("%s becomes %s", s, a.AddrPort())
		}
		var name [unix.SizeofSockaddrInet6]byte
		putSockaddr(&name, ap)
		if got := sourceOf(&name); got != a {
			t.Errorf("%s as a sockaddr is % x, which is %v", s, name, got)
		}
	}
	if a, b := AddrOf(netip.MustParseAddrPort("[::ffff:192.0.2.1]:1")), AddrOf(netip.MustParseAddrPort("192.0.2.1:1")); a != b {
		t.Errorf("%v and %v differ", a, b)
	}
	for _, s := range []string{"0.0.0.0:1", "[::]:1", "224.0.0.1:1", "[ff02::1]:1", "[fe80::1%lo]:1", "192.0.2.1:0"} {
		if _, err := NewDest(netip.MustParseAddrPort(s)); err == nil {
			t.Errorf("%s is taken as a peer's address", s)
		}
	}
}

// FuzzDescribe: whatever the kernel writes beside a datagram, what Recv says of
// it lies inside its slot.
func FuzzDescribe(f *testing.F) {
	control := make([]byte, 0, controlLen)
	control = binary.NativeEndian.AppendUint64(control, 20)
	control = binary.NativeEndian.AppendUint32(control, unix.SOL_UDP)
	control = binary.NativeEndian.AppendUint32(control, unix.UDP_GRO)
	control = binary.NativeEndian.AppendUint64(control, 1400)
	f.Add(uint32(5000), control, []byte{unix.AF_INET, 0, 0x12, 0xb5, 192, 0, 2, 1})
	control = binary.NativeEndian.AppendUint64(control, 17)
	control = binary.NativeEndian.AppendUint32(control, unix.SOL_IP)
	control = binary.NativeEndian.AppendUint32(control, unix.IP_TOS)
	f.Add(uint32(5000), append(control, 3), []byte{unix.AF_INET6})
	r, err := newReceiver(-1)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, length uint32, control, name []byte) {
		r.hdrs[3].len = length % (slotLen - 128)
		r.hdrs[3].hdr.SetControllen(min(len(control), 2*controlLen))
		copy(r.control[3][:], control)
		copy(r.names[3][:], name)
		var d Datagram
		if !r.describe(3, &d) {
			t.Fatal("a datagram is left out")
		}
		if d.Len != int(r.hdrs[3].len) || d.SegSize < 1 || d.SegSize > max(d.Len, 1) || d.Off+d.Len > len(d.Buf) {
			t.Fatalf("%d bytes at %d in segments of %d", d.Len, d.Off, d.SegSize)
		}
	})
}
