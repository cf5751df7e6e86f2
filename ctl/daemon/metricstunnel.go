package daemon

import (
	"github.com/prometheus/client_golang/prometheus"

	"heddle/dataplane"
	"heddle/tunnel/mesh"
)

// What is measured of tunnels and the mesh. Names are part of the API: they
// never change meaning.
var (
	metricPeerUp       = desc("peer_up", "1 if frames get to the static peer or member of the mesh, 0 if it is down.", "peer")
	metricPeerMTU      = desc("peer_path_mtu_bytes", "Longest IP packet that the path to it takes.", "peer")
	metricPeerRxFrames = desc("peer_receive_frames_total", "Frames that came from it into the switch; a GSO frame is one.", "peer")
	metricPeerRxBytes  = desc("peer_receive_bytes_total", "Bytes that came from it into the switch, without outer headers.", "peer")
	metricPeerTxFrames = desc("peer_transmit_frames_total", "Frames that went to it; a GSO frame is one.", "peer")
	metricPeerTxBytes  = desc("peer_transmit_bytes_total", "Bytes that went to it, without outer headers.", "peer")
	metricPeerDrops    = desc("peer_drops_total", "Frames to or from it that went no further, by reason.", "peer", "reason")
	metricAnswered     = desc("tunnel_requests_answered_total", "ARP and ND requests that were answered here for a station behind a tunnel.")
	metricSuppressed   = desc("tunnel_requests_suppressed_total", "ARP and ND requests that were left out of a tunnel because the answer is known.")
	metricTooBig       = desc("tunnel_too_big_total", "Senders that were told that a packet is too long for the path.")
	metricClamped      = desc("tunnel_clamped_total", "SYNs whose MSS was lowered to what the path takes.")
	metricAnnounced    = desc("tunnel_announced_addresses", "IP addresses of stations that members announce.")
	metricMisplaced    = desc("tunnel_announced_refused_total", "Stations that members announce and that found no room.")
	metricMembers      = desc("mesh_members", "Members that are known, by state.", "state")
	metricRTT          = desc("mesh_member_rtt_seconds", "Round trip of the newest probe of a member.", "member")
	metricLocalMACs    = desc("mesh_endpoints_local", "Stations that this host announces.")
	metricRemoteMACs   = desc("mesh_endpoints_remote", "Stations that other members announce.")
	metricQueued       = desc("mesh_queued_messages", "Messages that wait to be gossiped.")
	metricMessages     = desc("mesh_message_bytes", "Messages by size, direction and kind; packet and stream are what is on the wire, the others what they carry.", "direction", "kind")
	metricMeshRefused  = desc("mesh_refused_total", "What came from the network and wasn't taken, by reason.", "reason")
	metricGaps         = desc("mesh_gaps_total", "Times that a change was missing and asked for.")
	metricRepairs      = desc("mesh_repairs_total", "Times that another member turned out to know more.")
	metricRejoins      = desc("mesh_rejoins_total", "Times that an address was tried at which nobody is.")
	metricMeshMoves    = desc("mesh_moves_total", "Stations that went from one member to another.")
)

// collectTunnels sends the counters of tunnels and the mesh. The caller holds
// mu.
func (d *Daemon) collectTunnels(ch chan<- prometheus.Metric) {
	send := func(desc *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, kind, v, labels...)
	}
	count := func(desc *prometheus.Desc, n uint64, labels ...string) {
		send(desc, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(desc *prometheus.Desc, n int, labels ...string) {
		send(desc, prometheus.GaugeValue, float64(n), labels...)
	}
	for _, r := range d.remotes {
		t, up := r.totals(), 1
		if r.trouble() != nil {
			up = 0
		}
		gauge(metricPeerUp, up, r.name)
		gauge(metricPeerMTU, r.mtu, r.name)
		count(metricPeerRxFrames, t.RxFrames, r.name)
		count(metricPeerRxBytes, t.RxBytes, r.name)
		count(metricPeerTxFrames, t.TxFrames, r.name)
		count(metricPeerTxBytes, t.TxBytes, r.name)
		for i, n := range t.Drops {
			if n > 0 {
				count(metricPeerDrops, n, r.name, dataplane.Drop(i).String())
			}
		}
	}
	count(metricMisplaced, d.misplaced.Load())
	if d.vtep != nil {
		s := d.vtep.live.Stats()
		count(metricAnswered, s.Answered)
		count(metricSuppressed, s.Suppressed)
		count(metricTooBig, s.TooBig)
		count(metricClamped, s.Clamped)
		gauge(metricAnnounced, s.Announced)
	}
	if d.mesh == nil || d.mesh.live == nil {
		return
	}
	s, states, local := d.mesh.live.Stats(), make(map[string]int), 0
	for _, m := range d.mesh.live.Members() {
		states[memberStates[m.State]]++
		switch {
		case m.Self:
			local = m.Endpoints
		case m.RTT > 0:
			send(metricRTT, prometheus.GaugeValue, m.RTT.Seconds(), m.Name)
		}
	}
	for _, state := range memberStates {
		gauge(metricMembers, states[state], state)
	}
	gauge(metricLocalMACs, local)
	gauge(metricRemoteMACs, max(s.Endpoints-local, 0))
	gauge(metricQueued, s.Queued)
	for k := range mesh.KindCount {
		ch <- sizes(&s.In[k], "in", k)
		ch <- sizes(&s.Out[k], "out", k)
	}
	for r := range mesh.RefusalCount {
		count(metricMeshRefused, s.Refused[r], r.String())
	}
	count(metricGaps, s.Gaps)
	count(metricRepairs, s.Repairs)
	count(metricRejoins, s.Rejoins)
	count(metricMeshMoves, s.Moves)
}

// sizes is the messages of a kind as a histogram.
func sizes(s *mesh.Sizes, direction string, k mesh.Kind) prometheus.Metric {
	buckets, sum := make(map[float64]uint64, len(mesh.SizeBounds)), uint64(0)
	for i, bound := range mesh.SizeBounds {
		sum += s.Buckets[i]
		buckets[float64(bound)] = sum
	}
	return prometheus.MustNewConstHistogram(metricMessages, s.Count, float64(s.Bytes), buckets, direction, k.String())
}
