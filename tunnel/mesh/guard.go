package mesh

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Bounds of what comes from the network before it is known to be a member's.
const (
	maxStream     = 16 << 20 // Bytes of one stream's message; the state of MaxEndpoints with 8 IPv6 addresses each is 9.9 MB.
	maxStreams    = 128      // Incoming streams at one time; more are hung up on.
	maxInFlight   = 64 << 20 // Bytes that are held of all incoming streams at one time.
	maxStep       = 64 << 10 // Bytes of one that are taken before it is looked again.
	streamTimeout = 30 * time.Second
	maxDatagramIn = 2 * maxPacket
	packetQueue   = 256
)

// memberlist's encryption, version 1: a version byte, nonce, ciphertext, tag;
// in a stream after a type byte and the length, which are authenticated too.
const (
	sealVersion  = 1
	sealNonce    = 12
	sealOverhead = 1 + sealNonce + 16
	streamType   = 10
	streamHeader = 5
)

// guard stands between the network and memberlist. It lets through only what a
// key of this mesh opens, counts what it refuses, bounds what is in flight
// before that is known, and counts what passes by size. So garbage costs a
// decryption and no log line, and memberlist parses only what members sent.
// Without keys it counts and bounds.
type guard struct {
	inner   memberlist.Transport
	keyring *memberlist.Keyring // nil without keys.
	count   *counters
	ciphers atomic.Pointer[ciphers]

	packets chan *memberlist.Packet
	streams chan net.Conn
	slots   chan struct{} // One taken by each incoming stream.
	flight  atomic.Int64
	done    chan struct{}
	once    sync.Once
	workers sync.WaitGroup
}

// ciphers are the keyring's, made once.
type ciphers struct {
	keys  [][]byte
	aeads []cipher.AEAD
}

func newGuard(inner memberlist.Transport, keyring *memberlist.Keyring, count *counters) *guard {
	g := &guard{
		inner: inner, keyring: keyring, count: count,
		packets: make(chan *memberlist.Packet, packetQueue),
		streams: make(chan net.Conn),
		slots:   make(chan struct{}, maxStreams),
		done:    make(chan struct{}),
	}
	g.workers.Add(2)
	go g.pumpPackets()
	go g.pumpStreams()
	return g
}

// open tells whether a key opens what was sealed, and not to nothing.
func (g *guard) open(sealed, extra []byte) bool {
	if g.keyring == nil {
		return true
	}
	if len(sealed) <= sealOverhead || sealed[0] != sealVersion {
		return false
	}
	for _, a := range g.aeads() {
		if _, err := a.Open(nil, sealed[1:1+sealNonce], sealed[1+sealNonce:], extra); err == nil {
			return true
		}
	}
	return false
}

// aeads returns the ciphers of the keys that are on the ring now.
func (g *guard) aeads() []cipher.AEAD {
	keys := g.keyring.GetKeys()
	if c := g.ciphers.Load(); c != nil && len(c.keys) == len(keys) {
		same := true
		for i := range keys {
			same = same && bytes.Equal(keys[i], c.keys[i])
		}
		if same {
			return c.aeads
		}
	}
	c := &ciphers{keys: keys}
	for _, k := range keys {
		if block, err := aes.NewCipher(k); err == nil { // checkKey has seen to that.
			if a, err := cipher.NewGCM(block); err == nil {
				c.aeads = append(c.aeads, a)
			}
		}
	}
	g.ciphers.Store(c)
	return c.aeads
}

// pumpPackets passes packets on, copied to their size: the transport's buffers
// are 64 KB each.
func (g *guard) pumpPackets() {
	defer g.workers.Done()
	for {
		var p *memberlist.Packet
		select {
		case <-g.done:
			return
		case p = <-g.inner.PacketCh():
		}
		if len(p.Buf) > maxDatagramIn {
			g.count.refuse(RefusedSize)
			continue
		}
		if !g.open(p.Buf, nil) {
			g.count.refuse(RefusedKey)
			continue
		}
		g.count.in(KindPacket, len(p.Buf))
		c := *p
		c.Buf = bytes.Clone(p.Buf)
		select {
		case g.packets <- &c:
		default:
			g.count.refuse(RefusedQueue)
		}
	}
}

// pumpStreams reads each stream's message and passes on those that a member
// sent.
func (g *guard) pumpStreams() {
	defer g.workers.Done()
	for {
		var conn net.Conn
		select {
		case <-g.done:
			return
		case conn = <-g.inner.StreamCh():
		}
		select {
		case g.slots <- struct{}{}:
			g.workers.Go(func() { g.admit(conn) })
		default:
			g.count.refuse(RefusedStreams)
			_ = conn.Close() // There is nobody to tell.
		}
	}
}

