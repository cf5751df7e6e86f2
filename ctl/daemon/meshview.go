package daemon

import (
	"net/http"
	"slices"
	"strings"

	"heddle/ctl/api"
	"heddle/ctl/config"
	"heddle/dataplane"
	"heddle/tunnel/mesh"
)

// tunnelRoutes maps the API's paths of peers and the mesh.
func (d *Daemon) tunnelRoutes(mux *http.ServeMux) {
	d.handle(mux, "GET "+api.PathPeers, handler{what: "peer ls", do: func(*http.Request) (any, error) { return d.Peers(), nil }})
	d.handle(mux, "POST "+api.PathPeers, handler{what: "peer add", status: http.StatusCreated, do: d.postPeer})
	d.handle(mux, "GET "+api.PathPeers+"/{name}", handler{what: "peer show", do: func(r *http.Request) (any, error) {
		return orError(d.Peer(r.PathValue("name")))
	}})
	d.handle(mux, "DELETE "+api.PathPeers+"/{name}", handler{what: "peer rm", do: func(r *http.Request) (any, error) {
		return nil, d.RemovePeer(r.PathValue("name"))
	}})

	d.handle(mux, "GET "+api.PathMesh, handler{what: "mesh status", do: func(*http.Request) (any, error) { return d.Mesh(), nil }})
	d.handle(mux, "POST "+api.PathMesh, handler{what: "mesh join", do: d.postMesh})
	d.handle(mux, "DELETE "+api.PathMesh, handler{what: "mesh leave", do: func(*http.Request) (any, error) { return nil, d.LeaveMesh() }})
	d.handle(mux, "GET "+api.PathMembers, handler{what: "mesh members", do: d.getMembers, params: true})
	d.handle(mux, "GET "+api.PathKeys, handler{what: "mesh key ls", do: func(*http.Request) (any, error) { return d.MeshKeys(), nil }})
	d.handle(mux, "POST "+api.PathKeys, handler{what: "mesh key add", status: http.StatusCreated, do: d.postKey})
	d.handle(mux, "POST "+api.PathKeys+"/{name}"+api.ActionActivate, handler{what: "mesh key activate", do: func(r *http.Request) (any, error) {
		return orError(d.ActivateMeshKey(r.PathValue("name")))
	}})
	d.handle(mux, "DELETE "+api.PathKeys+"/{name}", handler{what: "mesh key retire", do: func(r *http.Request) (any, error) {
		return nil, d.RetireMeshKey(r.PathValue("name"))
	}})
}

func (d *Daemon) postMesh(r *http.Request) (any, error) {
	var spec config.Mesh
	if err := body(r, maxBody, &spec); err != nil {
		return nil, err
	}
	if err := d.JoinMesh(r.Context(), spec); err != nil {
		return nil, err
	}
	return d.Mesh(), nil
}

func (d *Daemon) getMembers(r *http.Request) (any, error) {
	q, err := query(r, "endpoints")
	if err != nil {
		return nil, err
	}
	return d.Members(q["endpoints"] != ""), nil
}

// portName returns the name of a port, or of the remote that a tunnel leads to;
// empty if it is none of both. The caller holds mu.
func (d *Daemon) portName(id dataplane.PortID) string {
	if p := d.ids[id]; p != nil {
		return p.spec.Name
	}
	if r := d.tunnelOf[id]; r != nil {
		return r.name
	}
	return ""
}

// remoteNamed returns the static peer or member of a name, or nil. The caller
// holds mu.
func (d *Daemon) remoteNamed(name string) *remote {
	for _, r := range d.remotes {
		if r.name == name || r.member == name {
			return r
		}
	}
	return nil
}

// meshState returns the state of the mesh on this host. The caller holds mu.
func (d *Daemon) meshState() string {
	switch up, _ := d.countMembers(); up {
	case 0:
		return api.MeshOff
	case 1:
		return api.MeshAlone
	}
	return api.MeshJoined
}

