package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// When lost addresses are tried. A mesh of n live members tries about one
// every second, whatever n: one that answers is enough to join both halves.
const (
	rejoinEvery   = 3 * time.Second // Of a member, times n/10.
	rejoinTries   = 2               // Addresses each time.
	rejoinAgain   = 1500 * time.Millisecond
	seedPause     = time.Minute // After a seed has answered whose address is no member's.
	maxSeeds      = 1024
	joinDials     = 8 // Addresses that a Join tries at one time.
	exchangeTries = 3 // Of one that hangs up.
)

// seed is an address at which a member was, or should be.
type seed struct {
	host     string           // HOST[:PORT], as it was given.
	resolved []netip.AddrPort // What it meant last.
	next     time.Time        // Not to be tried before.
}

// addSeed remembers an address, for as long as there is room.
func (m *Mesh) addSeed(host string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.seeds) < maxSeeds && !slices.ContainsFunc(m.seeds, func(s *seed) bool { return s.host == host }) {
		m.seeds = append(m.seeds, &seed{host: host})
	}
}

// Join contacts the members at the addresses (HOST[:PORT]) and joins theirs
// and this mesh into one. It returns how many answered. It fails if none did,
// and with ErrNameTaken if a live member has this host's name; then the mesh
// has been left. Addresses of a Join that succeeded are tried again in the
// background when no member is there.
func (m *Mesh) Join(ctx context.Context, addresses []string) (int, error) {
	if len(addresses) == 0 {
		return 0, errors.New("join mesh: no address given")
	}
	m.mu.Lock()
	closed := m.closed
	m.mu.Unlock()
	if closed {
		return 0, ErrClosed
	}
	type answer struct {
		host string
		err  error
	}
	answers := make(chan answer, len(addresses)) // Room for all: who has given up waiting holds up nobody.
	slots := make(chan struct{}, joinDials)
	for _, host := range addresses {
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			answers <- answer{host, m.contact(ctx, host)}
		}()
	}
	joined := 0
	var failures []error
	for range addresses {
		select {
		case <-ctx.Done():
			return joined, fmt.Errorf("join mesh: %w", ctx.Err())
		case a := <-answers:
			if a.err == nil {
				joined++
				m.addSeed(a.host)
			} else {
				failures = append(failures, fmt.Errorf("join mesh at %s: %w", a.host, a.err))
			}
		}
	}
	if joined == 0 {
		return 0, errors.Join(failures...)
	}
	if err := m.settle(); err != nil {
		return 0, fmt.Errorf("join mesh: %w", err)
	}
	return joined, nil
}

// contact exchanges states with whoever is at an address.
func (m *Mesh) contact(ctx context.Context, host string) error {
	addrs, err := resolve(ctx, host)
	if err != nil {
		return err
	}
	err = errSelf
	for _, a := range addrs {
		if a == m.address {
			continue
		}
		if err = m.exchange(ctx, a); err != nil {
			continue
		}
		m.mu.Lock()
		m.name.dialled = true
		m.mu.Unlock()
		return nil
	}
	return err
}

// exchange exchanges states with one address. Who hangs up may just be asked
// by too many at one time: then it is tried again.
func (m *Mesh) exchange(ctx context.Context, a netip.AddrPort) error {
	for try := 1; ; try++ {
		_, err := m.list.Join([]string{a.String()})
		if err == nil {
			return nil
		}
		err = explain(err)
		if !errors.Is(err, errHungUp) || try == exchangeTries {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100*time.Millisecond + random(300*time.Millisecond)):
		}
	}
}

var errHungUp = errors.New("it hung up: most likely the mesh there has another key than this host, or one where this host has none: give both the same --mesh-key")

var errSelf = errors.New("this is the address of this host itself: give another member's")

