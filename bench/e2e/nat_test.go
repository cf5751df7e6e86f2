package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"heddle/bench/lab"
)

// modes runs a test with either kind of uplink.
func modes(t *testing.T, test func(w *natWorld)) {
	for _, mode := range []string{shared, own} {
		t.Run(mode, func(t *testing.T) { test(newNATWorld(t, mode)) })
	}
}

// Containers reach the outside under the uplink's address, by TCP and UDP, IPv4
// and IPv6, in small pieces and in long ones.
//
//	container tap1 ── swd ── uplink ── router ── server
func TestNATOut(t *testing.T) {
	modes(t, func(w *natWorld) {
		c := w.container()
		w.webServer(w.server, "server", 80)
		w.udpEcho(w.server, 53)
		upload := filepath.Join(w.Dir(), "upload")
		w.NoError(os.WriteFile(upload, make([]byte, 4*bigLength), 0o600))
		w.reach(c, server4)
		w.reach(c, server6)
		for _, a := range []struct{ server, ext, router string }{
			{server4, w.ext4, router4}, {server6, w.ext6, router6},
		} {
			from := w.asks(c.ns, a.server, 80, "server")
			if from.Addr().String() != a.ext {
				w.Errorf("the server was asked from %s, want %s", from, a.ext)
			}
			if w.ext4 == host4 && from.Port() < 61000 {
				w.Errorf("the shared uplink used port %d, which is the host's", from.Port())
			}
			url := "http://" + bracketed(a.server)
			if got, err := w.curl(c.ns, url+"/big"); err != nil || len(got) != bigLength {
				w.Errorf("download from %s: %d bytes, %v", a.server, len(got), err)
			}
			want := fmt.Sprintf("server %d <nil>", 4*bigLength)
			if got, err := w.curl(c.ns, url+"/", "--data-binary", "@"+upload); err != nil || got != want {
				w.Errorf("upload to %s: %q, %v", a.server, got, err)
			}
			echo := w.dialUDP(c.ns, a.server, 53)
			if seen, err := echo.ask(patience); err != nil || seen.Addr().String() != a.ext {
				w.Errorf("UDP to %s comes from %s, %v", a.server, seen, err)
			}
			w.reach(c, a.router)
		}
	})
}

func bracketed(address string) string {
	if strings.Contains(address, ":") {
		return "[" + address + "]"
	}
	return address
}

// What is published is reached from outside, by the client's own address; from
// other containers and from the container itself, by the uplink's; and from the
// host, at its own addresses: with an own uplink, at the loopback's.
//
//	curl on server ── router ── uplink ─┐
//	curl in container tap2 ─────────────┤ swd ── container tap1, web server on 80, 7000-7009, UDP 53
//	curl on host, 127.0.0.1 ────────────┘
func TestNATPublished(t *testing.T) {
	modes(t, func(w *natWorld) {
		c, other := w.container(), w.container()
		w.webServer(c.ns, "c", 80)
		w.webServer(c.ns, "first", 7000)
		w.webServer(c.ns, "last", 7009)
		w.udpEcho(c.ns, 53)
		w.publish("8080/tcp", c.name+":80")
		w.publish("9000-9009/tcp", c.name+":7000-7009")
		w.publish("5353/udp", c.name+":53")
		w.publish(w.ext4+":8081/tcp", c.ip4+":80")
		for _, a := range []struct{ ext, server, router, loopback string }{
			{w.ext4, server4, router4, "127.0.0.1"}, {w.ext6, server6, router6, "::1"},
		} {
			w.asksFrom(w.server, a.ext, 8080, "c", a.server)
			w.asksFrom(w.router, a.ext, 8080, "c", a.router)
			w.asksFrom(w.server, a.ext, 9000, "first", a.server)
			w.asksFrom(w.server, a.ext, 9009, "last", a.server)
			w.asksFrom(other.ns, a.ext, 8080, "c", a.ext)
			w.asksFrom(c.ns, a.ext, 8080, "c", a.ext)
			for _, from := range []struct {
				n    *lab.NetNS
				want string
			}{{w.server, a.server}, {other.ns, a.ext}} {
				seen, err := w.dialUDP(from.n, a.ext, 5353).ask(patience)
				if err != nil || seen.Addr().String() != from.want {
					w.Errorf("UDP from %s: seen as %s, want %s: %v", from.n.Name, seen, from.want, err)
				}
			}
			local := []string{a.loopback}
			if w.ext4 == host4 {
				local = append(local, a.ext) // An address of the host.
			}
			for _, address := range local {
				w.asks(w.host, address, 8080, "c")
				w.asks(w.host, address, 9009, "last")
				if _, err := w.dialUDP(w.host, address, 5353).ask(patience); err != nil {
					w.Errorf("UDP from the host to %s: %v", address, err)
				}
			}
		}
		w.asksFrom(w.server, w.ext4, 8081, "c", server4)
	})
}

