package filter

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
)

//go:embed testdata/filters.txt
var libpcapFilters string

// TestFilterAgainstLibpcap holds each filter against the program that libpcap
// makes of it, over random frames. Frames that end inside a header count only
// for filters without a not: libpcap's program then ends at once and selects
// nothing, while here the primitive is false and its not is true.
func TestFilterAgainstLibpcap(t *testing.T) {
	frames := randomFrames(rand.New(rand.NewPCG(1, 2)), 4000)
	blocks := strings.Split(strings.TrimSpace(libpcapFilters), "\n\n")[1:]
	if len(blocks) < 100 {
		t.Fatalf("testdata/filters.txt holds %d filters", len(blocks))
	}
	for _, block := range blocks {
		expr, prog, _ := strings.Cut(block, "\n")
		t.Run(expr, func(t *testing.T) {
			f, err := Compile(expr)
			if err != nil {
				t.Fatal(err)
			}
			model := libpcapProgram(t, prog)
			negates := strings.Contains(expr, "not ") || strings.Contains(expr, "!")
			for _, b := range frames {
				if negates && len(b) < 100 {
					continue
				}
				n, err := model.Run(b)
				if err != nil {
					t.Fatal(err)
				}
				if got, want := f.Match(b, len(b)), n > 0; got != want {
					t.Fatalf("%x: %v, libpcap %v", b, got, want)
				}
			}
		})
	}
}

func libpcapProgram(t *testing.T, text string) *bpf.VM {
	t.Helper()
	var raw []bpf.RawInstruction
	for line := range strings.Lines(text) {
		var r bpf.RawInstruction
		if _, err := fmt.Sscan(line, &r.Op, &r.Jt, &r.Jf, &r.K); err != nil {
			t.Fatal(err)
		}
		raw = append(raw, r)
	}
	ins, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("unknown instruction")
	}
	vm, err := bpf.NewVM(ins)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// randomFrames returns untagged frames of few addresses, protocols and ports,
// some of them cut short.
func randomFrames(r *rand.Rand, n int) [][]byte {
	macs := [][]byte{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}, bytes.Repeat([]byte{255}, 6), {0x33, 0x33, 0, 0, 0, 1}}
	ip4 := [][]byte{{198, 18, 0, 1}, {198, 18, 0, 2}, {198, 18, 1, 1}, {224, 0, 0, 1}}
	ip6 := [][]byte{
		{0x20, 1, 0xd, 0xb8, 15: 1}, {0x20, 1, 0xd, 0xb8, 15: 2}, {0x20, 1, 0xd, 0xb8, 0, 1, 15: 1},
		{0x20, 1, 0xd, 0xb8, 7: 1, 15: 1}, {0xff, 2, 15: 1}, {0x20, 1, 0xd, 0xb9, 15: 1},
	}
	protos := []byte{6, 6, 17, 17, 1, 58, 132, 2, ip6Fragment, 50}
	ports := []uint16{80, 443, 22, 1000, 200}
	frames := make([][]byte, n)
	for i := range frames {
		b := make([]byte, 100)
		copy(b, pick(r, macs))
		copy(b[6:], pick(r, macs[:2]))
		proto := pick(r, protos)
		l4 := 54
		switch et := pick(r, []uint16{0x800, 0x800, 0x86dd, 0x86dd, 0x806, 0x8035, 0x88cc}); et {
		case 0x800:
			binary.BigEndian.PutUint16(b[12:], et)
			ihl := 5 + r.IntN(3)
			l4 = 14 + ihl*4
			b[14], b[23] = 0x40|byte(ihl), proto
			if r.IntN(4) == 0 {
				binary.BigEndian.PutUint16(b[20:], pick(r, []uint16{0x2000, 0x2010, 0x10, 0x4000}))
			}
			copy(b[26:], pick(r, ip4))
			copy(b[30:], pick(r, ip4))
		case 0x86dd:
			binary.BigEndian.PutUint16(b[12:], et)
			b[14], b[20] = 0x60, proto
			copy(b[22:], pick(r, ip6))
			copy(b[38:], pick(r, ip6))
		default:
			binary.BigEndian.PutUint16(b[12:], et)
			binary.BigEndian.PutUint16(b[14:], 1)
			binary.BigEndian.PutUint16(b[16:], 0x800)
			copy(b[28:], pick(r, ip4))
			copy(b[38:], pick(r, ip4))
		}
		binary.BigEndian.PutUint16(b[l4:], pick(r, ports))
		binary.BigEndian.PutUint16(b[l4+2:], pick(r, ports))
		if proto == ip6Fragment {
			b[l4] = pick(r, protos)
		}
		if r.IntN(8) == 0 {
			b = b[:r.IntN(100)]
		}
		frames[i] = b
	}
	return frames
}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// TestFilterTags: primitives look through tags, and vlan selects by them.
func TestFilterTags(t *testing.T) {
	plain := frameTCP80()
	tag := func(b []byte, tpid, vid uint16) []byte {
		out := append([]byte{}, b[:12]...)
		out = binary.BigEndian.AppendUint16(out, tpid)
		out = binary.BigEndian.AppendUint16(out, 0xe000|vid) // Priority 7.
		return append(out, b[12:]...)
	}
	one := tag(plain, 0x8100, 5)
	two := tag(one, 0x88a8, 7)
	tests := []struct {
		expr            string
		plain, one, two bool
	}{
		{"tcp port 80", true, true, true},
		{"vlan", false, true, true},
		{"vlan 5", false, true, true},
		{"vlan 7", false, false, true},
		{"vlan 5 and tcp dst port 80", false, true, true},
		{"not vlan", true, false, false},
		{"vlan 5 and udp", false, false, false},
		{"greater 100", false, false, false},
		{"greater 60 and vlan", false, false, true}, // 54 bytes, and 4 for each tag.
		{"", true, true, true},
	}
	for _, tt := range tests {
		f, err := Compile(tt.expr)
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			b    []byte
			want bool
		}{"untagged": {plain, tt.plain}, "one tag": {one, tt.one}, "two tags": {two, tt.two}} {
			if got := f.Match(c.b, len(c.b)); got != c.want {
				t.Errorf("%q, %s: %v, want %v", tt.expr, name, got, c.want)
			}
		}
	}
}

