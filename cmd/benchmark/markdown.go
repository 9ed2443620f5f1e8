package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	humanize "github.com/dustin/go-humanize"
)

// Between these lines of benchmarks.md stands what is made of the results.
const (
	begin = "<!-- measured: begin; make bench writes what is between these lines -->"
	end   = "<!-- measured: end -->"
)

// document writes plots, and the results into benchmarks.md, of a directory.
func (r *report) document(dir string) error {
	path := filepath.Join(dir, "benchmarks.md")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err = replaceMeasured(text, r.markdown(true))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	plots := filepath.Join(dir, "benchmarks")
	if err := os.MkdirAll(plots, 0o755); err != nil {
		return err
	}
	for _, g := range groups() {
		if svg := r.plot(g); svg != "" {
			if err := os.WriteFile(filepath.Join(plots, g.id+".svg"), []byte(svg), 0o644); err != nil {
				return err
			}
		}
	}
	return os.WriteFile(path, text, 0o644)
}

// replaceMeasured returns a document with what was measured put between its markers.
func replaceMeasured(document []byte, measured string) ([]byte, error) {
	head, rest, ok := strings.Cut(string(document), begin+"\n")
	_, tail, closed := strings.Cut(rest, end+"\n")
	if !ok || !closed {
		return nil, fmt.Errorf("no lines %q and %q", begin, end)
	}
	return []byte(head + begin + "\n\n" + measured + "\n" + end + "\n" + tail), nil
}

// markdown returns the results as tables, with references to the plots if there are any.
func (r *report) markdown(plots bool) string {
	var b strings.Builder
	r.writeMachine(&b)
	r.writeVerdicts(&b)
	r.writeLosses(&b)
	for _, g := range groups() {
		rows := r.groupRows(g.id)
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n### %s\n\n", g.title)
		if g.note != "" {
			fmt.Fprintf(&b, "%s\n\n", g.note)
		}
		if plots {
			fmt.Fprintf(&b, "![%s](benchmarks/%s.svg)\n\n", g.title, g.id)
		}
		writeGroup(&b, g, rows)
	}
	r.writeProfiles(&b)
	return b.String()
}

func (r *report) groupRows(group string) []rowReport {
	var rows []rowReport
	for _, row := range r.Rows {
		if row.Group == group {
			rows = append(rows, row)
		}
	}
	return rows
}

func (r *report) writeMachine(b *strings.Builder) {
	m, s := r.Machine, r.Settings
	fmt.Fprintf(b, "Commit %s, %s, in %s. %d rounds, each measurement %.1f s after %.1f s that do not count, disks of %s.\n\n",
		m.Commit, m.Date.Format("2006-01-02 15:04 MST"), r.Took.Round(time.Second), s.Rounds, s.Seconds, s.Warmup, humanize.IBytes(uint64(s.Size)))
	if s.Quick {
		b.WriteString("This is the quick form: short measurements, small disks. Take no decision by it.\n\n")
	}
	if s.AsMade {
		b.WriteString("Disks were measured as `skerry import`, `cp` and `qemu-img convert` had written them.\n\n")
	}
	b.WriteString("| | |\n| --- | --- |\n")
	for _, line := range [][2]string{
		{"processor", fmt.Sprintf("%s, %d of them", m.CPU, m.Processors)},
		{"memory", humanize.IBytes(uint64(m.Memory))},
		{"kernel", "Linux " + m.Kernel},
		{"file system", m.FileSystem},
		{"peers", m.Nbdkit + "; " + m.Qemu + "; " + m.Fio},
		{"Go", m.Go},
		{"load average", m.LoadBefore + " before, " + m.LoadAfter + " at the end"},
	} {
		fmt.Fprintf(b, "| %s | %s |\n", line[0], line[1])
	}
}

