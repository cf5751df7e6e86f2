package attach

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Holder is a socket that has a port.
type Holder struct {
	Proto     uint8          // unix.IPPROTO_TCP or IPPROTO_UDP.
	Local     netip.AddrPort // Its address is unspecified if it is bound to all.
	Remote    netip.AddrPort // Invalid unless it is connected.
	Interface int            // What it is bound to; 0 for none.
	// PID and Process are of a process that has it open; 0 and empty if none
	// can be seen.
	PID     int
	Process string

	inode uint32
}

// String tells it as `127.0.0.1:53 (dnsmasq, process 812)`.
func (h Holder) String() string {
	s := h.Local.String()
	if h.Remote.IsValid() {
		s += " in a connection to " + h.Remote.String()
	}
	if h.PID != 0 {
		s += fmt.Sprintf(" (%s, process %d)", h.Process, h.PID)
	}
	return s
}

// Holders returns the sockets of the namespace that have one of the ports, of
// TCP or UDP. Those that linger after a connection (TIME-WAIT) don't count. It
// lists all sockets, and the descriptors of all processes if there is one to
// tell: not for every day.
func (ns *Namespace) Holders(proto uint8, ports PortRange) ([]Holder, error) {
	all, err := in(ns, func() ([]Holder, error) { return holders(proto, ports.contains) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ns, err)
	}
	return all, nil
}

// holders lists those of the thread's namespace.
func holders(proto uint8, want func(port uint16) bool) ([]Holder, error) {
	list := netlink.SocketDiagTCP
	if proto == unix.IPPROTO_UDP {
		list = netlink.SocketDiagUDP
	}
	var found []Holder
	for _, family := range families {
		all, err := dump(func() ([]*netlink.Socket, error) { return list(uint8(family)) })
		if err != nil {
			return nil, fmt.Errorf("list sockets: %w", err)
		}
		for _, s := range all {
			if !want(s.ID.SourcePort) || proto == unix.IPPROTO_TCP && s.State == netlink.TCP_TIME_WAIT {
				continue
			}
			h := Holder{Proto: proto, Interface: int(s.ID.Interface), inode: s.INode}
			h.Local = addrPort(s.ID.Source, s.ID.SourcePort)
			if s.ID.DestinationPort != 0 {
				h.Remote = addrPort(s.ID.Destination, s.ID.DestinationPort)
			}
			found = append(found, h)
		}
	}
	if len(found) > 0 {
		identify(found)
	}
	return found, nil
}

func addrPort(ip []byte, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}

// identify fills in the processes that it can see.
func identify(holders []Holder) {
	byInode := make(map[string][]*Holder)
	for i := range holders {
		if h := &holders[i]; h.inode != 0 {
			name := "socket:[" + strconv.FormatUint(uint64(h.inode), 10) + "]"
			byInode[name] = append(byInode[name], h)
		}
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/[0-9]*")
	if err != nil {
		return // The pattern is good.
	}
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil {
			continue // It has ended, or isn't for us to see.
		}
		for _, h := range byInode[target] {
			if h.PID == 0 {
				h.of(strings.Split(fd, "/")[2])
			}
		}
	}
}

func (h *Holder) of(pid string) {
	name, err := os.ReadFile("/proc/" + pid + "/comm")
	if err != nil {
		return
	}
	h.Process = string(bytes.TrimSpace(name))
	h.PID, _ = strconv.Atoi(pid) // The pattern was of digits.
}

// Spares fails with ErrPortInUse if the host may take, or has taken, a port of
// c.Ports that isn't published: what a change of a Shared has to be asked ahead.
func (ns *Namespace) Spares(c Claim) error {
	if err := ns.Do(c.spares); err != nil {
		return fmt.Errorf("%s: share: %w", ns, err)
	}
	return nil
}

// spares fails if the host may take one of the claim's ports for its own
// connections, or has one: its packets wouldn't reach it any more. Published
// ports don't count: whoever publishes has reserved them.
func (c *Claim) spares() error {
	if err := c.Ports.check(); err != nil || c.Ports == (PortRange{}) {
		return err
	}
	if err := c.sparesEphemeral(); err != nil {
		return err
	}
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		all, err := holders(proto, func(port uint16) bool { return c.Ports.contains(port) && !c.publishes(proto, port) })
		if err != nil {
			return err
		}
		for _, h := range all {
			if c.concerns(h.Local.Addr()) {
				return fmt.Errorf("ports %s: the host uses %s: %w (give the uplink other ports, or end that)", c.Ports, h, ErrPortInUse)
			}
		}
	}
	return nil
}

func (c *Claim) publishes(proto uint8, port uint16) bool {
	for _, p := range c.Published {
		if p.Proto == proto && p.Ports.contains(port) {
			return true
		}
	}
	return false
}

// concerns tells whether what is bound to an address can meet the claim's.
func (c *Claim) concerns(local netip.Addr) bool {
	if local.IsUnspecified() {
		return true
	}
	for _, a := range c.Addresses {
		if a.Unmap() == local {
			return true
		}
	}
	return false
}

// Where the kernel says which ports it gives to the host's connections
// (Documentation/networking/ip-sysctl.rst). They are the namespace's; IPv6
// uses them too.
const (
	localPortRange     = "/proc/sys/net/ipv4/ip_local_port_range"
	localReservedPorts = "/proc/sys/net/ipv4/ip_local_reserved_ports"
)

func (c *Claim) sparesEphemeral() error {
	text, err := os.ReadFile(localPortRange)
	if err != nil {
		return fmt.Errorf("which ports the host's connections take: %w", err)
	}
	var host PortRange
	if _, err := fmt.Sscan(string(text), &host.First, &host.Last); err != nil {
		return fmt.Errorf("%s: %q: %w", localPortRange, text, err)
	}
	reserved, err := reservedPorts()
	if err != nil {
		return err
	}
	for p := max(int(host.First), int(c.Ports.First)); p <= min(int(host.Last), int(c.Ports.Last)); p++ {
		if reserved[p/8]>>(p%8)&1 == 0 {
			return fmt.Errorf("ports %s: the host's own connections take theirs from %s: %w (give the uplink other ports, or: sysctl -w net.ipv4.ip_local_reserved_ports=%s)",
				c.Ports, host, ErrPortInUse, c.Ports)
		}
	}
	return nil
}

func reservedPorts() (*portBits, error) {
	text, err := os.ReadFile(localReservedPorts)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("which ports are reserved: %w", err)
	}
	bits := new(portBits)
	for part := range strings.FieldsFuncSeq(string(text), func(r rune) bool { return r == ',' || r == '\n' }) {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, errA := strconv.ParseUint(first, 10, 16)
		b, errB := strconv.ParseUint(last, 10, 16)
		if err := errors.Join(errA, errB); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", localReservedPorts, part, err)
		}
		bits.set(PortRange{uint16(a), uint16(b)})
	}
	return bits, nil
}