// frameTCP80 is 54 bytes from 198.18.0.1:1000 to 198.18.0.2:80.
func frameTCP80() []byte {
	b := make([]byte, 54)
	copy(b, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45})
	b[23] = 6
	copy(b[26:], []byte{198, 18, 0, 1, 198, 18, 0, 2, 1000 >> 8, 1000 & 0xff, 0, 80})
	return b
}

func TestFilterErrors(t *testing.T) {
	for expr, want := range map[string]string{
		"tcp[13] & 2 != 0":             "byte expressions",
		"host":                         "what?",
		"host example.org":             "host names are not looked up",
		"foo":                          "neither a keyword",
		"tcp port":                     "what?",
		"tcp port 65536":               "no port",
		"port 80 443":                  "unexpected",
		"(tcp":                         "without its )",
		"tcp)":                         "unexpected",
		"tcp and":                      "ends where",
		"and tcp":                      "unexpected",
		"portrange 443-80":             "not a range",
		"portrange 80":                 "not a range",
		"net 198.18.0.1/24":            "host bits",
		"net fish":                     "not a network",
		"ip host 2001:db8::1":          "doesn't go with",
		"ip6 net 198.18.0.0/24":        "doesn't go with",
		"tcp host 198.18.0.1":          "doesn't go with",
		"ip port 80":                   "ports go with",
		"icmp portrange 1-2":           "ports go with",
		"ether host 02:00:00:00:00":    "not a MAC",
		"ether":                        "what?",
		"vlan 4096":                    "at most 4095",
		"less tall":                    "want a length",
		"ether proto 5":                "EtherType",
		"ip proto 256":                 "want a number",
		"tcp proto 6":                  "want ether, ip or ip6",
		"ip broadcast":                 "not supported",
		"src":                          "what?",
		"src tcp":                      "unexpected",
		"gateway 198.18.0.1":           "not supported",
		"host fe80::1%eth0":            "unexpected",
		"icmp host 198.18.0.1":         "doesn't go with",
		"arp port 80":                  "ports go with",
		strings.Repeat("(", 100):       "deeper",
		strings.Repeat("not ", 100):    "deeper",
		strings.Repeat("tcp or ", 200): "long",
	} {
		_, err := Compile(expr)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", expr, err, want)
		}
	}
}

// FuzzFilter: no expression and no frame makes the filter panic.
func FuzzFilter(f *testing.F) {
	f.Add("host 198.18.0.1 and not port 22", frameTCP80())
	f.Add("vlan 5 && (net 2001:db8::/64 || less 60)", []byte{})
	f.Add("ether src 02:00:00:00:00:01 or portrange 1-2", make([]byte, 17))
	f.Fuzz(func(_ *testing.T, expr string, frame []byte) {
		c, err := Compile(expr)
		if err == nil {
			c.Match(frame, len(frame))
		}
	})
}
