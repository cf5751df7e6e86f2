package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"heddle/bench/lab"
	"heddle/ctl/api"
)

// natWorld is a world whose containers go out and are reached by an uplink:
//
//	container ──┐     host                router              server
//	container ──┤ swd ─ wan0 ──────── isp0    web0 ──────── web0
//	container ──┘     192.0.2.9        .1  198.51.100.1     198.51.100.80, .81
//	198.18.0.0/24     2001:db8:2::9    ::1 2001:db8:80::1   2001:db8:80::80
//
// swd's gateway is 198.18.0.254 and 2001:db8::fe, a container's default route.
// The router has no route to the containers.
type natWorld struct {
	*world
	router, server *lab.NetNS
	ext4, ext6     string // The uplink's addresses.
}

// The addresses of the outside.
const (
	host4, host6     = "192.0.2.9", "2001:db8:2::9"
	router4, router6 = "192.0.2.1", "2001:db8:2::1"
	server4, server6 = "198.51.100.80", "2001:db8:80::80"
	second4          = "198.51.100.81" // The server's, too.
	gate4, gate6     = "198.18.0.254", "2001:db8::fe"
	wanPort          = "wan0" // The host's interface.
)

// The modes of an uplink.
const (
	shared = "shared"
	own    = "own"
)

// newNATWorld makes the outside, a swd with a network, an uplink and a
// masquerade by it.
func newNATWorld(t *testing.T, mode string) *natWorld {
	t.Helper()
	w := newRoutedWorld(t)
	w.uplink(mode)
	w.ctl("nat", "add", "masquerade", "--network", network, "--uplink", "wan")
	return w
}

// newRoutedWorld is newNATWorld without the uplink and the masquerade.
func newRoutedWorld(t *testing.T, networkFlags ...string) *natWorld {
	t.Helper()
	w := &natWorld{world: newWorld(t, append(networkFlags,
		"--subnet", "198.18.0.0/24", "--gateway", gate4, "--subnet", "2001:db8::/64", "--gateway", gate6)...)}
	w.router, w.server = w.NewNetNS("router"), w.NewNetNS("server")
	w.Veth(w.host, wanPort, w.router, "isp0")
	w.Veth(w.router, "web0", w.server, "web0")
	for _, a := range []struct {
		n        *lab.NetNS
		ifname   string
		prefixes []string
		hop      []string
	}{
		{w.host, wanPort, []string{host4 + "/24", host6 + "/64"}, []string{router4, router6}},
		{w.router, "isp0", []string{router4 + "/24", router6 + "/64"}, nil},
		{w.router, "web0", []string{"198.51.100.1/24", "2001:db8:80::1/64"}, nil},
		{w.server, "web0", []string{server4 + "/24", second4 + "/24", server6 + "/64"}, []string{"198.51.100.1", "2001:db8:80::1"}},
	} {
		w.NoError(a.n.AddAddress(a.ifname, a.prefixes...))
		for _, hop := range a.hop {
			w.Run(a.n, "ip", "route", "add", "default", "via", hop)
		}
	}
	// Link-local addresses come after a second of duplicate detection.
	w.Eventually(patience, "no tentative address", func() error {
		if tentative := w.Run(w.host, "ip", "-6", "addr", "show", "tentative"); tentative != "" {
			return errors.New(tentative)
		}
		return nil
	})
	w.NoError(w.router.Sysctl("net/ipv4/ip_forward", "1"))
	w.NoError(w.router.Sysctl("net/ipv6/conf/all/forwarding", "1"))
	return w
}

// uplink adds the uplink, with an address of its own or the host's.
func (w *natWorld) uplink(mode string) {
	w.Helper()
	args := []string{"uplink", "add", "wan", "--interface", wanPort, "--mode", mode}
	w.ext4, w.ext6 = host4, host6
	if mode == own {
		w.ext4, w.ext6 = "192.0.2.10", "2001:db8:2::a"
		args = append(args, "--address", w.ext4+"/24", "--address", w.ext6+"/64", "--next-hop", router4, "--next-hop", router6)
	}
	w.ctl(args...)
	w.awaitUplink(api.StateUp)
}

// awaitUplink waits until the uplink is up, and with it the rules that follow it,
// or down.
func (w *natWorld) awaitUplink(state string) {
	w.Helper()
	w.Eventually(patience, "uplink "+state, func() error {
		var u api.Uplink
		err := w.ask(&u, "uplink", "show", "wan")
		if err == nil && (u.State != state || state == api.StateDown && u.Reason == "") {
			err = fmt.Errorf("it is %s (%s)", u.State, u.Reason)
		}
		if err != nil || state != api.StateUp {
			return err
		}
		var rules []api.NAT
		err = w.ask(&rules, "nat", "ls")
		for _, r := range rules {
			if r.State != api.StateUp {
				return fmt.Errorf("rule %s is %s (%s)", r.ID, r.State, r.Reason)
			}
		}
		return err
	})
}

// container adds a container whose default route is the gateway.
func (w *natWorld) container() *station {
	w.Helper()
	return w.addOn(network, onTAP, "--default-route")
}

// publish adds a publication and returns its id.
func (w *natWorld) publish(listen, to string) string {
	w.Helper()
	var rule api.NAT
	w.NoError(w.ask(&rule, "nat", "add", "publish", "--uplink", "wan", "--listen", listen, "--to", to))
	return rule.ID
}

// ask runs swctl for its JSON.
func (w *world) ask(into any, args ...string) error {
	out, err := w.swd.Control(w.Context(), append([]string{"-o", "json"}, args...)...)
	if err == nil {
		err = json.Unmarshal([]byte(out.Stdout), into)
	}
	return err
}

