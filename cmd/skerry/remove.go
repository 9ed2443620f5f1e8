package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

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

func (a *app) removeCommand() *cobra.Command {
	var snapshots bool
	c := &cobra.Command{
		Use:     "rm NAME[@SNAP]",
		Aliases: []string{"remove", "delete"},
		Short:   "Remove a volume or a snapshot",
		Long: `Remove a volume or a snapshot. The name is gone at once, and its space is given back as far as that takes about a second;
the rest comes back with gc. Of a volume that is in use, the process that holds it gives the space of the snapshot back. A volume with snapshots is removed only with --snapshots, which removes them too; a snapshot with clones and
a volume in use are not removed at all. There is no question and no way back.`,
		Example: `  skerry rm vm1@before-upgrade
  skerry rm vm1 --snapshots`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.ref(args[0])
			if err != nil {
				return err
			}
			if r.Snapshot != "" && snapshots {
				return usage("rm %s: --snapshots goes with a volume", r)
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				freed, err := s.remove(ctx, r, snapshots)
				if err != nil {
					return err
				}
				return a.print.Result(freed, func(io.Writer) error {
					msg := "removed " + r.String()
					if freed.Objects > 0 {
						msg += ", freed " + output.Size(freed.Bytes)
					}
					if freed.Left {
						msg += fmt.Sprintf("; more space of %s comes back with skerry gc", r.Volume)
					}
					a.print.Note("%s", msg)
					return nil
				})
			})
		},
	}
	c.Flags().BoolVar(&snapshots, "snapshots", false, "remove the volume's snapshots with it")
	return c
}

func (s *session) remove(ctx context.Context, r catalog.Ref, snapshots bool) (control.Removal, error) {
	if r.Snapshot == "" {
		i, err := s.pool.Remove(ctx, r, catalog.RemoveOptions{Snapshots: snapshots})
		return viewRemoval(i), err
	}
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
	if large, err := s.pool.Large(ctx, r.Volume); err != nil || large {
		return control.Removal{Left: true}, nil
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := collect.Collect(limited, s.pool, collect.Options{Volume: r.Volume})
	if err != nil {
		s.log.Info("space is left for gc", "volume", r.Volume, "err", err)
	}
	left := err != nil || len(c.Skipped) > 0 || len(c.Problems) > 0
	return control.Removal{Objects: c.Objects, Bytes: c.Bytes, Left: left}, nil
}
