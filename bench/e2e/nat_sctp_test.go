package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"heddle/bench/lab"
)

// SCTP goes out by a masquerade and comes in by a publication and on hairpin,
// IPv4 and IPv6, with the stations' offloads on and off.
//
//	container tap1, veth2: client ── swd ── uplink ── router ── server: echo on 7
//	container tap1, veth2: echo on 7 ── swd ── uplink, 7007 and 7008 ── router ── server: client
func TestNATSCTP(t *testing.T) {
	modes(t, func(w *natWorld) {
		tap, veth := w.container(), w.addOn(network, onVeth, "--default-route")
		for i, s := range []*station{tap, veth} {
			w.publish(itoa(7007+i)+"/sctp", s.name+":7")
			w.sctpEcho(s.ns)
		}
		// usrsctp answers from any address, which is multihoming and gets through
		// no NAT.
		w.Run(w.server, "ip", "addr", "del", second4+"/24", "dev", "web0")
		w.sctpEcho(w.server)
		for _, on := range []bool{true, false} {
			for _, s := range []*station{tap, veth} {
				w.NoError(s.ns.SetOffloads(w.Context(), s.ifname, on))
			}
			w.NoError(w.server.SetOffloads(w.Context(), "web0", on))
			for _, a := range []struct{ server, ext string }{{server4, w.ext4}, {server6, w.ext6}} {
				w.sctp(tap.ns, a.server, 7)
				w.sctp(veth.ns, a.server, 7)
				w.sctp(w.server, a.ext, 7007)
				w.sctp(w.server, a.ext, 7008)
				w.sctp(tap.ns, a.ext, 7008)
				w.sctp(veth.ns, a.ext, 7007)
			}
		}
		if got := w.conns("--proto", "sctp", "--src", tap.ip4, "--dst", server4); len(got) == 0 || got[0].Network != network {
			w.Errorf("SCTP of %s isn't listed: %+v", tap.name, got)
		}
		for _, reason := range []string{"bad-checksum", "bad-packet", "tcp-window"} {
			if n := w.dropped(reason); n > 0 {
				w.Errorf("%d packets dropped, %s", n, reason)
			}
		}
	})
}

// usrsctp is where Debian's libusrsctp-examples puts its programs: SCTP in
// userspace, for kernels without.
const usrsctp = "/usr/lib/usrsctp/"

// kernelHasSCTP tells whether sockets of SCTP are to be had. Where the kernel
// has it, it answers what it doesn't know itself, and userspace gets nowhere.
func kernelHasSCTP() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	return err == nil && unix.Close(fd) == nil
}

// sctpEcho answers on SCTP port 7 of a namespace until the test ends.
func (w *world) sctpEcho(n *lab.NetNS) {
	w.Helper()
	words := []string{usrsctp + "echo_server"}
	if kernelHasSCTP() {
		words = []string{"socat", "SCTP6-LISTEN:7,fork,ipv6only=0", "EXEC:cat"}
	}
	_, err := n.Start(words...)
	w.NoError(err)
}

// sctp sends lines over an association to an echo, which has to return all of
// them in order.
func (w *world) sctp(n *lab.NetNS, address string, port int) {
	w.Helper()
	const lines = 200
	w.Eventually(2*patience, fmt.Sprintf("SCTP to %s port %d", address, port), func() error {
		var sent strings.Builder
		for i := range lines {
			fmt.Fprintf(&sent, "%d%s\n", i, strings.Repeat(".", i%70))
		}
		return w.sctpOnce(n, address, port, sent.String())
	})
}

func (w *world) sctpOnce(n *lab.NetNS, address string, port int, text string) (err error) {
	pipe := filepath.Join(w.Dir(), "sctp")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(pipe)) }()
	// Opened for both it doesn't wait for the reader.
	in, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	client := fmt.Sprintf("%sclient %s %d", usrsctp, address, port)
	if kernelHasSCTP() {
		client = fmt.Sprintf("socat - SCTP-CONNECT:%s:%d", bracketed(address), port)
	}
	p, err := n.Start("sh", "-c", "exec "+client+" < "+pipe)
	if err != nil {
		return errors.Join(err, in.Close())
	}
	defer p.Kill() // It would end by itself, a second after its last line.
	_, err = in.WriteString(text)
	ctx, cancel := context.WithTimeout(w.Context(), 8*time.Second)
	defer cancel()
	return errors.Join(err, p.WaitStdout(ctx, text), in.Close())
}