// resolve finds the addresses that HOST[:PORT] means.
func resolve(ctx context.Context, host string) ([]netip.AddrPort, error) {
	if a, err := netip.ParseAddrPort(host); err == nil {
		return []netip.AddrPort{unmap(a)}, nil
	}
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a.Unmap(), DefaultPort)}, nil
	}
	name, port := host, DefaultPort
	if h, p, err := net.SplitHostPort(host); err == nil {
		n, err := net.DefaultResolver.LookupPort(ctx, "udp", p)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("%q is no port", p)
		}
		name, port = h, n
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil, fmt.Errorf("%s does not resolve: %w", name, err)
	}
	list := make([]netip.AddrPort, 0, len(ips))
	for _, ip := range ips {
		list = append(list, netip.AddrPortFrom(ip.Unmap(), uint16(port)))
	}
	return list, nil
}

// explain says in a user's words why memberlist could not join.
func explain(err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "delegate protocol version"), strings.Contains(text, "protocol version"):
		return errors.New("it speaks another version of the mesh's protocol: run the same version of swd on both hosts")
	case strings.Contains(text, "remote state is not encrypted"):
		return errors.New("that mesh has no key, and this host has one: give both the same --mesh-key, or neither")
	case strings.Contains(text, "EOF"), strings.Contains(text, "decrypt"), strings.Contains(text, "is encrypted and encryption is not configured"), strings.Contains(text, "connection reset"), strings.Contains(text, "closed pipe"):
		return errHungUp
	case strings.Contains(text, "connection refused"):
		return errors.New("nobody listens there: is swd running with --mesh-listen?")
	case strings.Contains(text, "timeout"):
		return errors.New("it does not answer: is the way there open for UDP and TCP?")
	}
	_, reason, _ := strings.Cut(text, "failed to join ")
	return errors.New("failed to join " + strings.TrimSpace(reason))
}

// rejoin tries lost addresses until the mesh closes.
func (m *Mesh) rejoin() {
	defer m.workers.Done()
	wait := random(100 * time.Millisecond)
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-time.After(wait):
		}
		hosts, live := m.lost()
		again := m.try(hosts)
		wait = random(2 * rejoinEvery * time.Duration(max(10, live)) / 10)
		if again {
			wait = rejoinAgain
		}
	}
}

// lost picks addresses to try, and says how many members live.
func (m *Mesh) lost() (hosts []string, live int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, 0
	}
	at := map[netip.AddrPort]bool{m.address: true}
	for _, mb := range m.members {
		if mb.current != nil {
			at[mb.current.address] = true
			live++
		}
	}
	now := time.Now()
	for _, s := range m.seeds {
		if now.After(s.next) && !slices.ContainsFunc(s.resolved, func(a netip.AddrPort) bool { return at[a] }) {
			hosts = append(hosts, s.host)
		}
	}
	for _, mb := range m.members {
		if mb.current == nil && mb.state == Failed && mb.address.IsValid() && !at[mb.address] {
			hosts = append(hosts, mb.address.String())
		}
	}
	n := min(len(hosts), rejoinTries)
	for i := range n {
		j := i + random(len(hosts)-i)
		hosts[i], hosts[j] = hosts[j], hosts[i]
	}
	return hosts[:n], live
}

// try contacts addresses and tells whether one answered. Then it is worth
// trying again soon: who was taken for failed refutes it only when it hears of
// it, which is what the first contact is good for.
func (m *Mesh) try(hosts []string) (answered bool) {
	var wait sync.WaitGroup
	results := make([]error, len(hosts))
	for i, host := range hosts {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(m.ctx, rejoinEvery)
			defer cancel()
			m.count.rejoin()
			results[i] = m.contact(ctx, host)
			addrs, _ := resolve(ctx, host) // contact has said if this fails.
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, s := range m.seeds {
				if s.host == host {
					s.resolved = addrs
					if results[i] == nil || errors.Is(results[i], errSelf) {
						s.next = time.Now().Add(seedPause)
					}
				}
			}
		})
	}
	wait.Wait()
	return slices.Contains(results, nil)
}
