package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/config"
	"skerry/cmd/internal/control"
	"skerry/cmd/internal/output"
	"skerry/volume/catalog"
	"skerry/volume/collect"
)

const (
	// removeTime is how long rm gives back the space of a snapshot.
	removeTime = time.Second
	// holderTime is the same for the process that holds the volume. It has what it takes to write the volume's map once, so that this is
	// not given up half way, and is less than a caller waits.
	holderTime = 15 * time.Second
)

// removeOptions are the flags of rm.
type removeOptions struct {
	snapshots bool
	now       bool
	trash     string
	damaged   bool
}

// removed is what rm prints with --json.
type removed struct {
	control.Removal
	Until *time.Time `json:"trashed_until,omitempty"` // the volume is in the trash until then
	Lost  *lost      `json:"lost,omitempty"`          // what was given up since it was damaged
}

// lost is a damaged volume or snapshot that was given up.
type lost struct {
	ID        string   `json:"id"`   // of the volume
	Name      string   `json:"name"` // of the volume, as far as it was known
	Snapshots []string `json:"snapshots"`
}

func (a *app) removeCommand() *cobra.Command {
	var o removeOptions
	c := &cobra.Command{
		Use:     "rm NAME[@SNAP]",
		Aliases: []string{"remove", "delete"},
		Short:   "Remove a volume or a snapshot",
		Long: `Remove a volume or a snapshot. The name is gone at once, and its space is given back as far as that takes about a second;
the rest comes back with gc. Of a volume that is in use, the process that holds it gives the space of the snapshot back. A volume with snapshots is removed only with --snapshots, which removes them too; a snapshot with clones and
a volume in use are not removed at all. There is no question, and no way back but the trash.

If the configuration of the pool has a time for the trash, or with --trash, a volume can be restored for that time, with its snapshots;
after that gc removes it. With --now it is removed for good, also one that is in the trash already, by its name or its id.

With --damaged a volume goes of which a record is damaged, or one that has no name any more, by its name or its id; or, as
NAME@SERIAL, a snapshot whose record is damaged. Their data is lost. What check --repair can mend is better mended.`,
		Example: `  skerry rm vm1@before-upgrade
  skerry rm vm1 --snapshots
  skerry rm vm1 --trash 7d
  skerry rm --damaged vm1@6.1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.ref(args[0])
			if err != nil {
				return err
			}
			if r.Snapshot != "" && (o.snapshots || o.now || o.trash != "") {
				return usage("rm %s: --snapshots, --now and --trash go with a volume", r)
			}
			if o.now && o.trash != "" {
				return usage("rm %s: --now and --trash exclude each other", r)
			}
			if o.damaged && (o.now || o.trash != "") {
				return usage("rm %s: --damaged goes with neither --now nor --trash", r)
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				freed, err := s.remove(ctx, r, o)
				if err != nil {
					return err
				}
				return a.print.Result(freed, func(io.Writer) error {
					a.print.Note("%s", freed.text(r))
					return nil
				})
			})
		},
	}
	c.Flags().BoolVar(&o.snapshots, "snapshots", false, "remove the volume's snapshots with it")
	c.Flags().BoolVar(&o.now, "now", false, "keep nothing in the trash, and remove what is there")
	c.Flags().StringVar(&o.trash, "trash", "", "keep the volume in the trash for a `TIME`, such as 7d or 12h")
	c.Flags().BoolVar(&o.damaged, "damaged", false, "give up what is damaged")
	return c
}

// text tells what was done with r.
func (d removed) text(r catalog.Ref) string {
	if d.Until != nil {
		return fmt.Sprintf("moved %s to the trash until %s; skerry restore %s brings it back", r, timeText(*d.Until), r)
	}
	msg := "removed " + r.String()
	switch {
	case d.Lost != nil && r.Snapshot != "":
		msg += ": what only that snapshot had is lost"
	case d.Lost != nil:
		msg = fmt.Sprintf("removed volume %s, id %s: its data is lost", dash(d.Lost.Name), d.Lost.ID)
		if len(d.Lost.Snapshots) > 0 {
			msg += ", with snapshots " + strings.Join(d.Lost.Snapshots, ", ")
		}
	}
	if d.Objects > 0 {
		msg += ", freed " + output.Size(d.Bytes)
	}
	if d.Left {
		msg += fmt.Sprintf("; more space of %s comes back with skerry gc", r.Volume)
	}
	return msg
}

func (s *session) remove(ctx context.Context, r catalog.Ref, o removeOptions) (removed, error) {
	if o.damaged {
		return s.giveUp(ctx, r, o)
	}
	if r.Snapshot == "" {
		return s.removeVolume(ctx, r, o)
	}
	freed, err := s.removeSnapshotAnywhere(ctx, r)
	return removed{Removal: freed}, err
}

// giveUp removes what is damaged.
func (s *session) giveUp(ctx context.Context, r catalog.Ref, o removeOptions) (removed, error) {
	i, err := s.pool.RemoveDamaged(ctx, r, catalog.RemoveOptions{Snapshots: o.snapshots})
	if err != nil {
		return removed{}, err
	}
	d := removed{Removal: viewRemoval(i.Removal), Lost: &lost{ID: i.ID.String(), Name: i.Name, Snapshots: append([]string{}, i.Snapshots...)}}
	d.Left = d.Left || r.Snapshot != ""
	return d, nil
}

func (s *session) removeVolume(ctx context.Context, r catalog.Ref, o removeOptions) (removed, error) {
	how := catalog.RemoveOptions{Snapshots: o.snapshots, Now: o.now}
	if !o.now {
		how.Trash = s.where.Trash
	}
	if o.trash != "" {
		var err error
		if how.Trash, err = config.ParseTrash(o.trash); err != nil {
			return removed{}, usage("--trash: %v", err)
		}
	}
	i, err := s.pool.Remove(ctx, r, how)
	d := removed{Removal: viewRemoval(i)}
	if !i.Until.IsZero() {
		d.Until = &i.Until
	}
	return d, err
}

// removeSnapshotAnywhere removes a snapshot here or has the process do it that holds the volume.
func (s *session) removeSnapshotAnywhere(ctx context.Context, r catalog.Ref) (control.Removal, error) {
	here := func(ctx context.Context) (control.Removal, error) { return s.removeSnapshot(ctx, r, removeTime) }
	return viaHolder(ctx, s, here, func(ctx context.Context, c *control.Client) (control.Removal, error) {
		return c.RemoveSnapshot(ctx, r.Volume, r.Snapshot)
	})
}

// removeSnapshot removes a snapshot of a volume that this process holds or can take, and gives back its space as far as there is time.
func (s *session) removeSnapshot(ctx context.Context, r catalog.Ref, limit time.Duration) (control.Removal, error) {
	if _, err := s.pool.Remove(ctx, r, catalog.RemoveOptions{}); err != nil {
		return control.Removal{}, err
	}
	// From here on the snapshot is gone. What follows may fail or end early: it is begun anew by gc.
	return s.giveBack(ctx, r.Volume, limit), nil
}

// giveBack collects a volume, as far as there is time.
func (s *session) giveBack(ctx context.Context, volume string, limit time.Duration) control.Removal {
	if large, err := s.pool.Large(ctx, volume); err != nil || large {
		return control.Removal{Left: true}
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := collect.Collect(limited, s.pool, collect.Options{Volume: volume})
	if err != nil {
		s.log.Info("space is left for gc", "volume", volume, "err", err)
	}
	left := err != nil || len(c.Skipped) > 0 || len(c.Problems) > 0
	return control.Removal{Objects: c.Objects, Bytes: c.Bytes, Left: left}
}
