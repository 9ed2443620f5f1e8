package main

import "fmt"

// goal is what a row must reach.
type goal struct {
	rows  []string
	peers []string // every one of them; none: skerry by itself
	least float64  // times; without peers at most so many microseconds of processor time for each request
	aim   float64  // 0: none beyond least
	rate  bool     // instead, at least so many requests a second
}

// goals are what skerry must reach.
func goals() []goal {
	return []goal{
		{[]string{"read-4k-16", "read-4k-64"}, []string{nbdkit}, 1.2, 1.5, false},
		{[]string{"write-4k-16", "write-4k-64"}, []string{nbdkit}, 1.0, 1.2, false},
		{[]string{"read-1m-4", "write-1m-4"}, []string{nbdkit}, 0.8, 1.2, false},
		{[]string{"flush-8", "flush-64", "imported-flush-8", "imported-flush-64"}, []string{qemuRaw}, 2, 3, false},
		{[]string{"fuse-read-4k-16", "fuse-write-4k-16", "fuse-read-1m-4", "fuse-write-1m-4"}, []string{qemuFUSE}, 1.2, 0, false},
		{[]string{"slow-read-4k-64", "slow-write-4k-64"}, nil, 35_000, 0, true},
		{[]string{"clone-4k-16"}, []string{overlayRaw, overlayQcow2}, 3, 0, false},
		{[]string{"import"}, []string{cp}, 0.7, 0, false},
		{[]string{"read-4k-64", "write-4k-64"}, nil, 8, 0, false},
	}
}

// verdict is how a goal was met in one row against one peer.
type verdict struct {
	id, row, peer, want, got string // id and title of the row
	reached                  bool
}

// verdicts compares what was measured with the goals. Rows that were not measured have none.
func (r *report) verdicts() []verdict {
	var all []verdict
	for _, g := range goals() {
		for _, id := range g.rows {
			row := r.row(id)
			if row == nil {
				continue
			}
			for _, peer := range g.peers {
				s, ok := row.ratio(peer)
				if !ok {
					continue
				}
				want := fmt.Sprintf("%.1f times", g.least)
				if g.aim > 0 {
					want += fmt.Sprintf(" (aim %.1f)", g.aim)
				}
				all = append(all, verdict{id, row.Title, peer, want, times(s), s.Median >= g.least})
			}
			p := row.peer(skerry)
			if len(g.peers) > 0 || p == nil {
				continue
			}
			if s := p.of(value); g.rate {
				all = append(all, verdict{id, row.Title, "–", show(g.least, row.Unit), fmt.Sprintf("%s (%s)", show(s.Median, row.Unit), bounds(s, row.Unit)), s.Median >= g.least})
			} else {
				s = p.of(cpu)
				all = append(all, verdict{id, row.Title, "–", fmt.Sprintf("under %.0f µs", g.least),
					fmt.Sprintf("%.1f µs (%.1f–%.1f)", s.Median, s.Min, s.Max), s.Median < g.least})
			}
		}
	}
	return all
}

// times formats a ratio with its spread.
func times(s spread) string { return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Min, s.Max) }
