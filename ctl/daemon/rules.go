package daemon

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"heddle/ctl/attach"
	"heddle/ctl/config"
	"heddle/ctl/proxy"
	"heddle/nat"
)

// coreRule is a rule as NAT has it.
type coreRule struct {
	gateway *nat.Gateway
	uplink  *nat.Uplink

	dependent, open, route6 bool // A masquerade's.

	// These are a publication's.
	proto   uint8 // 0 is a masquerade.
	listen  netip.Addr
	ports   nat.PortRange
	to      netip.Addr
	toPorts nat.PortRange
}

// settleNAT makes gateways, rules and what goes with them what the specs say.
// The caller holds change.
func (d *Daemon) settleNAT() {
	d.settleGateways()
	d.settleRules()
	d.settleListeners()
}

// settleRules makes NAT's rules what the specs ask for, as far as gateways and
// uplinks are there. The caller holds change.
func (d *Daemon) settleRules() {
	all := slices.SortedFunc(maps.Values(d.nats), func(a, b *natRule) int { return strings.Compare(a.id, b.id) })
	for _, r := range all {
		d.retractRule(r)
	}
	for _, r := range all {
		d.settleRule(r)
	}
	d.settleClaims()
	d.settleStack(false)
}

// retractRule takes from NAT what a rule is no more.
func (d *Daemon) retractRule(r *natRule) {
	want, _ := d.coreRules(r)
	for k := range r.core {
		if !slices.Contains(want, k) {
			d.removeRule(r, k)
		}
	}
}

