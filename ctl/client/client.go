package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"heddle/ctl/api"
)

// DefaultSocket is where swd listens unless it is told otherwise.
const DefaultSocket = "/run/swd/swd.sock"

// Bounds of a request, beside those of the caller's context.
const (
	dialTimeout = 5 * time.Second
	askTimeout  = time.Minute
	// changeTimeout is above what swd gives itself: an apply may make
	// thousands of links.
	changeTimeout = 6 * time.Minute
	maxErrorBody  = 1 << 20 // Bytes of an api.Error that are read.
)

// Client is a swd's client. Close it when done.
type Client struct {
	socket string
	http   *http.Client
}

// New returns a client of the swd that listens on the unix socket. It doesn't
// connect yet.
func New(socket string) *Client {
	return &Client{socket: socket, http: &http.Client{
		Transport:     &http.Transport{DialContext: dialer(socket, nil), DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close gives back idle connections; requests under way go on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status returns the daemon at a glance.
func (c *Client) Status(ctx context.Context) (s api.Status, err error) {
	return s, c.get(ctx, api.PathStatus, nil, &s)
}

// Export reads the config into v, a *config.Config.
func (c *Client) Export(ctx context.Context, v any) error {
	return c.get(ctx, api.PathConfig, nil, v)
}

// Apply makes swd have what the config says, beside what else it has.
func (c *Client) Apply(ctx context.Context, spec any) (a api.Applied, err error) {
	return a, c.post(ctx, api.PathConfig, spec, &a)
}

// Networks returns all networks, by name.
func (c *Client) Networks(ctx context.Context) (all []api.Network, err error) {
	return all, c.get(ctx, api.PathNetworks, nil, &all)
}

// Network returns one network.
func (c *Client) Network(ctx context.Context, name string) (n api.Network, err error) {
	return n, c.get(ctx, member(api.PathNetworks, name), nil, &n)
}

// AddNetwork makes a network from a config.Network.
func (c *Client) AddNetwork(ctx context.Context, spec any) (n api.Network, err error) {
	return n, c.post(ctx, api.PathNetworks, spec, &n)
}

// RemoveNetwork removes a network on which no ports are.
func (c *Client) RemoveNetwork(ctx context.Context, name string) error {
	return c.remove(ctx, member(api.PathNetworks, name), nil)
}

// Ports returns all ports, by name.
func (c *Client) Ports(ctx context.Context) (all []api.Port, err error) {
	return all, c.get(ctx, api.PathPorts, nil, &all)
}

// Port returns one port.
func (c *Client) Port(ctx context.Context, name string) (p api.Port, err error) {
	return p, c.get(ctx, member(api.PathPorts, name), nil, &p)
}

// AddPort makes a port from a config.Port.
func (c *Client) AddPort(ctx context.Context, spec any) (p api.Port, err error) {
	return p, c.post(ctx, api.PathPorts, spec, &p)
}

// RemovePort removes a port and what swd made for it on the host.
func (c *Client) RemovePort(ctx context.Context, name string) error {
	return c.remove(ctx, member(api.PathPorts, name), nil)
}

// FDB returns the entries of a network, or of all for an empty name.
func (c *Client) FDB(ctx context.Context, network string) (all []api.Entry, err error) {
	return all, c.get(ctx, api.PathFDB, params("network", network), &all)
}

// AddStatic makes an entry from a config.Static.
func (c *Client) AddStatic(ctx context.Context, spec any) (e api.Entry, err error) {
	return e, c.post(ctx, api.PathFDB, spec, &e)
}

// RemoveEntry forgets a MAC of a network, static or learnt.
func (c *Client) RemoveEntry(ctx context.Context, network, mac string) error {
	return c.remove(ctx, api.PathFDB, params("network", network, "mac", mac))
}

// Flush forgets what was learnt on a network and port; empty ones mean all.
func (c *Client) Flush(ctx context.Context, network, port string) error {
	return c.remove(ctx, api.PathFDB, params("network", network, "port", port))
}

// Drops returns why frames went no further at a port, or at all for an empty
// name, in the order in which a frame meets the reasons.
func (c *Client) Drops(ctx context.Context, port string) (all []api.DropCount, err error) {
	return all, c.get(ctx, api.PathDrops, params("port", port), &all)
}

// Events calls f for each event that swd has kept, the oldest first, and with
// follow for each new one until ctx is done, which then is no error, or f
// fails, whose error it returns.
func (c *Client) Events(ctx context.Context, follow bool, f func(api.Event) error) error {
	q := url.Values{}
	if follow {
		q.Set("follow", "1")
	}
	resp, err := c.send(ctx, c.http, http.MethodGet, api.PathEvents, q, nil)
	if err == nil {
		defer resp.Body.Close()
		for d := json.NewDecoder(resp.Body); ; {
			var e api.Event
			if err = d.Decode(&e); err != nil {
				break
			}
			if err := f(e); err != nil {
				return err
			}
		}
	}
	switch {
	case follow && ctx.Err() != nil:
		return nil
	case errors.Is(err, io.EOF) && !follow:
		return nil
	case errors.Is(err, io.EOF):
		return errors.New("swd ended the connection")
	}
	return broken(err)
}

// member returns the path of an object of a collection.
func member(collection, name string) string { return collection + "/" + url.PathEscape(name) }

// params makes a query of pairs of name and value without the empty ones.
func params(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

func (c *Client) get(ctx context.Context, path string, q url.Values, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return c.do(ctx, http.MethodGet, path, q, nil, answer)
}

func (c *Client) post(ctx context.Context, path string, spec, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	body, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("write the request as JSON: %w", err)
	}
	return c.do(ctx, http.MethodPost, path, nil, body, answer)
}

func (c *Client) remove(ctx context.Context, path string, q url.Values) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	return c.do(ctx, http.MethodDelete, path, q, nil, nil)
}

// do asks and decodes the answer.
func (c *Client) do(ctx context.Context, method, path string, q url.Values, body []byte, answer any) error {
	resp, err := c.send(ctx, c.http, method, path, q, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if answer != nil {
		err = json.NewDecoder(resp.Body).Decode(answer)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body) // Read to its end, the connection is used again.
	}
	return broken(err)
}

// send asks and returns an answer of 2xx, whose body the caller closes.
func (c *Client) send(ctx context.Context, by *http.Client, method, path string, q url.Values, body []byte) (*http.Response, error) {
	at := url.URL{Scheme: "http", Host: "swd", Path: path, RawQuery: q.Encode()}
	if unescaped, err := url.PathUnescape(path); err == nil {
		at.Path, at.RawPath = unescaped, path
	}
	req, err := http.NewRequestWithContext(ctx, method, at.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", api.TypeJSON)
	}
	resp, err := by.Do(req)
	if err != nil {
		return nil, broken(err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refused(resp)
}