// admit reads the one message that a stream begins with and hands the stream
// to memberlist as if it were unread, or hangs up.
func (g *guard) admit(conn net.Conn) {
	s := &stream{Conn: conn, guard: g, slot: true}
	_ = conn.SetDeadline(time.Now().Add(streamTimeout)) // A stream without deadlines is bounded by its end.
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-g.done:
			_ = conn.Close() // So that the read ends.
		case <-stop:
		}
	}()
	if g.keyring != nil {
		reason, err := s.buffer()
		if err != nil {
			if reason < RefusalCount {
				g.count.refuse(reason)
			}
			_ = s.Close() // It has not been told anything, so there is nothing to lose.
			return
		}
	}
	select {
	case g.streams <- s:
	case <-g.done:
		_ = s.Close() // Likewise.
	}
}

var errRefused = errors.New("refused")

// buffer reads the message that a stream begins with, and checks it. A stream
// that ends before it is none of the refusals.
func (s *stream) buffer() (Refusal, error) {
	header := make([]byte, streamHeader)
	if _, err := io.ReadFull(s.Conn, header); err != nil {
		return RefusalCount, err
	}
	if header[0] != streamType {
		return RefusedKey, errRefused
	}
	n := int64(binary.BigEndian.Uint32(header[1:]))
	if n > maxStream {
		return RefusedSize, errRefused
	}
	var b bytes.Buffer // Grows with what comes, not with what the header says.
	b.Write(header)
	for n > 0 {
		step, err := io.CopyN(&b, s.Conn, min(n, maxStep))
		if err != nil {
			return RefusalCount, err
		}
		n -= step
		s.held += step
		if s.guard.flight.Add(step) > maxInFlight {
			return RefusedStreams, errRefused
		}
	}
	if !s.guard.open(b.Bytes()[streamHeader:], header) {
		return RefusedKey, errRefused
	}
	s.ahead = b.Bytes()
	s.in.Store(int64(len(s.ahead)))
	return 0, nil
}

// stream is a connection that counts its bytes, with what was read of it
// before.
type stream struct {
	net.Conn
	guard   *guard
	ahead   []byte
	held    int64 // Of guard.flight.
	slot    bool  // It has one of guard.slots.
	in, out atomic.Int64
	once    sync.Once
}

func (s *stream) Read(b []byte) (int, error) {
	if len(s.ahead) > 0 {
		n := copy(b, s.ahead)
		s.ahead = s.ahead[n:]
		return n, nil
	}
	n, err := s.Conn.Read(b)
	if s.in.Add(int64(n)) > maxStream {
		return n, errRefused
	}
	return n, err
}

func (s *stream) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	s.out.Add(int64(n))
	return n, err
}

// Close counts what has passed.
func (s *stream) Close() error {
	s.once.Do(func() {
		if s.slot {
			<-s.guard.slots
		}
		s.guard.flight.Add(-s.held)
		if n := s.in.Load(); n > 0 {
			s.guard.count.in(KindStream, int(n))
		}
		if n := s.out.Load(); n > 0 {
			s.guard.count.out(KindStream, int(n))
		}
	})
	return s.Conn.Close()
}

// FinalAdvertiseAddr is memberlist.Transport's.
func (g *guard) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	return g.inner.FinalAdvertiseAddr(ip, port)
}

// WriteTo is memberlist.Transport's.
func (g *guard) WriteTo(b []byte, addr string) (time.Time, error) {
	at, err := g.inner.WriteTo(b, addr)
	if err == nil {
		g.count.out(KindPacket, len(b))
	}
	return at, err
}

// PacketCh is memberlist.Transport's.
func (g *guard) PacketCh() <-chan *memberlist.Packet { return g.packets }

// StreamCh is memberlist.Transport's.
func (g *guard) StreamCh() <-chan net.Conn { return g.streams }

// DialTimeout is memberlist.Transport's. The connection has a deadline, which
// memberlist doesn't set on all.
func (g *guard) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	select {
	case <-g.done:
		return nil, ErrClosed
	default:
	}
	conn, err := g.inner.DialTimeout(addr, timeout)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(streamTimeout)) // As in admit.
	return &stream{Conn: conn, guard: g}, nil
}

// Shutdown is memberlist.Transport's. What still comes is drained, for the
// inner transport waits for it to be taken.
func (g *guard) Shutdown() error {
	g.once.Do(func() { close(g.done) })
	g.workers.Wait()
	stop := make(chan struct{})
	var drain sync.WaitGroup
	drain.Go(func() {
		for {
			select {
			case <-g.inner.PacketCh():
			case conn := <-g.inner.StreamCh():
				_ = conn.Close() // Nobody will read it.
			case <-stop:
				return
			}
		}
	})
	err := g.inner.Shutdown()
	close(stop)
	drain.Wait()
	return err
}