// settleRule gives NAT what a rule is to be there, and notes why it isn't all
// that it should.
func (d *Daemon) settleRule(r *natRule) {
	want, why := d.coreRules(r)
	for _, k := range want {
		if _, is := r.core[k]; is {
			continue
		}
		if err := d.addRule(r, k); err != nil && why == nil {
			why = err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r.down = why
}

// addRule gives NAT a rule.
func (d *Daemon) addRule(r *natRule, k coreRule) error {
	var id nat.RuleID
	var err error
	if k.proto == 0 {
		id, err = d.nat.AddMasquerade(nat.MasqueradeConfig{
			Name: r.id, Gateway: k.gateway, Uplink: k.uplink,
			DependentMapping: k.dependent, OpenFiltering: k.open, RouteIPv6: k.route6,
		})
	} else {
		id, err = d.nat.Publish(nat.PublicationConfig{
			Name: r.id, Uplink: k.uplink, Proto: k.proto, Listen: k.listen, Ports: k.ports,
			Gateway: k.gateway, To: k.to, ToPorts: k.toPorts,
		})
	}
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r.core[k] = id
	return nil
}

// removeRule takes a rule of NAT's away, and with it its connections.
func (d *Daemon) removeRule(r *natRule, k coreRule) {
	id := r.core[k]
	hits := d.nat.Hits(id)
	if err := d.nat.RemoveRule(id); err != nil {
		d.log.Error("the end of a rule", zap.String("nat", r.id), zap.Error(err))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r.hits += hits
	delete(r.core, k)
}

// removeCore takes away the rules of NAT's that which chooses.
func (d *Daemon) removeCore(which func(coreRule) bool) {
	for _, r := range d.nats {
		for k := range r.core {
			if which(k) {
				d.removeRule(r, k)
			}
		}
	}
}

// coreRules returns what a rule is to be in NAT, and why it isn't all that it
// is asked to be.
func (d *Daemon) coreRules(r *natRule) (rules []coreRule, why error) {
	u := d.uplinks[r.spec.Uplink]
	if u == nil || u.live == nil {
		return nil, fmt.Errorf("uplink %s isn't there yet", r.spec.Uplink)
	}
	n, addrs := d.destination(r)
	if r.spec.Type == config.TypeMasquerade {
		n = d.networks[r.spec.Network]
	}
	switch {
	case n == nil:
		return nil, fmt.Errorf("there is no network with %s", r.spec.To)
	case n.gateway == nil:
		return nil, n.noGateway
	case r.spec.Type == config.TypeMasquerade:
		return []coreRule{{
			gateway: n.gateway.live, uplink: u.live,
			dependent: r.spec.Mapping == config.AddressAndPortDependent,
			open:      r.spec.Filtering == config.EndpointIndependent,
			route6:    r.spec.IPv6 == config.IPv6Route,
		}}, nil
	}
	listen := r.listen.Addr
	if r.listen.IsAny() {
		listen = netip.Addr{}
	} else if !slices.ContainsFunc(u.live.Config().Addresses, func(a netip.Prefix) bool { return a.Addr() == listen }) {
		return nil, fmt.Errorf("uplink %s doesn't have the address %s now", u.spec.Name, listen)
	}
	for _, a := range addrs {
		if r.listen.Addr.IsValid() && r.listen.Addr.Is4() != a.Is4() {
			continue
		}
		if !slices.ContainsFunc(n.gateway.config.Addresses, func(g netip.Prefix) bool { return g.Masked().Contains(a) }) {
			continue
		}
		if slices.ContainsFunc(rules, func(k coreRule) bool { return k.to.Is4() == a.Is4() }) {
			continue // The first of a family is the one.
		}
		rules = append(rules, coreRule{
			gateway: n.gateway.live, uplink: u.live, proto: protoNumbers[r.listen.Proto],
			listen: listen, ports: nat.PortRange(r.listen.Ports), to: a, toPorts: nat.PortRange(r.to.Ports),
		})
	}
	if len(rules) == 0 {
		why = fmt.Errorf("%s has no address that the gateway of network %s reaches", r.spec.To, n.spec.Name)
	}
	return rules, why
}

// destination returns the network that a publication leads to, and the
// addresses there; nil for none.
func (d *Daemon) destination(r *natRule) (*network, []netip.Addr) {
	if r.spec.Type != config.TypePublish {
		return nil, nil
	}
	if r.to.Port != "" {
		p := d.ports[r.to.Port]
		if p == nil {
			return nil, nil
		}
		var addrs []netip.Addr
		for _, s := range p.spec.IPs {
			if ip, err := config.ParseIP(s); err == nil {
				addrs = append(addrs, ip.Addr())
			}
		}
		return d.networks[p.spec.Network], addrs
	}
	var found *network
	for _, n := range d.networks {
		in := slices.ContainsFunc(n.spec.Subnets, func(s netip.Prefix) bool { return s.Contains(r.to.Addr) })
		if in && (found == nil || len(found.spec.Gateways) == 0) {
			found = n
		}
	}
	return found, []netip.Addr{r.to.Addr}
}

// localTarget is where a publication leads on this host, to be compared.
type localTarget struct {
	ns    *attach.Namespace
	addr  netip.Addr
	first uint16
}

// settleListeners makes the host hold what is published, and lead it where it is
// to go. What a shared uplink publishes, the host must not use; what an own one
// publishes is the host's programs' at the loopback addresses, unless one of them
// has the port: the uplink's addresses are none of the host's. The caller holds
// change.
func (d *Daemon) settleListeners() {
	for _, r := range d.nats {
		d.settleListener(r)
	}
}

// settleListener is settleListeners for one rule.
func (d *Daemon) settleListener(r *natRule) {
	u := d.uplinks[r.spec.Uplink]
	if r.spec.Type != config.TypePublish || u == nil || !u.shared() && !r.listen.IsAny() {
		d.closeListener(r)
		return
	}
	p := r.publication(u.shared())
	if r.local != nil && !slices.Equal(r.held.Addrs, p.Addrs) {
		d.closeListener(r)
	}
	if r.local == nil {
		if time.Now().Before(r.retry) {
			return
		}
		l, err := d.host.publish(p)
		d.mu.Lock()
		r.local, r.localDown, r.held, r.target = l, err, p, localTarget{}
		if !u.shared() {
			r.localDown = nil
		}
		d.mu.Unlock()
		if err != nil {
			r.retry = time.Now().Add(longestRetry)
			return
		}
	}
	if u.live != nil {
		var home []netip.Addr
		for _, a := range u.live.Config().Addresses {
			home = append(home, a.Addr())
		}
		if !slices.Equal(home, r.home) {
			r.home = home
			r.local.SetHome(home)
		}
	}
	if t := d.localTarget(r); t != r.target {
		r.target = t
		if t == (localTarget{}) {
			r.local.SetTarget(nil)
		} else {
			r.local.SetTarget(&proxy.Target{Namespace: t.ns, Addr: t.addr, First: t.first})
		}
		r.local.Flush()
	}
}

// closeListener is closeLocal where nobody waits for the outcome.
func (d *Daemon) closeListener(r *natRule) {
	if err := d.closeLocal(r); err != nil {
		d.log.Warn("a published port on the host", zap.String("nat", r.id), zap.Error(err))
	}
}

// publication is what the host is to hold for a rule on an uplink that it
// shares, or doesn't.
func (r *natRule) publication(shared bool) proxy.Publication {
	p := proxy.Publication{Proto: protoNumbers[r.listen.Proto], Ports: attach.PortRange(r.listen.Ports)}
	if !shared {
		for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
			if r.listensOn(a) {
				p.Addrs = append(p.Addrs, a)
			}
		}
		return p
	}
	if r.listen.Addr.IsValid() && r.listen.Addr != netip.IPv6Unspecified() {
		p.Addrs = []netip.Addr{r.listen.Addr}
	}
	return p
}

// localTarget returns where what the host's programs send to a publication is
// to go: into the namespace of the port that has the address.
func (d *Daemon) localTarget(r *natRule) localTarget {
	n, addrs := d.destination(r)
	if n == nil {
		return localTarget{}
	}
	for _, a := range addrs {
		p := d.portWith(n.spec.Name, a)
		if p == nil || p.dev == nil || p.dev.namespace() == nil {
			continue
		}
		return localTarget{p.dev.namespace(), a, r.to.Ports.First}
	}
	return localTarget{}
}

// closeLocal gives the host its ports back.
func (d *Daemon) closeLocal(r *natRule) error {
	l := r.local
	d.mu.Lock()
	if l != nil {
		r.hits += l.Stats().Sessions
	}
	r.local, r.target, r.home, r.localDown = nil, localTarget{}, nil, nil
	d.mu.Unlock()
	if l == nil {
		return nil
	}
	return l.Close()
}

// setLimits makes NAT's lifetimes and limits what is asked for.
func (d *Daemon) setLimits(s config.NATSettings) error {
	err := d.nat.SetLimits(nat.Lifetimes{
		TCPEstablished: time.Duration(s.TCPEstablished), TCPTransitory: time.Duration(s.TCPTransitory), TCPReset: time.Duration(s.TCPReset),
		UDP: time.Duration(s.UDP), UDPOneWay: time.Duration(s.UDPOneWay), ICMP: time.Duration(s.ICMP),
	}, s.MaxContainerConns, s.MaxContainerPorts)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settings = s
	return nil
}

// stopNAT gives back what NAT holds on the host. The workers have stopped.
func (d *Daemon) stopNAT() error {
	var errs []error
	for _, r := range d.nats {
		errs = append(errs, d.closeLocal(r))
	}
	if d.stack.dev != nil {
		errs = append(errs, d.stack.dev.release())
		d.stack = stack{}
	}
	for _, u := range d.uplinks {
		errs = append(errs, u.watch.Close())
		u.done.Wait()
		if u.dev != nil {
			errs = append(errs, u.dev.release())
			u.dev = nil
		}
	}
	return errors.Join(errs...)
}
