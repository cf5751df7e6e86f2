package main

import (
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// The measures of a scale plot's panels, in pixels.
const (
	graphWidth  = 300 // Of the axes' rectangle.
	graphHeight = 190
	graphLeft   = 64 // Room for numbers on the y axis.
	graphTop    = 44 // Room for the title.
	graphBottom = 40 // Room for numbers on the x axis, and its name.
	keyWidth    = 330
	graphsDown  = graphTop + graphHeight + graphBottom
	graphsOver  = graphLeft + graphWidth + keyWidth
	logFrom     = 20 // A y axis whose figures differ by so much is logarithmic.
)

// curveColors are told apart also by who doesn't see colours well (Okabe and
// Ito's palette).
var curveColors = []string{"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9"}

// graph is one panel: curves over the same sizes, of one unit.
type graph struct {
	title, axis string
	sizes       []int
	curves      []*Curve
}

// graphs returns the panels of what was measured, by dimension: those of
// costs first.
func graphs(scaled []*Scaled) [][]graph {
	var rows [][]graph
	for _, s := range scaled {
		var row []graph
		for _, c := range s.Curves {
			if len(c.BySize) == 0 {
				continue
			}
			i := slices.IndexFunc(row, func(g graph) bool { return g.curves[0].Panel == c.Panel })
			if i < 0 {
				row = append(row, graph{title: s.Title + ": " + c.Panel + ", " + c.Unit, axis: s.Axis, sizes: s.Sizes})
				i = len(row) - 1
			}
			row[i].curves = append(row[i].curves, c)
		}
		rows = append(rows, row)
	}
	return rows
}

// writeScalePlot draws a row of panels for each dimension: lines through the
// medians, with bars from the least to the most, over a logarithmic x axis.
func writeScalePlot(w io.Writer, r *Result) error {
	rows := graphs(r.Scale)
	across := 0
	var panels []string
	for y, row := range rows {
		across = max(across, len(row))
		for x, g := range row {
			panels = append(panels, fmt.Sprintf(`<g transform="translate(%d %d)">%s</g>`,
				panelMargin+x*graphsOver, 2*titleHeight+y*graphsDown, g.draw()))
		}
	}
	title := fmt.Sprintf("%s, %d CPUs, Linux %s, commit %s, %s: medians of %d runs, least to most",
		r.Machine.CPU, r.Machine.CPUs, r.Machine.Kernel, r.Machine.Commit, r.Started.Format("2006-01-02"), min(r.Options.Runs, scaleRuns))
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">
<rect width="100%%" height="100%%" fill="white"/>
<text x="%d" y="24" font-size="14">%s</text>
%s
</svg>
`, 2*panelMargin+across*graphsOver, 2*titleHeight+len(rows)*graphsDown+panelMargin, panelMargin, html.EscapeString(title), strings.Join(panels, "\n"))
	return err
}

// draw returns the panel.
func (g *graph) draw() string {
	least, most := math.Inf(1), 0.0
	for _, c := range g.curves {
		for _, s := range c.BySize {
			most = max(most, s.Max)
			if s.Min > 0 {
				least = min(least, s.Min)
			}
		}
	}
	y := newScale(least, most)
	x := func(size int) float64 {
		if len(g.sizes) < 2 {
			return graphLeft + graphWidth/2
		}
		first, last := math.Log(float64(g.sizes[0])), math.Log(float64(g.sizes[len(g.sizes)-1]))
		return graphLeft + 12 + (math.Log(float64(size))-first)/(last-first)*(graphWidth-24)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<text y="14" font-weight="bold">%s</text>`, html.EscapeString(g.title))
	fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#999"/>`, graphLeft, graphTop-14, graphWidth, graphHeight)
	for _, v := range y.ticks() {
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#eee"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`,
			graphLeft, graphLeft+graphWidth, y.at(v), y.at(v), graphLeft-6, y.at(v)+4, label(v))
	}
	for _, size := range g.sizes {
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#999"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`,
			x(size), x(size), graphTop-14+graphHeight, graphTop-10+graphHeight, x(size), graphTop+graphHeight+4, thousands(size))
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle" fill="#777">%s</text>`, graphLeft+graphWidth/2, graphTop+graphHeight+20, html.EscapeString(g.axis))
	for i, c := range g.curves {
		color := curveColors[i%len(curveColors)]
		var points []string
		for _, size := range g.sizes {
			s := c.BySize[size]
			if s == nil {
				continue
			}
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(size), y.at(s.Median)))
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/><line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="%s"/>`,
				x(size), y.at(s.Median), color, x(size), x(size), y.at(s.Min), y.at(s.Max), color)
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"/>`, strings.Join(points, " "), color)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="12" height="4" fill="%s"/><text x="%d" y="%d" font-size="11">%s</text>`,
			graphLeft+graphWidth+10, graphTop+18*i, color, graphLeft+graphWidth+28, graphTop+6+18*i, html.EscapeString(c.Name))
	}
	return b.String()
}

// label writes a figure on the y axis.
func label(v float64) string {
	if v >= 1000 && v == math.Trunc(v) {
		return thousands(int(v))
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// scale is a y axis.
type scale struct {
	least, most float64
	log         bool
}

// newScale returns an axis for figures from least to most, which begins at 0
// unless it is logarithmic.
func newScale(least, most float64) scale {
	if most <= 0 {
		return scale{most: 1}
	}
	if most/least >= logFrom {
		return scale{math.Pow(10, math.Floor(math.Log10(least))), math.Pow(10, math.Ceil(math.Log10(most))), true}
	}
	return scale{most: most * 1.05}
}

// at returns where a figure is, in pixels of the panel.
func (s scale) at(v float64) float64 {
	part := v / s.most
	if s.log {
		part = math.Log(max(v, s.least)/s.least) / math.Log(s.most/s.least)
	}
	return graphTop - 14 + graphHeight*(1-part)
}

// ticks returns the figures that the axis shows.
func (s scale) ticks() (ticks []float64) {
	if s.log {
		for v := s.least; v <= s.most*1.001; v *= 10 {
			ticks = append(ticks, v)
		}
		return ticks
	}
	step := math.Pow(10, math.Floor(math.Log10(s.most)))
	for s.most/step < 4 {
		step /= 2
	}
	for v := 0.0; v <= s.most; v += step {
		ticks = append(ticks, v)
	}
	return ticks
}
