package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/control"
)

func (a *app) snapshotCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "snapshot NAME@SNAP",
		Aliases: []string{"snap"},
		Short:   "Take a snapshot of a volume",
		Long: `Take a read-only picture of a volume as it is now. No data is copied. The volume may be in use: then the process that
holds it takes the snapshot, with all that was written before.`,
		Example: `  skerry snapshot vm1@before-upgrade`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.snapshot(args[0])
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				snap, err := viaHolder(ctx, s,
					func(ctx context.Context) (control.Snapshot, error) { return s.Snapshot(ctx, r.Volume, r.Snapshot) },
					func(ctx context.Context, c *control.Client) (control.Snapshot, error) {
						return c.Snapshot(ctx, r.Volume, r.Snapshot)
					})
				if err != nil {
					return err
				}
				return a.print.Result(snap, func(io.Writer) error {
					a.print.Note("took snapshot %s", r)
					return nil
				})
			})
		},
	}
}
