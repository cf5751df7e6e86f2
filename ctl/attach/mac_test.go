package attach

import (
	"fmt"
	"testing"
)

func TestStableMAC(t *testing.T) {
	// A change would give every container a new address at the next start.
	for _, tt := range []struct{ node, port, want string }{
		{"host-a", "web", "02:60:1c:24:3a:30"},
		{"host-b", "web", "02:15:90:99:3b:ce"},
		{"", "", "02:34:0b:9c:ff:b3"},
	} {
		if got := StableMAC(tt.node, tt.port).String(); got != tt.want {
			t.Errorf("StableMAC(%q, %q) = %s, want %s", tt.node, tt.port, got, tt.want)
		}
	}
	seen := make(map[string]string)
	for i := range 1000 {
		port := fmt.Sprint("p", i)
		mac := StableMAC("n", port)
		if len(mac) != 6 || mac[0] != 0x02 {
			t.Fatalf("%s: %s", port, mac)
		}
		if other, ok := seen[mac.String()]; ok {
			t.Errorf("%s and %s have %s", port, other, mac)
		}
		seen[mac.String()] = port
	}
	if StableMAC("a", "bc").String() == StableMAC("ab", "c").String() {
		t.Error("node and port run into each other")
	}
}

func TestHostName(t *testing.T) {
	for port, want := range map[string]string{
		"web":              "hd-web",
		"a.b_c-123456":     "hd-a.b_c-123456",
		"a.b_c-1234567":    "hd~a.b_66yntcgv",
		"container-of-bob": "hd~contgkakb6ey",
	} {
		got := HostName(port)
		if got != want || len(got) > maxName {
			t.Errorf("HostName(%q) = %q, want %q", port, got, want)
		}
	}
}