// countMembers returns how many members there are, this host included. The
// caller holds mu.
func (d *Daemon) countMembers() (up, all int) {
	if d.mesh == nil || d.mesh.live == nil {
		return 0, 0
	}
	for _, m := range d.mesh.live.Members() {
		all++
		if m.State == mesh.Alive || m.State == mesh.Suspect {
			up++
		}
	}
	return up, all
}

// Mesh returns this host's membership.
func (d *Daemon) Mesh() api.Mesh {
	d.mu.RLock()
	defer d.mu.RUnlock()
	v := api.Mesh{
		Node: d.opts.Node, State: d.meshState(), Reason: reason(d.meshDown),
		Encrypted: len(d.keys.keys) > 0, Join: append([]string{}, d.meshSpec.Join...),
	}
	if v.State == api.MeshOff {
		return v
	}
	live := d.mesh.live
	self, s := live.Self(), live.Stats()
	v.Listen, v.VTEP = self.Address.String(), self.VTEP.String()
	v.MembersUp, v.Members = d.countMembers()
	v.EndpointsLocal = self.Endpoints
	v.EndpointsRemote = max(s.Endpoints-self.Endpoints, 0)
	for _, n := range s.Refused {
		v.Refused += n
	}
	for k := mesh.KindDelta; k < mesh.KindCount; k++ {
		v.TxMessages += s.Out[k].Count
		v.TxBytes += s.Out[k].Bytes
		v.RxMessages += s.In[k].Count
		v.RxBytes += s.In[k].Bytes
	}
	if v.Reason == "" && d.vtepDown != nil {
		v.Reason = d.vtepDown.Error()
	}
	return v
}

// Members returns the members of the mesh, by name, with what they announce if
// that is wanted.
func (d *Daemon) Members(endpoints bool) []api.Member {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.mesh == nil || d.mesh.live == nil {
		return []api.Member{}
	}
	members := d.mesh.live.Members()
	all := make([]api.Member, 0, len(members))
	for i := range members {
		all = append(all, d.viewMember(&members[i]))
	}
	slices.SortFunc(all, func(a, b api.Member) int { return strings.Compare(a.Name, b.Name) })
	if !endpoints {
		return all
	}
	at := make(map[string]int, len(all))
	for i := range all {
		at[all[i].Name] = i
	}
	names := make(map[uint32]string, len(d.networks))
	for name, n := range d.networks {
		names[n.spec.VNI] = name
	}
	for _, e := range d.mesh.live.Endpoints() {
		i, is := at[e.Owner]
		if !is {
			continue
		}
		v := api.Endpoint{VNI: e.VNI, Network: names[e.VNI], MAC: e.MAC.String(), IPs: []string{}}
		for _, ip := range e.IPs {
			v.IPs = append(v.IPs, ip.String())
		}
		all[i].Endpoints = append(all[i].Endpoints, v)
	}
	return all
}

// memberStates are the states of a member as the API has them.
var memberStates = map[mesh.State]string{
	mesh.Alive: api.StateUp, mesh.Suspect: api.StateSuspect, mesh.Failed: api.StateDown, mesh.Left: api.StateLeft,
}

func (d *Daemon) viewMember(m *mesh.Member) api.Member {
	v := api.Member{
		Name: m.Name, Address: m.Address.String(), VTEP: m.VTEP.String(), State: memberStates[m.State], Self: m.Self,
		Networks: make([]string, 0, len(m.Networks)), RTTSeconds: m.RTT.Seconds(), MACs: m.Endpoints,
	}
	for _, n := range m.Networks {
		v.Networks = append(v.Networks, n.Name)
	}
	slices.Sort(v.Networks)
	r := d.remotes[m.VTEP.Addr()]
	switch {
	case m.State == mesh.Failed:
		v.Reason = "it doesn't answer"
	case m.Self || m.State == mesh.Left:
	case r == nil:
		v.Reason = "its tunnels are being made"
	case r.member != m.Name:
		v.Reason = "its VTEP is that of member " + r.member
	default:
		t := r.totals()
		v.MTU, v.RxFrames, v.TxFrames, v.Reason = r.mtu, t.RxFrames, t.TxFrames, reason(r.trouble())
	}
	return v
}
