package config

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestOverlaps holds checkGroup against comparing every pair: a set of ranges
// is refused if and only if two of them are equal or cross, and what is left
// when the refused ones are taken out is not.
func TestOverlaps(t *testing.T) {
	collide := func(a, b NAT) bool {
		x, _ := ParseListen(a.Listen)
		y, _ := ParseListen(b.Listen)
		p, q := x.Ports, y.Ports
		apart := p.Last < q.First || q.Last < p.First
		nested := p != q && (p.First <= q.First && q.Last <= p.Last || q.First <= p.First && p.Last <= q.Last)
		family := !x.Addr.IsValid() && y.IsAny() || !y.Addr.IsValid() && x.IsAny() || x.Addr == y.Addr
		return x.Proto == y.Proto && family && !apart && !nested
	}
	random := rand.New(rand.NewPCG(1, 2))
	hosts := []string{"", "", "0.0.0.0:", "[::]:", "203.0.113.2:"}
	for range 2000 {
		c := &Config{
			Networks: []Network{{Name: "n", Subnets: prefixes("198.18.0.0/24", "2001:db8::/64"), Gateways: addrs("198.18.0.1", "2001:db8::1")}},
			Ports:    []Port{{Name: "p", Network: "n", PID: 1, IPs: []string{"198.18.0.2/24", "2001:db8::2/64"}}},
			Uplinks:  []Uplink{{Name: "u", Interface: "eth0"}},
		}
		for range 1 + random.IntN(8) {
			r := PortRange{First: uint16(1 + random.IntN(12))}
			r.Last = r.First + uint16(random.IntN(8))
			proto := []string{"tcp", "udp"}[random.IntN(2)]
			c.NAT = append(c.NAT, NAT{
				Type: TypePublish, Uplink: "u", To: "p:" + r.String(),
				Listen: hosts[random.IntN(len(hosts))] + r.String() + "/" + proto,
			})
		}
		want := false
		for i := range c.NAT {
			for j := range i {
				want = want || collide(c.NAT[i], c.NAT[j])
			}
		}
		err := c.Validate()
		if (err != nil) != want {
			t.Fatalf("%+v: %v, want an error: %v", c.NAT, err, want)
		}
		for _, e := range Each(err) {
			var i int
			var field *FieldError
			if !errors.As(e, &field) {
				t.Fatal(e)
			}
			if _, err := fmt.Sscanf(field.Path, "nat[%d].listen", &i); err != nil {
				t.Fatalf("%v: %v", e, err)
			}
			c.NAT[i].Uplink = ""
		}
		c.NAT = slices.DeleteFunc(c.NAT, func(n NAT) bool { return n.Uplink == "" })
		if err := c.Validate(); err != nil {
			t.Fatalf("without those refused: %v", err)
		}
	}
}

// TestNATBounds: as much as may be is taken within seconds, one more is not.
func TestNATBounds(t *testing.T) {
	c := &Config{
		Networks: []Network{{Name: "n", Subnets: prefixes("198.18.0.0/16"), Gateways: addrs("198.18.0.1")}},
		Ports:    []Port{{Name: "p", Network: "n", PID: 1, IPs: []string{"198.18.0.2/16"}}},
	}
	for i := range MaxUplinks {
		c.Uplinks = append(c.Uplinks, Uplink{Name: fmt.Sprint("u", i), Interface: fmt.Sprint("i", i)})
	}
	for i := range MaxNAT {
		c.NAT = append(c.NAT, NAT{Type: TypePublish, Uplink: "u0", Listen: fmt.Sprintf("%d/tcp", i+1), To: "p:80"})
	}
	start := time.Now()
	if err := c.Validate(); err != nil || time.Since(start) > 60*time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}
	c.NAT = append(c.NAT, c.NAT[0])
	check(t, "nat", c.Validate(), "nat: 32768 of them: at most 32767")
	c.NAT, c.Uplinks = nil, append(c.Uplinks, c.Uplinks[0])
	check(t, "uplinks", c.Validate(), "uplinks: 257 of them: at most 256")
}
