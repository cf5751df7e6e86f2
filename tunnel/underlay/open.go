package underlay

import (
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"heddle/dataplane"
)

// Config is what an Underlay is opened from.
type Config struct {
	// Local is the address and port to receive on, in the network namespace
	// of the calling thread. An unspecified address is all of its family. It
	// decides the family: a peer of the other one can't be reached.
	Local netip.AddrPort
	// Workers is the number of receive sockets, 1 to dataplane.MaxWorkers. 0
	// means 1.
	Workers int
	// ZeroChecksum sends datagrams without a UDP checksum (RFC 7348 section 5
	// allows it), one system call's message each: the kernel segments none
	// without a checksum. Received ones without are taken in any case.
	ZeroChecksum bool
	// SourcePorts is how many source ports flows are spread over, a power of
	// two up to MaxSourcePorts, each a socket. 0 means MaxSourcePorts.
	SourcePorts int
}

// MaxSourcePorts bounds Config.SourcePorts.
const MaxSourcePorts = 64

// Underlay is a UDP port of the host's that all workers share. Open makes it.
//
// Recv and Send are for the worker that they name, all workers at the same
// time. The rest is for control code, from any goroutine.
type Underlay struct {
	local netip.AddrPort
}

// Open opens the sockets. On failure nothing is left open. A port that is
// taken already wraps syscall.EADDRINUSE and says who is likely to have it.
func Open(c Config) (*Underlay, error) { return nil, syscall.ENOSYS }

// Recv returns the datagrams that have arrived, none if there are none; it
// never blocks. They are valid, and the caller's to write to, until the
// worker's next Recv, however many rounds later that is: what doesn't fit a
// batch can wait there. One system call.
//
// It returns about dataplane.PullBytes at most, and up to dataplane.BatchSize.
// more tells that it ended for that reason: another Recv is worth its cost.
func (u *Underlay) Recv(worker int) (in []Datagram, more bool) { return nil, false }

// Send sends the messages, those of one flow in order, and sets Drop of each:
// None, TxQueueFull, TxDown, TxRefused, or ExceedsMTU for a datagram that is
// longer than the device's MTU: nothing is ever fragmented. One system call for
// the messages of one source port. It never blocks.
func (u *Underlay) Send(worker int, msgs []Message) {}

// FD returns the descriptor that becomes readable when Recv has something.
func (u *Underlay) FD(worker int) int { return -1 }

// Local returns the address and port it was opened with; the port that the
// kernel chose where that was 0.
func (u *Underlay) Local() netip.AddrPort { return u.local }

// PathMTU returns the length in bytes of the longest IP packet that the kernel
// thinks reaches dst: the device's MTU, the route's or what an ICMP error has
// said, whichever is least. A forged error can make it as low as 552 (IPv4).
func (u *Underlay) PathMTU(dst netip.Addr) (int, error) { return 0, unix.ENOSYS }

// Lost returns how many datagrams the kernel has dropped since Open because a
// worker's socket was full.
func (u *Underlay) Lost(worker int) uint64 { return 0 }

// Close closes the sockets. No Recv or Send may run or follow.
func (u *Underlay) Close() error { return nil }

var _ = dataplane.None
