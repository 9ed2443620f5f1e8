package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"skerry/chunk"
	"skerry/cmd/internal/control"
	"skerry/cmd/internal/output"
	"skerry/volume"
	"skerry/volume/catalog"
)

// diffTotal is what diff prints at the end.
type diffTotal struct {
	From    string `json:"from"`
	To      string `json:"to"`
	Extents int64  `json:"extents"` // their number
	Data    int64  `json:"data"`    // bytes
	Zero    int64  `json:"zero"`    // bytes
}

// diffExtent is an extent that changed.
type diffExtent struct {
	Offset int64  `json:"offset"` // bytes
	Length int64  `json:"length"` // bytes
	Kind   string `json:"kind"`   // what the newer side has there: "data" or "zero"
}

func (a *app) diffCommand() *cobra.Command {
	var exact, total bool
	c := &cobra.Command{
		Use:   "diff NAME@SNAP [NAME[@SNAP]]",
		Short: "Show what changed since a snapshot",
		Long: `Show the extents of the second one that differ from the snapshot, and whether they hold data or zeros there. Without a second
one it is the volume as it is now, which may be in use: then its holder takes a hidden snapshot for the time.

The maps are compared, and no data is read: every change is shown, in whole blocks of 4 KiB. Blocks that were written
again with the same content, or that a merge or flatten has moved, are shown too; --exact reads both sides and leaves them out.

The two may be snapshots of one volume, of a volume and its clone in any order, or of volumes that share nothing. What
the second has beyond the size of the first is shown as changed.`,
		Example: `  skerry diff vm1@monday
  skerry diff vm1@monday vm1@tuesday --json
  skerry diff golden@v1 vm1 --total`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := a.snapshot(args[0])
			if err != nil {
				return err
			}
			to := catalog.Ref{Volume: from.Volume}
			if len(args) == 2 {
				if to, err = a.ref(args[1]); err != nil {
					return err
				}
			}
			return a.holding(cmd.Context(), func(ctx context.Context, s *session) error {
				return a.diff(ctx, s, from, to, exact, total)
			})
		},
	}
	c.Flags().BoolVar(&exact, "exact", false, "read both sides, and leave out what is the same")
	c.Flags().BoolVar(&total, "total", false, "only the sums")
	return c
}

func (a *app) diff(ctx context.Context, s *session, from, to catalog.Ref, exact, total bool) error {
	p := &diffPrinter{w: bufio.NewWriter(a.print.Out), json: a.print.JSON, sums: diffTotal{From: from.String(), To: to.String()}}
	if total {
		p.w = bufio.NewWriter(io.Discard)
	}
	if err := s.diff(ctx, from, to, catalog.DiffOptions{Exact: exact}, p.extent); err != nil {
		// What was printed is cut off: as JSON it is none.
		return errors.Join(err, p.flushIfBegun())
	}
	if total {
		return a.print.Result(p.sums, func(w io.Writer) error {
			_, err := fmt.Fprintln(w, p.sums)
			return err
		})
	}
	if err := p.end(); err != nil {
		return err
	}
	a.print.Note("%s", p.sums)
	return nil
}

// diff compares a snapshot with a snapshot or a volume. Of a volume that another process holds that one takes a snapshot.
func (s *session) diff(ctx context.Context, from, to catalog.Ref, o catalog.DiffOptions, fn func(volume.Extent) error) error {
	hidden, err := viaHolder(ctx, s,
		func(ctx context.Context) (control.Hidden, error) {
			return control.Hidden{}, s.pool.Diff(ctx, from, to, o, fn)
		},
		func(ctx context.Context, c *control.Client) (control.Hidden, error) {
			return c.SnapshotHidden(ctx, to.Volume)
		})
	if err != nil || hidden.Serial == 0 {
		return err
	}
	o.Hidden = chunk.Serial(hidden.Serial)
	err = s.pool.Diff(ctx, from, to, o, fn)
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	_, dropErr := viaHolder(after, s,
		func(ctx context.Context) (control.Hidden, error) {
			return hidden, s.pool.RemoveHidden(ctx, to.Volume, o.Hidden)
		},
		func(ctx context.Context, c *control.Client) (control.Hidden, error) {
			return hidden, c.RemoveHidden(ctx, to.Volume, hidden)
		})
	if dropErr != nil {
		s.log.Warn("the hidden snapshot is left for gc", "volume", to.Volume, "err", dropErr)
	}
	return err
}

// diffPrinter prints extents as they come: there may be many.
type diffPrinter struct {
	w    *bufio.Writer
	json bool
	sums diffTotal
}

func (p *diffPrinter) extent(e volume.Extent) error {
	x := diffExtent{e.Offset, e.Length, "data"}
	if e.Flags&volume.Zero != 0 {
		x.Kind = "zero"
		p.sums.Zero += e.Length
	} else {
		p.sums.Data += e.Length
	}
	if err := p.begin(); err != nil {
		return err
	}
	first := p.sums.Extents == 0
	p.sums.Extents++
	if !p.json {
		return p.line(fmt.Sprint(x.Offset), fmt.Sprint(x.Length), x.Kind)
	}
	b, err := json.Marshal(x)
	if err != nil {
		return err
	}
	separator := ",\n    "
	if first {
		separator = "\n    "
	}
	_, err = p.w.WriteString(separator + string(b))
	return err
}

// line writes a line of the table, whose widths do not depend on what comes.
func (p *diffPrinter) line(offset, length, kind string) error {
	_, err := fmt.Fprintf(p.w, "%16s  %16s  %s\n", offset, length, kind)
	return err
}

// begin writes what comes before the first extent.
func (p *diffPrinter) begin() error {
	if p.sums.Extents > 0 {
		return nil
	}
	if !p.json {
		return p.line("OFFSET", "LENGTH", "KIND")
	}
	_, err := p.w.WriteString("{\n  \"changed\": [")
	return err
}

// end writes what comes after the last one.
func (p *diffPrinter) end() error {
	if err := p.begin(); err != nil {
		return err
	}
	if p.json {
		b, err := json.MarshalIndent(p.sums, "  ", "  ")
		if err != nil {
			return err
		}
		close := "\n  ]"
		if p.sums.Extents == 0 {
			close = "]"
		}
		if _, err := p.w.WriteString(close + ",\n  \"total\": " + string(b) + "\n}\n"); err != nil {
			return err
		}
	}
	return p.w.Flush()
}

func (p *diffPrinter) flushIfBegun() error {
	if p.sums.Extents == 0 {
		return nil
	}
	return p.w.Flush()
}

// String returns the sums for people.
func (t diffTotal) String() string {
	return fmt.Sprintf("from %s to %s: %s, %s of data and %s of zeros", t.From, t.To, output.Count(t.Extents, "extent"), output.Size(t.Data), output.Size(t.Zero))
}
