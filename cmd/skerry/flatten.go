package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/control"
	"skerry/volume/catalog"
	"skerry/volume/collect"
)

func (a *app) flattenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "flatten NAME",
		Short: "Copy what a clone shares with its parent",
		Long: `Copy what a volume shares with the snapshot that it began as, so that it needs nothing of others any more. The volume may be in
use: then the process that holds it does it, in the background of what it serves. What was copied when flatten is interrupted stays copied; the next
one goes on from there.

Afterwards the parent's snapshot can be removed, unless snapshots of this volume from before, or their clones, need it: then the volume keeps its parent
until these are gone.`,
		Example: `  skerry flatten vm1`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.volume(args[0])
			if err != nil {
				return err
			}
			return a.holding(cmd.Context(), func(ctx context.Context, s *session) error {
				show := a.print.Progress("flatten")
				v, err := viaHolder(ctx, s,
					func(ctx context.Context) (control.Volume, error) { return s.Flatten(ctx, name, show.Update) },
					func(ctx context.Context, c *control.Client) (control.Volume, error) {
						return c.Flatten(ctx, name, show.Update)
					})
				show.End()
				if err != nil {
					return err
				}
				return a.print.Result(v, func(io.Writer) error {
					if v.Parent != "" {
						a.print.Note("flattened %s; its snapshots still need %s", v.Name, v.Parent)
					} else {
						a.print.Note("flattened %s: it needs no other volume", v.Name)
					}
					return nil
				})
			})
		},
	}
}

// Flatten copies what a volume that this process holds or can take has of its parent, and ends its tie to that if nothing else needs it.
func (s *session) Flatten(ctx context.Context, volume string, progress func(done, total int64)) (control.Volume, error) {
	if !catalog.ValidName(volume) {
		return control.Volume{}, usage("flatten %q: bad name", volume)
	}
	if err := s.pool.Flatten(ctx, volume, progress); err != nil {
		return control.Volume{}, err
	}
	if _, err := collect.Part(ctx, s.pool, volume); err != nil {
		return control.Volume{}, err
	}
	i, err := s.pool.Info(ctx, volume)
	return viewFull(i), err
}
