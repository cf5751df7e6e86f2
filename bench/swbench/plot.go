package main

import (
	"fmt"
	"html"
	"io"
	"strconv"
	"strings"
)

// The plot's measures, in pixels.
const (
	panelWidth   = 360
	barHeight    = 18
	barGap       = 6
	labelWidth   = 96
	valueWidth   = 110
	panelMargin  = 16
	titleHeight  = 26
	panelsAcross = 3
)

// barColors are told apart also by who doesn't see colours well (Okabe and
// Ito's palette).
var barColors = map[string]string{
	"bridge": "#999999", "swd-tap": "#0072b2", "swd-veth": "#56b4e9", "ovs": "#e69f00",
	"masquerade": "#999999", swdOwn: "#0072b2", swdShared: "#56b4e9",
	"vxlan": "#999999", swdVXLANTAP: "#0072b2", swdVXLANVeth: "#56b4e9", "ovs-vxlan": "#e69f00",
}

// bases are what the others' bars are given as multiples of.
var bases = map[table]string{switching: "bridge", translating: "masquerade", tunnelling: "vxlan"}

// writePlot draws a panel for each figure: a bar for each contender's median,
// a line from its least to its most.
func writePlot(w io.Writer, r *Result) error {
	var panels []string
	tallest := 0
	for _, m := range r.Figures {
		tallest = max(tallest, len(m.By))
	}
	height := titleHeight + tallest*(barHeight+barGap) + panelMargin
	for i, m := range r.Figures {
		x := panelMargin + i%panelsAcross*(panelWidth+panelMargin)
		y := 2*titleHeight + i/panelsAcross*height
		panels = append(panels, fmt.Sprintf(`<g transform="translate(%d %d)">%s</g>`, x, y, panel(m)))
	}
	down := (len(panels) + panelsAcross - 1) / panelsAcross
	width := panelMargin + panelsAcross*(panelWidth+panelMargin)
	title := fmt.Sprintf("%s, %d CPUs, Linux %s, commit %s, %s: medians of %d runs, least to most",
		r.Machine.CPU, r.Machine.CPUs, r.Machine.Kernel, r.Machine.Commit, r.Started.Format("2006-01-02"), r.Options.Runs)
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">
<rect width="100%%" height="100%%" fill="white"/>
<text x="%d" y="24" font-size="14">%s</text>
%s
</svg>
`, width, 2*titleHeight+down*height, panelMargin, html.EscapeString(title), strings.Join(panels, "\n"))
	return err
}

func panel(m *Measured) string {
	const room = panelWidth - labelWidth - valueWidth
	most := 0.0
	for _, s := range m.By {
		most = max(most, s.Max)
	}
	if most == 0 {
		most = 1
	}
	better := "more is better"
	if m.Lower {
		better = "less is better"
	}
	name := m.Name
	if m.Unit != "" {
		name += ", " + m.Unit
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<text y="14" font-weight="bold">%s</text><text x="%d" y="14" text-anchor="end" fill="#777">%s</text>`,
		html.EscapeString(name), panelWidth, better)
	for i, column := range m.order() {
		s := m.By[column]
		y := titleHeight + i*(barHeight+barGap)
		mid := y + barHeight/2
		scale := func(v float64) string { return strconv.FormatFloat(labelWidth+v/most*room, 'f', 1, 64) }
		color, ok := barColors[column]
		if !ok {
			color = "#009e73"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, labelWidth-6, mid+4, html.EscapeString(column))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`,
			labelWidth, y, s.Median/most*room, barHeight, color)
		fmt.Fprintf(&b, `<line x1="%s" x2="%s" y1="%d" y2="%d" stroke="black"/>`, scale(s.Min), scale(s.Max), mid, mid)
		value := strconv.FormatFloat(s.Median, 'f', m.Digits, 64)
		if base := m.By[bases[m.Table]]; base != nil && base.Median > 0 && column != bases[m.Table] {
			value += fmt.Sprintf("  (%.2f×)", s.Median/base.Median)
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text>`, labelWidth+room+8, mid+4, value)
	}
	return b.String()
}
