package e2e

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"heddle/bench/lab"
)

// A container reaches what the host listens on at the shared uplink's address,
// as behind docker0, under its own address; the host reaches the container; and
// nothing that is swd's there becomes the host's, or the other way round.
func TestNATContainerReachesTheHost(t *testing.T) {
	w := newNATWorld(t, shared)
	c, d := w.container(), w.container()
	host := &station{name: "host", ns: w.host}
	w.webServer(w.host, "host", 2222)
	w.webServer(c.ns, "c", 80)
	w.webServer(d.ns, "d", 80)
	w.udpEcho(w.host, 5300)
	w.publish("8080/tcp", d.name+":80")
	for _, a := range []struct{ host, c, server string }{{host4, c.ip4, server4}, {host6, c.ip6, server6}} {
		w.reach(c, a.host)
		w.reach(host, a.c)
		w.asksFrom(c.ns, a.host, 2222, "host", a.c)
		w.asksFrom(w.host, a.c, 80, "c", a.host)
		if from, err := w.dialUDP(c.ns, a.host, 5300).ask(patience); err != nil || from.Addr().String() != a.c {
			t.Errorf("the host's UDP service at %s is asked from %s: %v", a.host, from, err)
		}
		if text, err := w.curl(c.ns, "http://"+bracketed(a.host)+":2222/big"); err != nil || len(text) != bigLength {
			t.Errorf("%d bytes from the host at %s: %v", len(text), a.host, err)
		}
		if text, err := w.curl(c.ns, "http://"+bracketed(a.host)+":2222/", "--data-binary", strings.Repeat("x", 100_000)); err != nil || text != "host 100000 <nil>" {
			t.Errorf("%q of the host at %s: %v", text, a.host, err)
		}
		w.Run(c.ns, "ping", "-n", "-c", "1", "-W", "15", "-s", "3000", a.host)
		w.asksFrom(c.ns, a.host, 8080, "d", a.host) // Hairpin, and not the host.
	}
	w.curlFails(c.ns, host4, 2223, curlRefused)
	w.silent(c.ns, host4, 61234)
	// The gateway's addresses are swd's own.
	for _, gate := range []string{gate4, gate6} {
		w.silent(c.ns, gate, 2222)
		w.Run(c.ns, "ping", "-n", "-c", "1", "-W", "15", "-s", "3000", gate)
		w.reach(host, gate)
	}
	// A station outside doesn't come by the host, whatever that forwards.
	w.NoError(w.host.Sysctl("net/ipv4/ip_forward", "1"))
	w.Run(w.router, "ip", "route", "add", "198.18.0.0/24", "via", host4)
	before := w.dropped("spoofed-source")
	w.silent(w.router, c.ip4, 80)
	w.awaitDropped("spoofed-source", 1, before)

	// The way goes with what it is for.
	w.ctl("nat", "rm", w.natID("masquerade"))
	w.Eventually(patience, "no way to the host", func() error {
		if w.host.HasLink("heddle0") {
			return errors.New("heddle0 is there")
		}
		return nil
	})
}

// One container opens more connections than the uplink has ports, one after the
// other: what has ended makes room.
func TestNATMoreConnectionsThanPorts(t *testing.T) {
	w := newNATWorld(t, shared)
	c := w.container()
	w.webServer(w.server, "server", 80)
	const conns = 6000 // Of 4,536 ports.
	w.NoError(c.ns.Do(func() error {
		for i := range conns {
			conn, err := net.DialTimeout("tcp", server4+":80", patience)
			if err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
			if err := conn.Close(); err != nil {
				return err
			}
		}
		return nil
	}))
	for _, reason := range []string{"host-limit", "no-free-port", "conn-table-full"} {
		if n := w.dropped(reason); n > 0 {
			t.Errorf("%d times a SYN was refused, %s", n, reason)
		}
	}
}

// A publication within another's range, and one for an address beside one for
// all of them, win where they are, from outside and from the host.
func TestNATNestedPublications(t *testing.T) {
	w := newNATWorld(t, shared)
	c, d, e := w.container(), w.container(), w.container()
	for _, s := range []*station{c, d, e} {
		for port := 8000; port < 8003; port++ {
			w.webServer(s.ns, s.name, port)
		}
	}
	w.publish("8000-8002/tcp", c.name+":8000-8002")
	inner := w.publish("8001/tcp", d.name+":8001")
	w.publish(host4+":8002/tcp", e.name+":8002")
	for _, from := range []*lab.NetNS{w.server, w.host} {
		w.asks(from, host4, 8000, c.name)
		w.asks(from, host4, 8001, d.name)
		w.asks(from, host4, 8002, e.name)
		w.asks(from, host6, 8002, c.name)
	}
	w.asks(w.host, "127.0.0.1", 8001, d.name)
	w.asks(w.host, "127.0.0.1", 8002, c.name)
	w.ctl("nat", "rm", inner)
	w.asks(w.server, host4, 8001, c.name)
	w.asks(w.host, "127.0.0.1", 8001, c.name)
}
