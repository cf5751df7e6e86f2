package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Whatever the stacks on both sides leave to their devices, each frame that
// comes out of NAT, either way, has the checksums that it says it has, partial
// ones too, and none is longer than the MTU.
//
//	container tap1, veth2 ── swd ── uplink ── router ── server
//	       looked at                                   looked at
func TestNATOffloads(t *testing.T) {
	modes(t, func(w *natWorld) {
		server := &station{name: "server", ns: w.server, ifname: "web0"}
		upload := filepath.Join(w.Dir(), "upload")
		w.NoError(os.WriteFile(upload, make([]byte, some), 0o600))
		for i, s := range []*station{w.container(), w.addOn(network, onVeth, "--default-route")} {
			port := 8080 + i
			w.webServer(s.ns, s.name, 80)
			w.publish(itoa(port)+"/tcp", s.name+":80")
			w.reach(s, server4)
			w.reach(s, server6)
			for _, on := range []bool{true, false} {
				w.NoError(s.ns.SetOffloads(w.Context(), s.ifname, on))
				w.NoError(w.server.SetOffloads(w.Context(), server.ifname, on))
				inside, outside := w.sniff(s, mtu), w.sniff(server, mtu)
				for _, a := range []struct{ server, ext string }{{server4, w.ext4}, {server6, w.ext6}} {
					w.tcp(s, server, a.server, some)
					w.udp(s, server, a.server, mtu)
					got, err := w.curl(w.server, "http://"+bracketed(a.ext)+":"+itoa(port)+"/", "--data-binary", "@"+upload)
					if want := fmt.Sprintf("%s %d <nil>", s.name, some); err != nil || got != want {
						w.Errorf("upload to %s by %s: %q, %v", s.name, a.ext, got, err)
					}
				}
				for _, n := range []struct {
					where   string
					sniffer *sniffer
				}{{s.name, inside}, {"server", outside}} {
					if err := n.sniffer.stop(); err != nil {
						w.Errorf("%s, offloads %v, at %s: %v", s.name, on, n.where, err)
					}
					if looked := n.sniffer.bytes.Load(); looked < 2*some {
						w.Errorf("%s, offloads %v, at %s: only %d bytes were looked at", s.name, on, n.where, looked)
					}
				}
				w.Logf("%s, offloads %v: %d super-frames at the server, %d inside", s.name, on, outside.super.Load(), inside.super.Load())
			}
		}
	})
}