// conns lists the connections that fit flags of `swctl conn ls`.
func (w *world) conns(flags ...string) []api.Conn {
	w.Helper()
	var all []api.Conn
	w.NoError(w.ask(&all, append([]string{"conn", "ls"}, flags...)...))
	return all
}

// bigLength is how long a webServer's /big is.
const bigLength = 1 << 20

// webServer serves HTTP on a port of all addresses of a namespace until the
// test ends: / tells its name and who asks, /big is long, and a POST is
// answered with how many bytes came.
func (w *world) webServer(n *lab.NetNS, name string, port int) {
	w.Helper()
	var l net.Listener
	w.NoError(n.Do(func() (err error) {
		l, err = net.Listen("tcp", ":"+itoa(port))
		return err
	}))
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		switch {
		case in.Method == http.MethodPost:
			length, err := io.Copy(io.Discard, in.Body)
			fmt.Fprintf(out, "%s %d %v", name, length, err)
		case in.URL.Path == "/big":
			_, _ = out.Write(make([]byte, bigLength)) // A client that leaves tells the test itself.
		default:
			fmt.Fprintf(out, "%s %s", name, in.RemoteAddr)
		}
	})}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	w.Cleanup(func() {
		_ = s.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			w.Error(err)
		}
	})
}

// curl gets a URL, in patience at most.
func (w *world) curl(n *lab.NetNS, url string, flags ...string) (string, error) {
	ctx, cancel := context.WithTimeout(w.Context(), 2*patience)
	defer cancel()
	most := strconv.Itoa(int(patience.Seconds()))
	out, err := n.Run(ctx, append(append([]string{"curl", "-sS", "-g", "--fail", "--noproxy", "*", "--max-time", most}, flags...), url)...)
	return out.Stdout, err
}

// asks gets / of a webServer, which has to be the one of that name, and
// returns the address and port that it was asked from.
func (w *world) asks(n *lab.NetNS, address string, port int, name string) netip.AddrPort {
	w.Helper()
	text, err := w.curl(n, "http://"+net.JoinHostPort(address, itoa(port))+"/")
	if err != nil {
		w.Errorf("%s port %d: %v", address, port, err)
		return netip.AddrPort{}
	}
	who, from, _ := strings.Cut(text, " ")
	ap, err := netip.ParseAddrPort(from)
	if err != nil || who != name {
		w.Errorf("%s port %d answers %q, want %s and where it was asked from", address, port, text, name)
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// asksFrom is asks, and the address asked from has to be that one.
func (w *world) asksFrom(n *lab.NetNS, address string, port int, name, from string) {
	w.Helper()
	if got := w.asks(n, address, port, name); got.IsValid() && got.Addr().String() != from {
		w.Errorf("%s port %d was asked from %s, want %s", address, port, got, from)
	}
}

// Exit codes of curl(1).
const (
	curlRefused  = 7
	curlTimedOut = 28
)

// silent fails the test if a port answers, be it by refusing.
func (w *world) silent(n *lab.NetNS, address string, port int) {
	w.Helper()
	w.curlFails(n, address, port, curlTimedOut)
}

// refuses fails the test if the host doesn't refuse what comes to one of its
// ports from outside.
func (w *natWorld) refuses(port int) {
	w.Helper()
	w.curlFails(w.server, host4, port, curlRefused)
}

func (w *world) curlFails(n *lab.NetNS, address string, port, code int) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 2*patience)
	defer cancel()
	wait := "1"
	if code != curlTimedOut {
		wait = strconv.Itoa(int(patience.Seconds())) // What comes may come late.
	}
	out, err := n.Run(ctx, "curl", "-sS", "-g", "--noproxy", "*", "--connect-timeout", wait, "http://"+net.JoinHostPort(address, itoa(port))+"/")
	if err == nil || out.Code != code {
		w.Errorf("%s port %d: want curl's exit code %d, got %d: %s%s", address, port, code, out.Code, out.Stdout, out.Stderr)
	}
}

// udpEcho answers datagrams to a port of a namespace until the test ends with
// the address that they came from.
func (w *world) udpEcho(n *lab.NetNS, port int) {
	w.Helper()
	for _, family := range []string{"udp4", "udp6"} {
		var c *net.UDPConn
		w.NoError(n.Do(func() (err error) {
			c, err = net.ListenUDP(family, &net.UDPAddr{Port: port})
			return err
		}))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			buf := make([]byte, 1500)
			for {
				_, from, err := c.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				_, _ = c.WriteToUDPAddrPort([]byte(from.String()), from) // What gets lost is sent for again.
			}
		}()
		w.Cleanup(func() {
			_ = c.Close()
			<-ended
		})
	}
}

// udpClient is a UDP socket in a namespace that talks to an udpEcho.
type udpClient struct{ *net.UDPConn }

// dialUDP opens a udpClient until the test ends.
func (w *world) dialUDP(n *lab.NetNS, address string, port int) udpClient {
	w.Helper()
	var c *net.UDPConn
	w.NoError(n.Do(func() (err error) {
		c, err = net.DialUDP("udp", nil, &net.UDPAddr{IP: net.ParseIP(address), Port: port})
		return err
	}))
	w.Cleanup(func() { _ = c.Close() })
	return udpClient{c}
}

// ask returns where the echo sees the socket, or an error after bound.
func (c udpClient) ask(bound time.Duration) (netip.AddrPort, error) {
	if _, err := c.Write([]byte("?")); err != nil {
		return netip.AddrPort{}, err
	}
	_ = c.SetReadDeadline(time.Now().Add(bound))
	buf := make([]byte, 100)
	length, err := c.Read(buf)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.ParseAddrPort(string(buf[:length]))
}
