package main

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestNamesAreLookedUpForAJoin(t *testing.T) {
	known := map[string][]netip.Addr{
		"host2":         {netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("192.0.2.2")},
		"host3.example": {netip.MustParseAddr("::ffff:192.0.2.3")},
		"host6":         {netip.MustParseAddr("2001:db8::6")},
	}
	find := func(_ context.Context, _, host string) ([]netip.Addr, error) {
		if a, is := known[host]; is {
			return a, nil
		}
		return nil, fmt.Errorf("no such host %s", host)
	}
	for _, c := range []struct {
		hosts string
		want  [][]string
	}{
		{"192.0.2.2 [2001:db8::3]:7947", [][]string{{"192.0.2.2", "[2001:db8::3]:7947"}}},
		{"host2", [][]string{{"192.0.2.2"}, {"2001:db8::2"}}},
		{"host2:7947", [][]string{{"192.0.2.2:7947"}, {"[2001:db8::2]:7947"}}},
		{"host3.example 192.0.2.9", [][]string{{"192.0.2.3", "192.0.2.9"}}},
		{"host6 192.0.2.9", [][]string{{"2001:db8::6", "192.0.2.9"}}},
		{"host3.example 192.0.2.3", [][]string{{"192.0.2.3"}}},
		// swd refuses these; nobody is asked for them.
		{"192.0.2.300", [][]string{{"192.0.2.300"}}},
		{"192.0.2.2:0 fe80::1%eth0", [][]string{{"192.0.2.2:0", "fe80::1%eth0"}}},
		{"http://host2/", [][]string{{"http://host2/"}}},
	} {
		got, err := joinTries(t.Context(), find, strings.Fields(c.hosts))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("join %s: %q, %v, want %q", c.hosts, got, err, c.want)
		}
	}
	if _, err := joinTries(t.Context(), find, []string{"192.0.2.2", "nowhere"}); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a name that doesn't resolve: %v", err)
	}
}
