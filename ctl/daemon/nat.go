package daemon

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"heddle/ctl/api"
	"heddle/ctl/config"
	"heddle/ctl/proxy"
	"heddle/dataplane/wire"
	"heddle/nat"
)

// natRule is a live masquerade or publication. Daemon.mu guards its fields as
// it does a port's.
type natRule struct {
	id     string
	spec   config.NAT    // With its defaults.
	listen config.Listen // A publication's.
	to     config.Target

	core map[coreRule]nat.RuleID // What it is in NAT: one for each family.
	hits uint64                  // Of those before.
	down error                   // Why it isn't in NAT, or only in part; nil if it is.

	// local makes a publication reachable from the host, and holds its ports
	// there; nil without.
	local     localPort
	held      proxy.Publication
	target    localTarget  // Where local leads.
	home      []netip.Addr // Where local comes before others; its uplink's addresses.
	localDown error        // Why there is none.
	retry     time.Time    // When to try again.
}

// protoNumbers are the protocols that have ports, by the name.
var protoNumbers = map[string]uint8{
	config.ProtoTCP: wire.ProtoTCP, config.ProtoUDP: wire.ProtoUDP, config.ProtoSCTP: wire.ProtoSCTP,
}

// newNATRule reads a spec that has been checked.
func newNATRule(spec config.NAT) (*natRule, error) {
	r := &natRule{id: spec.ID(), spec: spec.WithDefaults(), core: make(map[coreRule]nat.RuleID)}
	if spec.Type != config.TypePublish {
		return r, nil
	}
	var err error
	if r.listen, err = config.ParseListen(spec.Listen); err == nil {
		r.to, err = config.ParseTarget(spec.To)
	}
	return r, err
}

// listensOn tells whether a publication is to be found at an uplink's address.
func (r *natRule) listensOn(a netip.Addr) bool {
	l := r.listen.Addr
	return !l.IsValid() || l == a || l.IsUnspecified() && l.Is4() == a.Is4()
}

// AddNAT makes a masquerade or a publication, whole or not at all.
func (d *Daemon) AddNAT(spec config.NAT) error {
	d.change.Lock()
	defer d.change.Unlock()
	if err := spec.Validate(); err != nil {
		return err
	}
	if d.uplinks[spec.Uplink] == nil {
		return noUplink(spec.Uplink)
	}
	if spec.Type == config.TypeMasquerade && d.networks[spec.Network] == nil {
		return noNetwork(spec.Network)
	}
	if was := d.nats[spec.ID()]; was != nil {
		why := fail(http.StatusConflict, "network %s has a masquerade already, by uplink %s (%s)", was.spec.Network, was.spec.Uplink, was.id)
		if was.spec.Type == config.TypePublish {
			why = fail(http.StatusConflict, "%s is published on uplink %s already, to %s (%s)", was.spec.Listen, was.spec.Uplink, was.spec.To, was.id)
		}
		return why.withHint("change it with swctl apply, or remove it first: swctl nat rm %s", was.id)
	}
	if err := d.validateWith(config.Config{NAT: []config.NAT{spec}}); err != nil {
		return err
	}
	if err := d.makeNAT(spec, failWhole); err != nil {
		return err
	}
	d.settleClaims()
	d.settleStack(false)
	if err := d.save(); err != nil {
		return errors.Join(err, d.dropNAT(d.nats[spec.ID()]))
	}
	d.note(eventNATAdded, "nat "+spec.ID(), d.nats[spec.ID()].describe())
	return nil
}

// describe says what it does.
func (r *natRule) describe() string {
	if r.spec.Type == config.TypePublish {
		return fmt.Sprintf("publish %s of uplink %s to %s", r.spec.Listen, r.spec.Uplink, r.spec.To)
	}
	return fmt.Sprintf("masquerade network %s by uplink %s", r.spec.Network, r.spec.Uplink)
}

// RemoveNAT removes a masquerade or publication, and ends its connections.
func (d *Daemon) RemoveNAT(id string) error {
	d.change.Lock()
	defer d.change.Unlock()
	r := d.nats[id]
	if r == nil {
		return noNAT(id)
	}
	c := d.export()
	c.NAT = slices.DeleteFunc(c.NAT, func(o config.NAT) bool { return o.ID() == id })
	if err := d.state.save(c); err != nil {
		return err
	}
	err := d.dropNAT(r)
	d.note(eventNATRemoved, "nat "+id, r.describe())
	return err
}

func noNAT(id string) *failure {
	return fail(http.StatusNotFound, "there is no NAT %s", printable(id)).withHint("swctl nat ls lists them")
}

