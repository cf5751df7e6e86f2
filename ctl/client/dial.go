package client

import (
	"context"
	"net"
	"sync"
	"time"
)

// dialer returns a DialContext that connects to the socket, whatever address
// the URL names. connected, if not nil, is told the connection.
func dialer(socket string, connected func(*net.UnixConn)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout}
		c, err := d.DialContext(ctx, "unix", socket)
		if err != nil {
			if err := over(ctx); err != nil {
				return nil, err
			}
			return nil, unreachable(socket, err)
		}
		if u, ok := c.(*net.UnixConn); ok && connected != nil {
			connected(u)
		}
		return &askFirst{Conn: c, asked: make(chan struct{})}, nil
	}
}

// over returns why ctx is done, or about to be: a dial may notice that its time
// has run out before the context does.
func over(ctx context.Context) error {
	if until, bounded := ctx.Deadline(); bounded && !time.Now().Before(until) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// askFirst holds the first Read back until something was written: a swd that
// serves too many clients answers before it is asked, which http.Transport
// would take for a broken connection.
type askFirst struct {
	net.Conn
	once  sync.Once
	asked chan struct{}
}

// Read reads once there was a Write or Close.
func (c *askFirst) Read(b []byte) (int, error) {
	<-c.asked
	return c.Conn.Read(b)
}

// Write writes, and lets Read go on.
func (c *askFirst) Write(b []byte) (int, error) {
	defer c.release()
	return c.Conn.Write(b)
}

// Close closes the connection.
func (c *askFirst) Close() error {
	defer c.release()
	return c.Conn.Close()
}

func (c *askFirst) release() { c.once.Do(func() { close(c.asked) }) }
