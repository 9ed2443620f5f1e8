package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/control"
	"skerry/cmd/internal/output"
	"skerry/volume/catalog"
)

func (a *app) removeCommand() *cobra.Command {
	var snapshots bool
	c := &cobra.Command{
		Use:     "rm NAME[@SNAP]",
		Aliases: []string{"remove", "delete"},
		Short:   "Remove a volume or a snapshot",
		Long: `Remove a volume or a snapshot. The name is gone at once; space that is not freed within a second,
and that of a snapshot, is left to gc. A volume with snapshots is removed only with --snapshots, which removes them too; a snapshot with clones and
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
					if freed.Left > 0 {
						msg += fmt.Sprintf("; %s left for skerry gc", output.Count(freed.Left, "object"))
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
	here := func(ctx context.Context) (control.Removal, error) {
		i, err := s.pool.Remove(ctx, r, catalog.RemoveOptions{Snapshots: snapshots})
		return viewRemoval(i), err
	}
	if r.Snapshot == "" {
		return here(ctx)
	}
	return viaHolder(ctx, s, here, func(ctx context.Context, c *control.Client) (control.Removal, error) {
		return c.RemoveSnapshot(ctx, r.Volume, r.Snapshot)
	})
}
