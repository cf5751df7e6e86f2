package daemon

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"heddle/dataplane"
)

// What is measured. Names are part of the API: they never change meaning.
var (
	metricPortUp     = desc("port_up", "1 if the port carries frames, 0 if it is down.", "port", "network", "kind")
	metricRxFrames   = desc("port_receive_frames_total", "Frames that came into the switch by the port; a GSO frame is one.", "port", "network")
	metricRxBytes    = desc("port_receive_bytes_total", "Bytes that came into the switch by the port.", "port", "network")
	metricTxFrames   = desc("port_transmit_frames_total", "Frames that left the switch by the port; a GSO frame is one.", "port", "network")
	metricTxBytes    = desc("port_transmit_bytes_total", "Bytes that left the switch by the port.", "port", "network")
	metricPortDrops  = desc("port_drops_total", "Frames that went no further, by reason.", "port", "network", "reason")
	metricDrops      = desc("drops_total", "Frames that went no further, by reason, at all ports that there are or were.", "reason")
	metricMACs       = desc("network_macs", "Entries in the FDB.", "network")
	metricMaxMACs    = desc("network_max_macs", "Bound of the entries in the FDB.", "network")
	metricLearned    = desc("network_macs_learned_total", "Entries made by learning.", "network")
	metricMoves      = desc("network_mac_moves_total", "Entries that went from one port to another.", "network")
	metricFlaps      = desc("network_mac_flaps_total", "Times that a MAC was held down for moving to and fro.", "network")
	metricEvicted    = desc("network_macs_evicted_total", "Entries removed to make room for others.", "network")
	metricRefused    = desc("network_macs_refused_total", "MACs not learnt because there was no room.", "network")
	metricStrays     = desc("stray_frames_total", "Frames of ports that had just left their network.")
	metricWorkers    = desc("workers", "Worker threads.")
	metricRounds     = desc("worker_rounds_total", "Turns of the workers' loops.")
	metricRefusedCli = desc("clients_refused_total", "Connections to the socket that were refused because there were too many.")
	metricUplinkUp   = desc("uplink_up", "1 if the uplink carries frames, 0 if it is down.", "uplink")
	metricUplinkRx   = desc("uplink_receive_bytes_total", "Bytes that came by the uplink.", "uplink")
	metricUplinkTx   = desc("uplink_transmit_bytes_total", "Bytes that left by the uplink.", "uplink")
	metricConns      = desc("nat_connections", "Connections that NAT tracks.")
	metricMaxConns   = desc("nat_max_connections", "Bound of the connections.")
	metricCreated    = desc("nat_connections_created_total", "Connections that began.")
	metricNoConn     = desc("nat_connections_refused_total", "Connections refused for want of room, or by a container's limit.")
	metricCaptures   = desc("captures", "Captures that run.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("heddle_"+name, help, labels, nil)
}

// collector reads the counters when Prometheus asks; nothing is kept twice.
type collector struct{ d *Daemon }

// Describe sends nothing: which ports there are changes (an unchecked
// collector, see prometheus.Collector).
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends every counter as it stands.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	d := c.d
	send := func(desc *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, kind, v, labels...)
	}
	count := func(desc *prometheus.Desc, n uint64, labels ...string) {
		send(desc, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(desc *prometheus.Desc, n int, labels ...string) {
		send(desc, prometheus.GaugeValue, float64(n), labels...)
	}
	gauge(metricWorkers, d.engine.Workers())
	count(metricRounds, d.engine.Rounds())
	count(metricStrays, d.sw.Strays())
	count(metricRefusedCli, d.listener.refused.Load())
	gauge(metricCaptures, len(d.captures))

	conns := d.nat.Stats()
	gauge(metricConns, conns.Conns)
	gauge(metricMaxConns, conns.MaxConns)
	count(metricCreated, conns.Created)
	count(metricNoConn, conns.Refused)

	d.sample("")
	d.mu.RLock()
	defer d.mu.RUnlock()
	d.collectTunnels(ch)
	for name, u := range d.uplinks {
		t, up := u.totals(), 1
		if u.trouble() != nil {
			up = 0
		}
		gauge(metricUplinkUp, up, name)
		count(metricUplinkRx, t.RxBytes, name)
		count(metricUplinkTx, t.TxBytes, name)
	}
	for name, p := range d.ports {
		network, t, up := p.spec.Network, p.totals(), 0
		if p.attached {
			up = 1
		}
		gauge(metricPortUp, up, name, network, p.spec.WithDefaults().Kind)
		count(metricRxFrames, t.RxFrames, name, network)
		count(metricRxBytes, t.RxBytes, name, network)
		count(metricTxFrames, t.TxFrames, name, network)
		count(metricTxBytes, t.TxBytes, name, network)
		for i, n := range t.Drops {
			if n > 0 {
				count(metricPortDrops, n, name, network, dataplane.Drop(i).String())
			}
		}
	}
	sum := d.sum()
	for i := dataplane.None + 1; i < dataplane.DropCount; i++ {
		count(metricDrops, sum.Drops[i], i.String())
	}
	for name, n := range d.networks {
		s := n.live.Stats()
		gauge(metricMACs, s.MACs-n.hidden(), name)
		gauge(metricMaxMACs, s.MaxMACs, name)
		count(metricLearned, s.Learned, name)
		count(metricMoves, s.Moves, name)
		count(metricFlaps, s.Held, name)
		count(metricEvicted, s.Evicted, name)
		count(metricRefused, s.Refused, name)
	}
}

// newMetricsServer serves /metrics and nothing else.
func (d *Daemon) newMetricsServer() *http.Server {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collector{d}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: headerTimeout}))
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          zap.NewStdLog(d.log.Named("metrics")),
	}
}
