package mesh

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"heddle/dataplane/wire"
)

func TestParseKey(t *testing.T) {
	raw := bytes.Repeat([]byte{0xff}, 32)
	for name, c := range map[string]struct {
		file string
		want []byte
	}{
		"base64 of 32":        {"//////////////////////////////////////////8=\n", raw},
		"base64 of 16":        {" /////////////////////w==", raw[:16]},
		"base64 of 24":        {"////////////////////////////////\r\n", raw[:24]},
		"raw 32":              {string(raw), raw},
		"raw 16":              {"0123456789abcde!", []byte("0123456789abcde!")},
		"empty":               {"", nil},
		"short":               {"YWJj\n", nil},
		"raw with a new line": {string(raw) + "\n", nil},
	} {
		got, err := ParseKey([]byte(c.file))
		if !bytes.Equal(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
}

func TestJoinSaysWhatIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		n := c.start(0)
		for addr, want := range map[string]string{
			testAddr(50).String():       "nobody listens",
			testAddr(0).String():        "this host itself",
			testAddr(0).Addr().String(): "this host itself",
		} {
			if _, err := n.Join(t.Context(), []string{addr}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %q", addr, err, want)
			}
		}
		if _, err := n.Join(t.Context(), nil); err == nil {
			t.Error("joins nobody")
		}
		if len(n.seeds) != 0 {
			t.Error("addresses that failed are remembered")
		}
	})
}

// TestAddressesSayWhatIsWrong is in no synctest bubble: package net would have
// channels of the first bubble's for all of the process.
func TestAddressesSayWhatIsWrong(t *testing.T) {
	for addr, want := range map[string]string{
		"198.18.0.1:notaport":         "no port",
		"":                            "",
		"name.invalid:" + "70000":     "no port",
		"[2001:db8::1]:7946x":         "",
		"198.18.0.1:7946:7946:nobody": "",
	} {
		if _, err := resolve(t.Context(), addr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", addr, err, want)
		}
	}
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	good := Config{Name: "a", Bind: netip.MustParseAddrPort("127.0.0.1:0"), VTEP: testVTEP(1), Keys: [][]byte{testKey}}
	for name, edit := range map[string]func(*Config){
		"no name":         func(c *Config) { c.Name = "" },
		"a bad name":      func(c *Config) { c.Name = "A b" },
		"no VTEP":         func(c *Config) { c.VTEP = netip.AddrPort{} },
		"any VTEP":        func(c *Config) { c.VTEP = netip.MustParseAddrPort("0.0.0.0:4789") },
		"no listener":     func(c *Config) { c.Bind = netip.AddrPort{} },
		"nothing to tell": func(c *Config) { c.Bind = netip.MustParseAddrPort("0.0.0.0:7946") },
		"a short key":     func(c *Config) { c.Keys = [][]byte{{1, 2, 3}} },
		"three keys":      func(c *Config) { c.Keys = [][]byte{testKey, testKey, testKey} },
		"no such address": func(c *Config) { c.Bind = netip.MustParseAddrPort("203.0.113.9:0") },
	} {
		cfg := good
		edit(&cfg)
		if m, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
			_ = m.Close()
		}
	}
}

func TestAnnounceIsAllOrNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newCluster(t).start(0)
		good := testEndpoint(1, 1)
		for name, bad := range map[string]Endpoint{
			"no VNI":          {MAC: good.MAC},
			"a big VNI":       {VNI: MaxVNI + 1, MAC: good.MAC},
			"no MAC":          {VNI: 1},
			"a group's MAC":   {VNI: 1, MAC: 1 << 40},
			"a long MAC":      {VNI: 1, MAC: 1 << 50},
			"no IP":           {VNI: 1, MAC: good.MAC, IPs: make([]netip.Addr, 1)},
			"a group's IP":    {VNI: 1, MAC: good.MAC, IPs: []netip.Addr{netip.MustParseAddr("224.0.0.1")}},
			"an IP of a zone": {VNI: 1, MAC: good.MAC, IPs: []netip.Addr{netip.MustParseAddr("fe80::1%eth0")}},
			"many IPs":        {VNI: 1, MAC: good.MAC, IPs: slices.Repeat(good.IPs, MaxEndpointIPs+1)},
		} {
			if err := m.Announce(good, bad); err == nil {
				t.Errorf("%s is announced", name)
			}
			if err := m.SetEndpoints([]Endpoint{good, bad}); err == nil {
				t.Errorf("%s is set", name)
			}
		}
		if n := len(m.Endpoints()); n != 0 {
			t.Errorf("%d endpoints are left", n)
		}
		many := make([]Endpoint, MaxEndpoints+1)
		for i := range many {
			many[i] = Endpoint{VNI: 1, MAC: good.MAC + 1<<20 + wire.MAC(i)}
		}
		if err := m.Announce(many...); err == nil {
			t.Error("one too many is announced")
		}
		if err := m.Announce(many[1:]...); err != nil {
			t.Error(err)
		}
		for name, bad := range map[string][]Network{
			"no VNI":   {{"red", 0}},
			"no name":  {{"", 1}},
			"one VNI":  {{"red", 1}, {"blue", 1}},
			"too many": make([]Network, MaxNetworks+1),
		} {
			if err := m.SetNetworks(bad); err == nil {
				t.Errorf("networks with %s are announced", name)
			}
		}
	})
}
