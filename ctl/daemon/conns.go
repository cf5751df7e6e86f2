package daemon

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"

	"heddle/ctl/api"
	"heddle/ctl/config"
	"heddle/dataplane/wire"
	"heddle/nat"
)

// errEnough ends a list that has reached its limit.
var errEnough = errors.New("enough")

// connNames is what connections' gateways, uplinks and rules are called.
type connNames struct {
	networks map[*nat.Gateway]string
	uplinks  map[*nat.Uplink]string
	rules    map[nat.RuleID]string
}

func (d *Daemon) connNames() connNames {
	d.mu.RLock()
	defer d.mu.RUnlock()
	names := connNames{make(map[*nat.Gateway]string), make(map[*nat.Uplink]string), make(map[nat.RuleID]string)}
	for name, n := range d.networks {
		if n.gateway != nil {
			names.networks[n.gateway.live] = name
		}
	}
	for name, u := range d.uplinks {
		if u.live != nil {
			names.uplinks[u.live] = name
		}
	}
	for id, r := range d.nats {
		for _, core := range r.core {
			names.rules[core] = id
		}
	}
	return names
}

// connChoice is which connections a request is about.
type connChoice struct {
	core     nat.Filter // What NAT can tell by itself.
	none     bool       // No connection can be meant.
	icmp     bool       // ICMP's and ICMPv6's.
	src, dst netip.Prefix
}

// connChoice reads the parameters that a list and a flush share.
func (d *Daemon) connChoice(q map[string]string) (c connChoice, err error) {
	if name := q["network"]; name != "" {
		d.mu.RLock()
		n := d.networks[name]
		d.mu.RUnlock()
		switch {
		case n == nil:
			return c, noNetwork(name)
		case n.gateway == nil:
			c.none = true
		default:
			c.core.Gateway = n.gateway.live
		}
	}
	if proto := q["proto"]; proto != "" {
		if err := config.CheckProto(proto); err != nil {
			return c, fail(http.StatusBadRequest, "proto: %w", err)
		}
		c.core.Proto = protoNumbers[proto]
		c.icmp = proto == config.ProtoICMP
	}
	for name, to := range map[string]*netip.Prefix{"src": &c.src, "dst": &c.dst} {
		if s := q[name]; s != "" {
			if *to, err = config.ParseMatch(s); err != nil {
				return c, fail(http.StatusBadRequest, "%s: %w", name, err)
			}
		}
	}
	return c, nil
}

// means tells whether a connection is one of the choice's.
func (c *connChoice) means(k nat.Conn) bool {
	if c.icmp && k.Proto != wire.ProtoICMP && k.Proto != wire.ProtoICMPv6 {
		return false
	}
	if c.src.IsValid() && !c.src.Contains(k.Original.Src.Addr()) {
		return false
	}
	return !c.dst.IsValid() || c.dst.Contains(k.Original.Dst.Addr())
}

// eachConn calls f for every connection of the choice, and holds no lock of the
// daemon meanwhile. It ends early if f fails.
func (d *Daemon) eachConn(c connChoice, f func(api.Conn) error) error {
	if c.none {
		return nil
	}
	names := d.connNames()
	for k := range d.nat.Conns(c.core, d.now()) {
		if !c.means(k) {
			continue
		}
		if err := f(names.view(k)); err != nil {
			return err
		}
	}
	return nil
}

// view makes a connection one for people.
func (names *connNames) view(k nat.Conn) api.Conn {
	v := api.Conn{
		Network: names.networks[k.Gateway], Uplink: names.uplinks[k.Uplink], NAT: names.rules[k.Rule],
		Original: flow(k.Original), Reply: flow(k.Reply),
		TimeoutSeconds: k.Timeout.Seconds(), Packets: k.Packets, Bytes: k.Bytes - wire.EthHdrLen*k.Packets,
	}
	switch k.Proto {
	case wire.ProtoTCP:
		v.Proto, v.State = config.ProtoTCP, streamState(k.State)
	case wire.ProtoSCTP:
		v.Proto, v.State = config.ProtoSCTP, streamState(k.State)
	case wire.ProtoUDP:
		v.Proto, v.State = config.ProtoUDP, api.ConnOneWay
		if k.State == "replied" {
			v.State = api.ConnTwoWay
		}
	default:
		v.Proto, v.State = config.ProtoICMP, api.ConnQuery
	}
	return v
}

// streamState is the API's word for a TCP or SCTP state of NAT's.
func streamState(s string) string {
	switch s {
	case "established":
		return api.ConnEstablished
	case "closing", "closed":
		return api.ConnClosing
	case "reset":
		return api.ConnReset
	}
	return api.ConnOpening
}

func flow(e nat.Endpoints) api.Flow { return api.Flow{Src: endpoint(e.Src), Dst: endpoint(e.Dst)} }

// endpoint writes an end; that of an ICMP query which has no identifier is an
// address alone.
func endpoint(e netip.AddrPort) string {
	if e.Port() == 0 {
		return e.Addr().String()
	}
	return e.String()
}

// getConns streams the connections: there may be a million.
func (d *Daemon) getConns(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "network", "proto", "src", "dst", "limit")
	var choice connChoice
	if err == nil {
		choice, err = d.connChoice(q)
	}
	var limit uint64
	if s := q["limit"]; err == nil && s != "" {
		if limit, err = strconv.ParseUint(s, 10, 63); err != nil {
			err = fail(http.StatusBadRequest, "limit %s: want a number of connections", printable(s))
		}
	}
	if err != nil {
		d.answerError(w, "conn ls", err)
		return
	}
	out := bufio.NewWriterSize(stream(w, "application/json"), 64<<10)
	separator, listed := "[", uint64(0)
	err = d.eachConn(choice, func(c api.Conn) error {
		if limit > 0 && listed == limit {
			return errEnough
		}
		listed++
		b, err := json.Marshal(c)
		if err == nil {
			_, err = fmt.Fprintf(out, "%s%s", separator, b)
		}
		separator = ",\n"
		return err
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	if err == nil && separator == "[" {
		_, err = out.WriteString("[")
	}
	if err == nil {
		_, err = out.WriteString("]\n")
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		panic(http.ErrAbortHandler) // A list that isn't whole must not look whole.
	}
}

// deleteConns ends connections.
func (d *Daemon) deleteConns(r *http.Request) (any, error) {
	q, err := query(r, "network", "proto", "src", "dst")
	if err != nil {
		return nil, err
	}
	c, err := d.connChoice(q)
	if err == nil && !c.none {
		d.nat.FlushFunc(c.core, d.now(), c.means)
	}
	return nil, err
}

// countConns answers GET /v1/conns/count.
func (d *Daemon) countConns(*http.Request) (any, error) {
	s := d.nat.Stats()
	return api.ConnCount{
		Count: s.Conns, Max: s.MaxConns, Containers: s.Hosts,
		Created: s.Created, Expired: s.Expired, Refused: s.Refused,
	}, nil
}