// Removing a publication ends its connections at once, TCP and UDP, and no
// others; so does removing the container's port.
func TestNATRemovalEndsFlows(t *testing.T) {
	w := newNATWorld(t, shared)
	c := w.container()
	w.udpEcho(c.ns, 53)
	w.webServer(c.ns, "c", 80)
	first := w.publish("5353/udp", c.name+":53")
	w.publish("5354/udp", c.name+":53")
	tcp := w.publish("8080/tcp", c.name+":80")
	ends, stays := w.dialUDP(w.server, w.ext4, 5353), w.dialUDP(w.server, w.ext4, 5354)
	for _, client := range []udpClient{ends, stays} {
		if _, err := client.ask(patience); err != nil {
			t.Fatal(err)
		}
	}
	w.asks(w.server, w.ext4, 8080, "c")
	w.ctl("nat", "rm", first)
	w.ctl("nat", "rm", tcp)
	if seen, err := ends.ask(500 * time.Millisecond); err == nil {
		t.Errorf("the removed publication still answers: %s", seen)
	}
	if _, err := stays.ask(patience); err != nil {
		t.Errorf("the other publication: %v", err)
	}
	for _, conn := range w.conns() {
		if conn.NAT == first || conn.NAT == tcp {
			t.Errorf("a connection is left: %+v", conn)
		}
	}
	if _, err := w.curl(w.server, "http://"+w.ext4+":8080/", "--max-time", "2"); err == nil {
		t.Error("8080/tcp answers after its removal")
	}
	w.ctl("port", "rm", c.name)
	if _, err := stays.ask(500 * time.Millisecond); err == nil {
		t.Error("the container answers after its removal")
	}
	if left := w.conns(); len(left) > 0 {
		t.Errorf("connections are left: %+v", left)
	}
}

// Connections are listed, counted and flushed, and the filters fit what they
// say.
func TestNATConns(t *testing.T) {
	w := newNATWorld(t, shared)
	a, b := w.container(), w.container()
	w.udpEcho(w.server, 53)
	w.webServer(w.server, "server", 80)
	var seen [2]netip.AddrPort
	var clients [2]udpClient
	for i, s := range []*station{a, b} {
		clients[i] = w.dialUDP(s.ns, server4, 53)
		var err error
		seen[i], err = clients[i].ask(patience)
		w.NoError(err)
	}
	w.asks(a.ns, server6, 80, "server")
	w.pingOnce(b, server4)

	got := w.conns("--proto", "udp", "--src", a.ip4, "--dst", server4)
	if len(got) != 1 {
		t.Fatalf("want one connection, got %+v", got)
	}
	conn := got[0]
	if conn.Proto != "udp" || conn.Network != network || conn.Uplink != "wan" || conn.State != "two-way" ||
		conn.Original.Src != clients[0].LocalAddr().String() || conn.Original.Dst != server4+":53" ||
		conn.Reply.Src != server4+":53" || conn.Reply.Dst != seen[0].String() ||
		conn.TimeoutSeconds <= 200 || conn.TimeoutSeconds > 300.5 || conn.Packets != 2 || conn.Bytes == 0 {
		t.Errorf("the connection is %+v", conn)
	}
	for _, c := range []struct {
		want  int
		flags []string
	}{
		{2, []string{"--proto", "udp"}},
		{1, []string{"--proto", "tcp"}},
		{1, []string{"--proto", "icmp", "--src", b.ip4}},
		{0, []string{"--proto", "sctp"}},
		{1, []string{"--dst", "2001:db8:80::/64"}},
		{0, []string{"--src", "198.18.0.77"}},
		{1, []string{"--limit", "1"}},
		{4, []string{"--network", network}},
	} {
		if got := w.conns(c.flags...); len(got) != c.want {
			t.Errorf("conn ls %v: %d, want %d: %+v", c.flags, len(got), c.want, got)
		}
	}
	var count struct{ Count, Containers int }
	w.NoError(w.ask(&count, "conn", "count"))
	if count.Count != 4 {
		t.Errorf("conn count says %+v", count)
	}

	w.ctl("conn", "flush", "--src", a.ip4)
	if got := w.conns("--src", a.ip4); len(got) != 0 {
		t.Errorf("after the flush: %+v", got)
	}
	if got := w.conns("--src", b.ip4); len(got) != 2 {
		t.Errorf("the flush took others along: %+v", got)
	}
	w.ctl("conn", "flush")
	if got := w.conns(); len(got) != 0 {
		t.Errorf("after the flush of all: %+v", got)
	}
	if _, err := clients[1].ask(patience); err != nil {
		t.Errorf("a flow begins anew after a flush: %v", err)
	}
}