func (r *report) writeVerdicts(b *strings.Builder) {
	all := r.verdicts()
	if len(all) == 0 {
		return
	}
	b.WriteString("\n### What must be reached\n\n| work | against | at least | measured | |\n| --- | --- | --- | --- | --- |\n")
	for _, v := range all {
		reached := "reached"
		if !v.reached {
			reached = "**missed**"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", v.row, v.peer, v.want, v.got, reached)
	}
}

// writeLosses names the rows where a peer is faster.
func (r *report) writeLosses(b *strings.Builder) {
	var lines []string
	for _, row := range r.Rows {
		for _, p := range row.Peers {
			if s, ok := row.ratio(p.Peer); ok && p.Peer != skerry && !plain(p.Peer) && s.Median < 1 {
				lines = append(lines, fmt.Sprintf("- %s: %s is %.2f times as fast", row.Title, p.Peer, 1/s.Median))
			}
		}
	}
	b.WriteString("\n### Where a peer wins\n\n")
	if len(lines) == 0 {
		lines = []string{"In no row."}
	}
	b.WriteString(strings.Join(lines, "\n") + "\n")
}

func writeGroup(b *strings.Builder, g group, rows []rowReport) {
	latencies := "p50 | p99 | p99.9"
	if g.id == "flush" {
		latencies = "flush p50 | flush p99 | flush p99.9"
	}
	fmt.Fprintf(b, "| work | of | median (least–most) | skerry is so many times as fast | %s | CPU of the server | memory |\n", latencies)
	b.WriteString("| --- | --- | --: | --: | --: | --: | --: | --: | --: |\n")
	for _, row := range rows {
		for i, p := range row.Peers {
			title := row.Title
			if i > 0 {
				title = ""
			}
			v := p.of(value)
			fmt.Fprintf(b, "| %s | %s | %s (%s) | %s | %s | %s | %s | %s | %s |\n", title, p.Peer,
				show(v.Median, row.Unit), bounds(v, row.Unit), row.comparison(p.Peer),
				us(p.of(func(s sample) float64 { return s.P50 })), us(p.of(func(s sample) float64 { return s.P99 })),
				us(p.of(func(s sample) float64 { return s.P999 })), us(p.of(cpu)), size(p.of(memory)))
		}
	}
	writeAllocations(b, rows)
	if g.id == "ceiling" {
		writeLoad(b, rows)
	}
}

// writeLoad tells what the load itself takes.
func writeLoad(b *strings.Builder, rows []rowReport) {
	var parts []string
	for _, row := range rows {
		for _, p := range row.Peers {
			parts = append(parts, fmt.Sprintf("%s (%s, %s)", us(p.of(func(s sample) float64 { return s.ClientCPU })), row.Title, p.Peer))
		}
	}
	fmt.Fprintf(b, "\nProcessor time of the load for each request, its system calls included: %s.\n", strings.Join(parts, ", "))
}

// plain reports whether a peer is no server, so that nothing is expected to reach it.
func plain(peer string) bool { return peer == plainFile || peer == directFile }

// comparison tells how skerry does against a peer.
func (r *rowReport) comparison(peer string) string {
	s, ok := r.ratio(peer)
	switch {
	case !ok || peer == skerry:
		return ""
	case plain(peer) || s.Median >= 1:
		return times(s)
	}
	return times(s) + ", **the peer wins**"
}

// writeAllocations tells what skerry allocates.
func writeAllocations(b *strings.Builder, rows []rowReport) {
	var parts []string
	for _, row := range rows {
		p := row.peer(skerry)
		if p == nil || len(p.Samples) == 0 || p.Samples[0].Allocs == nil {
			continue
		}
		s := p.of(func(s sample) float64 {
			if s.Allocs == nil {
				return 0
			}
			return *s.Allocs
		})
		parts = append(parts, fmt.Sprintf("%.2f (%s)", s.Median, row.Title))
	}
	if len(parts) > 0 {
		fmt.Fprintf(b, "\nAllocations of skerry for each request: %s.\n", strings.Join(parts, ", "))
	}
}

// bounds formats the least and the greatest of values.
func bounds(s spread, unit string) string {
	low, _, _ := strings.Cut(show(s.Min, unit), " ")
	high, _, _ := strings.Cut(show(s.Max, unit), " ")
	return strings.TrimSuffix(low, "/s") + "–" + strings.TrimSuffix(high, "/s")
}

// us formats the median of microseconds; nothing if there is none.
func us(s spread) string {
	switch {
	case s.Median == 0:
		return ""
	case s.Median < 100:
		return fmt.Sprintf("%.1f µs", s.Median)
	case s.Median < 10_000:
		return fmt.Sprintf("%.0f µs", s.Median)
	}
	return fmt.Sprintf("%.1f ms", s.Median/1000)
}

// size formats the median of bytes; nothing if there is none.
func size(s spread) string {
	if s.Median == 0 {
		return ""
	}
	return humanize.IBytes(uint64(s.Median))
}

// show formats a value for people.
func show(v float64, unit string) string {
	switch unit {
	case rate:
		return humanize.Comma(int64(v/1e6+.5)) + " MB/s"
	case seconds:
		return fmt.Sprintf("%.2f s", v)
	}
	return humanize.Comma(int64(v+.5)) + "/s"
}
