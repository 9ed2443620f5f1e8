package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/output"
	"skerry/volume"
	"skerry/volume/collect"
)

type scrubResult struct {
	Volumes  int           `json:"volumes"`
	Sealed   int           `json:"sealed"`  // snapshots compared with their seals
	Objects  int64         `json:"objects"` // read
	Bytes    int64         `json:"bytes"`   // read from these
	Damage   []scrubInjury `json:"damage"`
	Unlisted int64         `json:"unlisted,omitempty"` // damage beyond that
	Skipped  []skipped     `json:"skipped"`            // not read
}

// scrubInjury is something damaged, and where it shows.
type scrubInjury struct {
	Volume   string `json:"volume"`
	Snapshot string `json:"snapshot,omitempty"` // none: the volume as it is now
	Offset   int64  `json:"offset"`             // bytes
	Length   int64  `json:"length"`             // bytes; 0: no data, but a record
	Object   string `json:"object,omitempty"`
	Problem  string `json:"problem"`
}

func (a *app) scrubCommand() *cobra.Command {
	var rate sizeFlag
	c := &cobra.Command{
		Use:   "scrub [NAME]",
		Short: "Read everything, and look for what is damaged",
		Long: `Read everything that can be read through the volumes of the pool and their snapshots, or those of one volume: records, maps and
data, each object once. What is missing, cannot be read, is too short or fails its checksum is told with each volume and
snapshot in which it shows, the offset there, and the object; the exit code is 16 then.

The content of snapshots that were sealed, by hash --seal, is compared with the seal. Other data has no checksum.

Nothing is changed and no lease is taken; volumes may be in use. What the system has in its cache is read from there. See also check, which looks at records and objects without reading data.`,
		Example: `  skerry scrub
  skerry scrub golden --rate 200M`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.volumeOrAll(args)
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				return a.scrub(ctx, s, name, rate.bytes)
			})
		},
	}
	c.Flags().Var(&rate, "rate", "read at most this much a second, such as 200M")
	return c
}

func (a *app) scrub(ctx context.Context, s *session, name string, rate int64) error {
	what := name
	if what == "" {
		what = s.where.String()
	}
	show := a.print.Progress("scrub")
	r, err := collect.Scrub(ctx, s.pool, collect.ScrubOptions{Volume: name, Rate: rate, Progress: func(read int64) { show.Update(read, -1) }})
	show.End()
	if err != nil {
		return err
	}
	result := scrubResult{Volumes: r.Volumes, Sealed: r.Sealed, Objects: r.Objects, Bytes: r.Bytes, Damage: []scrubInjury{}, Unlisted: r.Unlisted, Skipped: viewSkipped(r.Skipped)}
	for _, i := range r.Damage {
		result.Damage = append(result.Damage, scrubInjury{i.Volume, i.Snapshot, i.Offset, i.Length, i.Object, i.Text})
	}
	err = a.print.Result(result, func(w io.Writer) error { return a.scrubText(w, result) })
	if n := int64(len(r.Damage)) + r.Unlisted; err == nil && n > 0 {
		err = advised{
			fmt.Errorf("scrub %s: %w: %s", what, volume.ErrDamaged, output.Count(n, "place")),
			"what is not named above could be read; a volume can go back to a sound snapshot with: skerry rollback",
		}
	}
	return err
}

func (a *app) scrubText(w io.Writer, r scrubResult) error {
	for _, i := range r.Damage {
		var where strings.Builder
		where.WriteString(i.Volume)
		if i.Snapshot != "" {
			where.WriteString("@" + i.Snapshot)
		}
		if i.Length > 0 {
			fmt.Fprintf(&where, ": %d bytes at %d", i.Length, i.Offset)
		}
		if i.Object != "" {
			where.WriteString(": " + i.Object)
		}
		if _, err := fmt.Fprintf(w, "damage: %s: %s\n", &where, i.Problem); err != nil {
			return err
		}
	}
	if r.Unlisted > 0 {
		if _, err := fmt.Fprintf(w, "damage: %s more\n", output.Count(r.Unlisted, "place")); err != nil {
			return err
		}
	}
	for _, s := range r.Skipped {
		a.print.Note("not all of %s was read: %s", s.Volume, s.Why)
	}
	a.print.Note("read %s of %s, %s: %s damaged", output.Count(r.Objects, "object"), output.Count(int64(r.Volumes), "volume"),
		output.Size(r.Bytes), output.Count(int64(len(r.Damage))+r.Unlisted, "place"))
	return nil
}
