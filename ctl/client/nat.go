package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"heddle/ctl/api"
)

// Uplinks returns all uplinks, by name.
func (c *Client) Uplinks(ctx context.Context) (all []api.Uplink, err error) {
	return all, c.get(ctx, api.PathUplinks, nil, &all)
}

// Uplink returns one uplink.
func (c *Client) Uplink(ctx context.Context, name string) (u api.Uplink, err error) {
	return u, c.get(ctx, member(api.PathUplinks, name), nil, &u)
}

// AddUplink makes an uplink from a config.Uplink.
func (c *Client) AddUplink(ctx context.Context, spec any) (u api.Uplink, err error) {
	return u, c.post(ctx, api.PathUplinks, spec, &u)
}

// RemoveUplink removes an uplink that no NAT uses.
func (c *Client) RemoveUplink(ctx context.Context, name string) error {
	return c.remove(ctx, member(api.PathUplinks, name), nil)
}

// NATs returns all masquerades and publications.
func (c *Client) NATs(ctx context.Context) (all []api.NAT, err error) {
	return all, c.get(ctx, api.PathNAT, nil, &all)
}

// NAT returns one masquerade or publication.
func (c *Client) NAT(ctx context.Context, id string) (n api.NAT, err error) {
	return n, c.get(ctx, member(api.PathNAT, id), nil, &n)
}

// AddNAT makes a masquerade or publication from a config.NAT.
func (c *Client) AddNAT(ctx context.Context, spec any) (n api.NAT, err error) {
	return n, c.post(ctx, api.PathNAT, spec, &n)
}

// RemoveNAT removes a masquerade or publication, and ends its connections.
func (c *Client) RemoveNAT(ctx context.Context, id string) error {
	return c.remove(ctx, member(api.PathNAT, id), nil)
}

// ConnFilter says which connections are meant; an empty field means any.
type ConnFilter struct {
	Network string
	Proto   string // tcp, udp, icmp or sctp.
	// Src and Dst are the ends of the original direction, each an address or a
	// subnet.
	Src, Dst string
}

func (f ConnFilter) params() url.Values {
	return params("network", f.Network, "proto", f.Proto, "src", f.Src, "dst", f.Dst)
}

// Conns calls f for each connection that the filter means, limit ones at most
// (0 means all), and holds one at a time: there may be a million. It returns
// the error of an f that fails, which ends it. Connections that come and go
// meanwhile may be left out.
func (c *Client) Conns(ctx context.Context, filter ConnFilter, limit uint64, f func(api.Conn) error) error {
	q := filter.params()
	if limit > 0 {
		q.Set("limit", strconv.FormatUint(limit, 10))
	}
	resp, err := c.send(ctx, c.http, http.MethodGet, api.PathConns, q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return eachOf(json.NewDecoder(resp.Body), f)
}

// eachOf calls f for each element of a list that d reads.
func eachOf[T any](d *json.Decoder, f func(T) error) error {
	token, err := d.Token()
	if err != nil {
		return broken(err)
	}
	if token == nil { // null is an empty list.
		return nil
	}
	if token != json.Delim('[') {
		return errors.New("talk to swd: its answer is no list")
	}
	for d.More() {
		var v T
		if err := d.Decode(&v); err != nil {
			return broken(err)
		}
		if err := f(v); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return broken(err)
	}
	if _, err := d.Token(); errors.Is(err, io.EOF) {
		return nil // The body was read to its end, and the connection is used again.
	} else if err != nil {
		return broken(err)
	}
	return errors.New("talk to swd: there is more behind its answer")
}

// FlushConns ends the connections that the filter means.
func (c *Client) FlushConns(ctx context.Context, filter ConnFilter) error {
	return c.remove(ctx, api.PathConns, filter.params())
}

// CountConns returns how many connections there are.
func (c *Client) CountConns(ctx context.Context) (n api.ConnCount, err error) {
	return n, c.get(ctx, api.PathConnCount, nil, &n)
}