// What the host does on a shared uplink goes on: its services, its connections,
// its pings; nobody's port is another's.
func TestNATHostUndisturbed(t *testing.T) {
	w := newRoutedWorld(t)
	c := w.container()
	w.webServer(w.host, "host", 2222)
	w.webServer(w.server, "server", 80)
	w.webServer(c.ns, "c", 80)
	w.udpEcho(w.server, 53)
	w.udpEcho(w.host, 5300)
	host := &station{name: "host", ns: w.host}
	server := &station{name: "server", ns: w.server, ip4: server4}
	before := w.dialUDP(w.host, server4, 53)
	seenBefore, err := before.ask(patience)
	w.NoError(err)
	transfer, err := w.start(host, server, server4, 4*some)
	w.NoError(err)
	<-transfer.half

	w.uplink(shared)
	w.ctl("nat", "add", "masquerade", "--network", network, "--uplink", "wan")
	w.publish("8080/tcp", c.name+":80")
	w.NoError(transfer.finish())
	if seen, err := before.ask(patience); err != nil || seen != seenBefore {
		t.Errorf("the host's UDP flow was seen as %s, now %s: %v", seenBefore, seen, err)
	}
	for _, a := range []struct{ host, server string }{{host4, server4}, {host6, server6}} {
		w.asksFrom(w.server, a.host, 2222, "host", a.server)
		w.asksFrom(w.host, a.server, 80, "server", a.host)
		w.asksFrom(c.ns, a.server, 80, "server", a.host)
		w.asksFrom(w.server, a.host, 8080, "c", a.server)
		w.reach(host, a.server)
		w.reach(server, a.host)
		if _, err := w.dialUDP(w.server, a.host, 5300).ask(patience); err != nil {
			t.Errorf("the host's UDP service: %v", err)
		}
	}
	// A port that nobody has is the host's to refuse; one of swd's is silent.
	w.refuses(2223)
	w.silent(w.server, host4, 61234)
	if got := w.conns("--dst", w.ext4); len(got) > 2 {
		t.Errorf("swd tracks what is the host's: %+v", got)
	}

	w.ctl("nat", "rm", w.natID("publish"))
	w.ctl("nat", "rm", w.natID("masquerade"))
	w.ctl("uplink", "rm", "wan")
	w.refuses(61234)
	w.asksFrom(w.server, host4, 2222, "host", server4)
}

// natID returns the id of the first rule of a type.
func (w *natWorld) natID(kind string) string {
	w.Helper()
	var rules []struct{ ID, Type string }
	w.NoError(w.ask(&rules, "nat", "ls"))
	for _, r := range rules {
		if r.Type == kind {
			return r.ID
		}
	}
	w.NoError(errors.New("no " + kind))
	return ""
}
