package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"
)

type rollbackResult struct {
	Volume   string `json:"volume"`
	Snapshot string `json:"snapshot"` // that the volume is again
}

func (a *app) rollbackCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "rollback NAME@SNAP",
		Aliases: []string{"revert"},
		Short:   "Make a volume what it was at a snapshot",
		Long: `Make a volume what it was at one of its snapshots. All that was written since is given up, unless another snapshot has it. All
snapshots stay. The volume must not be in use.`,
		Example: `  skerry rollback vm1@before-upgrade`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.snapshot(args[0])
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				if err := s.pool.Rollback(ctx, r); err != nil {
					return err
				}
				return a.print.Result(rollbackResult{r.Volume, r.Snapshot}, func(io.Writer) error {
					a.print.Note("rolled %s back to %s: what was written since is gone", r.Volume, r)
					return nil
				})
			})
		},
	}
}
