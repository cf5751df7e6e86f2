package api_test

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"heddle/ctl/api"
)

// TestDocs: docs/API.md names every path, trailer and field of an answer.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/API.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(text)
	for _, word := range []string{
		api.PathStatus, api.PathConfig, api.PathNetworks, api.PathPorts, api.PathFDB, api.PathDrops, api.PathCapture,
		api.PathEvents, api.PathUplinks, api.PathNAT, api.PathConns, api.PathConnCount,
		api.PathPeers, api.PathMesh, api.PathMembers, api.PathKeys, api.ActionActivate, api.TrailerCaptured, api.TrailerMissed, api.TypeLines, api.TypePcapng,
	} {
		if !strings.Contains(doc, word) {
			t.Errorf("docs/API.md lacks %s", word)
		}
	}
	for _, v := range []any{
		api.Error{}, api.Status{}, api.Network{}, api.Port{}, api.Entry{}, api.DropCount{}, api.Applied{}, api.Event{},
		api.Uplink{}, api.NextHop{}, api.NAT{}, api.Flow{}, api.Conn{}, api.ConnCount{},
		api.Peer{}, api.Mesh{}, api.Member{}, api.Endpoint{}, api.MeshKey{}, api.Key{},
	} {
		for i := range reflect.TypeOf(v).NumField() {
			name, _, _ := strings.Cut(reflect.TypeOf(v).Field(i).Tag.Get("json"), ",")
			if !strings.Contains(doc, `"`+name+`"`) && !strings.Contains(doc, "`"+name+"`") {
				t.Errorf("docs/API.md lacks the field %s of %T", name, v)
			}
		}
	}
}
