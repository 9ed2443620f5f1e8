package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"
)

type renameResult struct {
	Old string `json:"old"`
	New string `json:"new"`
}

func (a *app) renameCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "rename NAME NEW",
		Aliases: []string{"mv", "move"},
		Short:   "Give a volume another name",
		Long:    `Give a volume another name, one that is free. Its snapshots and clones stay what they are. The volume must not be in use.`,
		Example: `  skerry rename vm1 web1`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			old, err := a.volume(args[0])
			if err != nil {
				return err
			}
			name, err := a.volume(args[1])
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				if err := s.pool.Rename(ctx, old, name); err != nil {
					return err
				}
				return a.print.Result(renameResult{old, name}, func(io.Writer) error {
					a.print.Note("renamed %s to %s", old, name)
					return nil
				})
			})
		},
	}
}
