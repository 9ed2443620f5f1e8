package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// profile says where skerry's processor time goes in a row.
type profile struct {
	Row   string    `json:"row"`
	Busy  float64   `json:"busy"`  // processors that it kept busy
	Lines []hotspot `json:"lines"` // most first
	Tool  string    `json:"tool"`
	Lost  string    `json:"lost,omitempty"` // why there are no lines
}

// hotspot is a function with its share of the processor time.
type hotspot struct {
	Percent float64 `json:"percent"`
	Kernel  bool    `json:"kernel"`
	Symbol  string  `json:"symbol"`
}

const (
	profiler  = "perf record -e cpu-clock -F 499"
	hotspots  = 16  // lines of a profile
	leastHeat = 1.0 // percent

	profileTime   = 2 * time.Second
	profileWarmup = time.Second // perf needs a while to begin
)

// profiles makes profiles of the rows where something was missed, or of all, if perf is there.
func (b *bench) profiles(ctx context.Context, r *report) error {
	if _, err := exec.LookPath("perf"); err != nil {
		b.log.Print("no profiles: perf is not installed")
		return nil
	}
	ids := r.missed()
	if b.all {
		ids = r.ours()
	}
	for _, id := range ids {
		at := slices.IndexFunc(rows(), func(w row) bool { return w.id == id })
		p, err := b.profile(ctx, rows()[at])
		if err != nil {
			return fmt.Errorf("profile of %s: %w", id, err)
		}
		r.Profiles = append(r.Profiles, p)
	}
	return nil
}

// missed returns the rows with a goal that was missed, each once.
func (r *report) missed() []string {
	var ids []string
	for _, v := range r.verdicts() {
		if !v.reached && !slices.Contains(ids, v.id) {
			ids = append(ids, v.id)
		}
	}
	return ids
}

// ours returns the rows in which skerry was measured.
func (r *report) ours() []string {
	var ids []string
	for _, row := range r.Rows {
		if row.peer(skerry) != nil {
			ids = append(ids, row.ID)
		}
	}
	return ids
}

// profile measures a row once more while perf looks. That perf cannot do its work, for want of permission above all, is no
// error but part of the result.
func (b *bench) profile(ctx context.Context, r row) (p profile, err error) {
	b.log.Printf("%s: profile", r.title)
	p = profile{Row: r.title, Tool: profiler}
	data := b.bed.path("perf.data")
	defer func() { err = errors.Join(err, remove(data)) }()
	if r.image {
		err = b.profileImport(ctx, &p, data)
	} else {
		err = b.profileServer(ctx, r, &p, data)
	}
	if err != nil {
		return p, err
	}
	out, err := b.bed.run(ctx, "perf", "report", "--stdio", "--no-children", "-F", "overhead,sym", "-i", data)
	if p.Lines = parseProfile(string(out)); len(p.Lines) == 0 {
		p.Lost = "perf recorded nothing"
	}
	if err != nil {
		p.Lost = err.Error()
	}
	return p, ctx.Err()
}

// record returns a perf that records to a file.
func record(data string, what ...string) *exec.Cmd {
	return exec.Command("perf", append([]string{"record", "-q", "-e", "cpu-clock", "-F", "499", "-o", data}, what...)...)
}

func (b *bench) profileImport(ctx context.Context, p *profile, data string) error {
	c := record(data, "--", b.bed.program, "import", "-q", b.bed.source(), "imported")
	c.Env = b.bed.environment()
	begun := time.Now()
	if out, err := c.CombinedOutput(); err != nil {
		p.Lost = fmt.Sprintf("%v: %s", err, out)
		return nil
	}
	p.Busy = (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds() / time.Since(begun).Seconds()
	_, err := b.bed.skerry(ctx, "rm", "-q", "imported")
	return errors.Join(err, b.collect(ctx))
}

func (b *bench) profileServer(ctx context.Context, r row, p *profile, data string) error {
	s, err := b.start(ctx, able(r.disk, b.wanted)[0], r.disk)
	if err != nil {
		return err
	}
	pid := s.cmd.Process.Pid
	perf := record(data, "-p", strconv.Itoa(pid))
	if err := perf.Start(); err != nil {
		return errors.Join(err, s.stop(context.WithoutCancel(ctx)))
	}
	c := r.load
	c.Time, c.Warmup, c.Count = profileTime, profileWarmup, b.settings.Requests
	if c.Count > 0 {
		c.Time, c.Warmup = 0, 0
	}
	before, berr := treeCPU(pid)
	begun := time.Now()
	_, err = b.make(ctx, s, c)
	took := time.Since(begun)
	after, aerr := treeCPU(pid)
	p.Busy = (after - before).Seconds() / took.Seconds()
	_ = perf.Process.Signal(os.Interrupt) // that is how it ends; its exit code then says nothing
	_ = perf.Wait()
	return errors.Join(err, berr, aerr, s.stop(context.WithoutCancel(ctx)), b.settle())
}

var profileLine = regexp.MustCompile(`^\s*(\d+\.\d+)%\s+\[(.)\]\s+(\S+)`)

// parseProfile reads what perf report prints.
func parseProfile(text string) []hotspot {
	var all []hotspot
	for line := range strings.Lines(text) {
		m := profileLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		percent, err := strconv.ParseFloat(m[1], 64)
		if err != nil || percent < leastHeat || len(all) == hotspots {
			continue
		}
		all = append(all, hotspot{Percent: percent, Kernel: m[2] == "k", Symbol: m[3]})
	}
	return all
}

// writeProfiles tells where the time goes in the rows where something was missed.
func (r *report) writeProfiles(b *strings.Builder) {
	if len(r.Profiles) == 0 {
		return
	}
	fmt.Fprintf(b, "\n### Profiles\n\nOf skerry's process, in one more measurement (`%s`); `k` marks the kernel. Shares are of its processor time.\n", profiler)
	for _, p := range r.Profiles {
		fmt.Fprintf(b, "\n%s: %.1f of %d processors busy.\n\n```\n", p.Row, p.Busy, r.Machine.Processors)
		if p.Lost != "" {
			fmt.Fprintln(b, p.Lost)
		}
		for _, l := range p.Lines {
			where := " "
			if l.Kernel {
				where = "k"
			}
			fmt.Fprintf(b, "%5.1f %% %s %s\n", l.Percent, where, l.Symbol)
		}
		b.WriteString("```\n")
	}
}
