package main

import (
	"fmt"
	"html"
	"strings"
)

// Measures of a plot in pixels.
const (
	plotWidth  = 820
	labelWidth = 210 // left of the bars
	textWidth  = 200 // right of them
	barHeight  = 16
	barGap     = 5
	titleGap   = 26
)

// plotStyle makes a plot readable on light and on dark pages, on which it stands without a background of its own.
const plotStyle = `<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.ours { fill: #1f6feb }
.peer { fill: #9aa4af }
.wins { font-weight: 600; fill: #b35900 }
.spread { stroke: #24292f; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
text { fill: #d0d7de }
.ours { fill: #4493f8 }
.peer { fill: #656f7a }
.wins { fill: #f0a04b }
.spread { stroke: #d0d7de }
}
</style>
`

// plot returns the bars of a group as SVG: medians, with a line from the least to the greatest value. Each row has a scale of its
// own. The plain file, which would dwarf all servers, is left to the table. It returns "" if there is nothing to show.
func (r *report) plot(g group) string {
	var body strings.Builder
	y := 0
	for _, row := range r.groupRows(g.id) {
		y = row.bars(&body, y)
	}
	if y == 0 {
		return ""
	}
	return fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\">\n<title>%s</title>\n",
		plotWidth, y, plotWidth, y, html.EscapeString(g.title)) + plotStyle + body.String() + "</svg>\n"
}

// bars writes the bars of a row below y, and returns where they end.
func (r *rowReport) bars(b *strings.Builder, y int) int {
	most := 0.0
	for _, p := range r.Peers {
		if !plain(p.Peer) {
			most = max(most, p.of(value).Max)
		}
	}
	if most == 0 {
		return y
	}
	title := r.Title
	if r.Unit == seconds {
		title += " (less is better)"
	}
	y += titleGap
	fmt.Fprintf(b, "<text class=\"title\" x=\"0\" y=\"%d\">%s</text>\n", y-8, html.EscapeString(title))
	at := func(v float64) float64 { return labelWidth + v/most*(plotWidth-labelWidth-textWidth) }
	for _, p := range r.Peers {
		if plain(p.Peer) || len(p.Samples) == 0 {
			continue
		}
		v, class, middle := p.of(value), "peer", y+barHeight/2
		if p.Peer == skerry || p.Peer == nullOurs {
			class = "ours"
		}
		text, textClass := show(v.Median, r.Unit), "value"
		if s, ok := r.ratio(p.Peer); ok && s.Median < 1 {
			text, textClass = text+" – wins", "wins"
		}
		fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>", labelWidth-8, middle+4, html.EscapeString(p.Peer))
		fmt.Fprintf(b, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\"/>", class, labelWidth, y, at(v.Median)-labelWidth, barHeight)
		fmt.Fprintf(b, "<line class=\"spread\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\"/>", at(v.Min), middle, at(v.Max), middle)
		fmt.Fprintf(b, "<text class=\"%s\" x=\"%.1f\" y=\"%d\">%s</text>\n", textClass, at(v.Max)+8, middle+4, text)
		y += barHeight + barGap
	}
	return y + barGap
}