// unused fails if a rule uses what is to go.
func (d *Daemon) unused(uses func(*natRule) bool) error {
	var by []string
	for id, r := range d.nats {
		if uses(r) {
			by = append(by, id)
		}
	}
	if len(by) == 0 {
		return nil
	}
	slices.Sort(by)
	return fail(http.StatusConflict, "NAT uses it: %s", d.nats[by[0]].describe()).
		withHint("remove that first: swctl nat rm %s", by[0])
}

// leadsTo tells whether a rule needs a network.
func (d *Daemon) leadsTo(r *natRule, network string) bool {
	if r.spec.Type == config.TypeMasquerade {
		return r.spec.Network == network
	}
	n, _ := d.destination(r)
	return n != nil && n.spec.Name == network
}

// makeNAT makes a rule that has been checked; the others stay as they are, as
// there may be thousands. The caller holds change, and settles the claims.
func (d *Daemon) makeNAT(spec config.NAT, on onFailure) error {
	r, err := newNATRule(spec)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.nats[r.id] = r
	d.mu.Unlock()
	d.settleListener(r)
	d.settleRule(r)
	if on != failWhole || r.down == nil && r.localDown == nil {
		return nil
	}
	why := fail(http.StatusConflict, "%w", errors.Join(r.localDown, r.down))
	return errors.Join(why, d.dropNAT(r))
}

// dropNAT ends a rule. The caller holds change.
func (d *Daemon) dropNAT(r *natRule) error {
	d.mu.Lock()
	delete(d.nats, r.id)
	d.mu.Unlock()
	for k := range r.core {
		d.removeRule(r, k)
	}
	err := d.closeLocal(r)
	d.settleClaims()
	d.settleStack(false)
	return err
}

// natOf returns the publications that name a port.
func (d *Daemon) natOf(port string) (rules []*natRule) {
	for _, r := range d.nats {
		if r.to.Port == port && port != "" {
			rules = append(rules, r)
		}
	}
	return rules
}

// NATs returns all masquerades and publications.
func (d *Daemon) NATs() []api.NAT {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make([]api.NAT, 0, len(d.nats))
	for _, r := range d.nats {
		all = append(all, d.viewNAT(r))
	}
	slices.SortFunc(all, func(a, b api.NAT) int {
		return strings.Compare(a.Type+a.Network+a.Uplink+a.Listen+a.ID, b.Type+b.Network+b.Uplink+b.Listen+b.ID)
	})
	return all
}

// NAT returns one of them.
func (d *Daemon) NAT(id string) (api.NAT, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	r := d.nats[id]
	if r == nil {
		return api.NAT{}, noNAT(id)
	}
	return d.viewNAT(r), nil
}

func (d *Daemon) viewNAT(r *natRule) api.NAT {
	s := r.spec
	v := api.NAT{
		ID: r.id, Type: s.Type, State: api.StateUp, Network: s.Network, Uplink: s.Uplink,
		Mapping: s.Mapping, Filtering: s.Filtering, IPv6: s.IPv6, Listen: s.Listen, To: s.To, Hits: r.hits,
	}
	for k, id := range r.core {
		v.Hits += d.nat.Hits(id)
		if k.proto != 0 {
			v.ToAddresses = append(v.ToAddresses, config.Target{Addr: k.to, Ports: config.PortRange(k.toPorts)}.String())
		}
	}
	slices.Sort(v.ToAddresses)
	if r.local != nil {
		v.Hits += r.local.Stats().Sessions
	}
	if n, _ := d.destination(r); n != nil {
		v.Network = n.spec.Name
	}
	if why := d.whyDown(r); why != nil {
		v.State, v.Reason = api.StateDown, why.Error()
	}
	return v
}

// whyDown returns why a rule carries nothing, or not all that it should.
func (d *Daemon) whyDown(r *natRule) error {
	if u := d.uplinks[r.spec.Uplink]; u != nil && u.trouble() != nil {
		return fmt.Errorf("uplink %s is down: %w", u.spec.Name, u.trouble())
	}
	if p := d.ports[r.to.Port]; p != nil && !p.attached {
		return fmt.Errorf("port %s is down: %w", p.spec.Name, p.down)
	}
	if r.localDown != nil {
		return r.localDown
	}
	return r.down
}

func (d *Daemon) postNAT(r *http.Request) (any, error) {
	var spec config.NAT
	if err := body(r, maxBody, &spec); err != nil {
		return nil, err
	}
	if err := d.AddNAT(spec); err != nil {
		return nil, err
	}
	return orError(d.NAT(spec.ID()))
}
