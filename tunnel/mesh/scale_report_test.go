package mesh

import (
	"fmt"
	"io"
	"math"
	"os/exec"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// writeScaleTable writes a row for each size.
func writeScaleTable(w io.Writer, results []scaled) {
	commit := "unknown"
	if out, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output(); err == nil {
		commit = strings.TrimSpace(string(out))
	}
	fmt.Fprintf(w, `%s. Simulated mesh: in-memory network of 0.5–0.75 ms one way, driven clock, %s %s, commit %s.
Each host announces %d endpoints in 3 networks; gossip is encrypted. bare = memberlist alone with the
same settings, broadcasting as many bytes. Bytes are UDP and TCP payload sent, without headers. Times in seconds.

`, time.Now().UTC().Format("2006-01-02 15:04 MST"), runtime.Version(), runtime.GOARCH, commit, scaleEndpoints)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "hosts\tall start\tone joins\tendpoint told, median\tmost\thost fails\tidle B/s per host\tbare\tB per event and host\tbare\theap KB per host\theap B per endpoint\t")
	for _, r := range results {
		fmt.Fprintf(t, "%d\t%.1f\t%.1f\t%.2f\t%.2f\t%.1f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t\n", r.Hosts, r.Start, r.Join, r.EventMedian, r.EventMost, r.Fail,
			r.Idle, r.BareIdle, r.Event, r.BareEvent, r.Memory/1024, r.EndpointBytes)
	}
	_ = t.Flush() // Into a strings.Builder.
	fmt.Fprintf(w, "\nA delta of one endpoint with one IPv4 address is %d bytes.\n", results[0].Delta)
}

// line is a curve of a panel.
type line struct {
	name, color string
	of          func(scaled) float64
}

// writeScalePlot draws three panels over the number of hosts: times, bytes at
// rest, bytes of an event.
func writeScalePlot(w io.Writer, results []scaled) {
	const wide, high, margin = 300, 200, 60
	panels := []struct {
		title string
		lines []line
	}{
		{"convergence, s", []line{
			{"host fails", "#d55e00", func(r scaled) float64 { return r.Fail }},
			{"all start", "#0072b2", func(r scaled) float64 { return r.Start }},
			{"one joins", "#56b4e9", func(r scaled) float64 { return r.Join }},
			{"endpoint told (most)", "#009e73", func(r scaled) float64 { return r.EventMost }},
		}},
		{"idle, bytes/s per host", []line{
			{"mesh", "#0072b2", func(r scaled) float64 { return r.Idle }},
			{"memberlist alone", "#999999", func(r scaled) float64 { return r.BareIdle }},
		}},
		{"one event, bytes per host", []line{
			{"mesh", "#0072b2", func(r scaled) float64 { return r.Event }},
			{"memberlist alone", "#999999", func(r scaled) float64 { return r.BareEvent }},
		}},
		{"heap, KB per host", []line{
			{"mesh, no endpoints", "#0072b2", func(r scaled) float64 { return r.Memory / 1024 }},
		}},
	}
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">
<rect width="100%%" height="100%%" fill="white"/>
`, len(panels)*(wide+margin)+margin, high+2*margin+30)
	hosts := results[len(results)-1].Hosts
	for i, p := range panels {
		most := 0.0
		for _, r := range results {
			for _, l := range p.lines {
				most = math.Max(most, l.of(r))
			}
		}
		x := func(r scaled) float64 { return float64(wide) * float64(r.Hosts) / float64(hosts) }
		y := func(v float64) float64 { return high * (1 - v/most) }
		fmt.Fprintf(w, `<g transform="translate(%d %d)"><text y="-24" font-weight="bold">%s</text>
<path d="M0 0V%d H%d" fill="none" stroke="#777"/><text x="-6" y="4" text-anchor="end">%.3g</text><text x="-6" y="%d" text-anchor="end">0</text>
`, margin+i*(wide+margin), margin, p.title, high, wide, most, high)
		for _, r := range results {
			fmt.Fprintf(w, `<text x="%.0f" y="%d" text-anchor="middle">%d</text>`, x(r), high+16, r.Hosts)
		}
		for j, l := range p.lines {
			var points []string
			for _, r := range results {
				points = append(points, fmt.Sprintf("%.1f,%.1f", x(r), y(l.of(r))))
			}
			fmt.Fprintf(w, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/><path d="M8 %dh16" stroke="%s" stroke-width="2"/><text x="30" y="%d">%s</text>
`, strings.Join(points, " "), l.color, high+30+14*j, l.color, high+34+14*j, l.name)
		}
		fmt.Fprintln(w, "</g>")
	}
	fmt.Fprintln(w, "</svg>")
}
