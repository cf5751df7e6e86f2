package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Curve is throughput against workers.
type Curve struct {
	Name   string    `json:"name"`
	Model  Model     `json:"model"`
	Frames int       `json:"frames"` // In a batch.
	Rate   []float64 `json:"mpps"`   // By workerCounts, in million frames a second.
	Busy   []float64 `json:"busy"`   // The lock, of the time.
}

// workerCounts is for how many workers the simulation is run.
var workerCounts = []int{1, 2, 4, 8, 12, 16, 24, 32, 48, 64}

// colors are Okabe and Ito's, told apart also by who doesn't see colours well, and
// two greys.
var colors = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442", "#777777", "#bbbbbb"}

// plot draws speed-up against workers, each curve against its own first point.
func plot(curves []Curve, title string) string {
	const left, top, size, legend = 56, 40, 420, 390
	x := func(workers float64) float64 { return left + math.Log2(workers)/6*size }
	y := func(up float64) float64 { return top + size - math.Log2(max(up, 1))/6*size }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">
<rect width="100%%" height="100%%" fill="white"/>
<text x="16" y="24" font-size="14">%s</text>
`, left+size+legend, top+size+48, html.EscapeString(title))
	for n := 1; n <= 64; n *= 2 {
		at := float64(n)
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#ddd"/><line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/>`+"\n",
			x(at), x(at), top, top+size, left, left+size, y(at), y(at))
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%d</text><text x="%d" y="%.1f" text-anchor="end">%d×</text>`+"\n",
			x(at), top+size+18, n, left-8, y(at)+4, n)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">workers</text>`+"\n", left+size/2, top+size+36)
	for i, c := range curves {
		color := colors[i%len(colors)]
		var points []string
		for k, n := range workerCounts {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(float64(n)), y(c.Rate[k]/c.Rate[0])))
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, " "), color)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="12" height="12" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n",
			left+size+16, top+i*20, color, left+size+34, top+10+i*20, html.EscapeString(c.Name))
	}
	b.WriteString("</svg>\n")
	return b.String()
}
