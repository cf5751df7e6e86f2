package config

import (
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func TestDecodeJSON(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{"name":"a","vni":7,"subnets":["198.18.0.0/24"],"ageing":"90s","isolated":true,"gateways":[]}`, ""},
		{` {} `, ""},
		{``, "JSON: a value is wanted, and there is nothing"},
		{`{"name":"a"`, "JSON: it ends in the middle"},
		{`{"name":"a"} x`, "JSON: one value is wanted, and there is more behind it"},
		{`{"name":"a"}{}`, "JSON: one value is wanted, and there is more behind it"},
		{`{"name" "a"}`, "JSON, near byte 8: invalid character"},
		{`[]`, "want an object of fields, not a list"},
		{`{"nam":"a"}`, "nam: unknown field: want one of name, vni, "},
		{`{"NAME":"a"}`, "NAME: unknown field"},
		{`{"name":"a","name":"b"}`, "name: given twice"},
		{`{"name":7}`, "name: want text, not a number"},
		{`{"name":null}`, "name: has no value"},
		{`{"name":"a","subnets":null}`, "subnets: has no value"},
		{`{"vni":"7"}`, "vni: want a whole number, not text"},
		{`{"vni":-1}`, `vni: "-1" is no whole number that fits here`},
		{`{"vni":1e3}`, `vni: "1e3" is no whole number`},
		{`{"vni":4294967296}`, "is no whole number that fits here"},
		{`{"subnets":["x"],"ageing":"5"}`, `subnets[0]: "x" is no subnet: want one as 198.18.0.0/24 or 2001:db8::/64; ageing: "5" is no duration`},
		{strings.Repeat(`[`, 5000), "nested more than 16 deep"},
	} {
		var n Network
		err := DecodeJSON(strings.NewReader(c.text), &n)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.text, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%.80s: %v, want %q", c.text, err, c.want)
		}
	}
}

func TestDecodeJSONReader(t *testing.T) {
	var n Network
	if err := DecodeJSON(iotest.ErrReader(io.ErrClosedPipe), &n); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

func TestDecodeJSONMap(t *testing.T) {
	var got struct {
		MACs map[string]string `json:"macs"`
	}
	err := DecodeJSON(strings.NewReader(`{"macs":{"a":"1","b":"2"}}`), &got)
	if want := map[string]string{"a": "1", "b": "2"}; err != nil || !reflect.DeepEqual(got.MACs, want) {
		t.Errorf("%v, %v", got, err)
	}
	if err := DecodeJSON(strings.NewReader(`{"macs":{"a":"1","a":"2"}}`), &got); err == nil {
		t.Error("a repeated key is accepted")
	}
}

// FuzzDecodeJSON: no text makes it panic, and a config that is accepted is the
// same after it was written and read again.
func FuzzDecodeJSON(f *testing.F) {
	f.Add([]byte(`{"networks":[{"name":"a","ageing":"1s"}],"ports":[{"name":"p","ips":["auto"]}],"fdb":[]}`))
	f.Add([]byte(`{"networks":[{"subnets":["2001:db8::/64"],"gateways":["::1%a"]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c, again Config
		if DecodeJSON(strings.NewReader(string(data)), &c) != nil {
			return
		}
		text, err := json.Marshal(&c)
		if err != nil {
			t.Fatal(err)
		}
		if err := DecodeJSON(strings.NewReader(string(text)), &again); err != nil || !reflect.DeepEqual(c, again) {
			t.Fatalf("%v\n%s\nread again %+v\nwas        %+v", err, text, again, c)
		}
	})
}
