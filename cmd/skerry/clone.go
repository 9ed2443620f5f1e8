package main

import (
	"context"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/control"
	"skerry/volume/catalog"
)

func (a *app) cloneCommand() *cobra.Command {
	var size sizeFlag
	c := &cobra.Command{
		Use:     "clone NAME[@SNAP] NEW",
		Aliases: []string{"branch"},
		Short:   "Make a volume that begins as a snapshot or a volume",
		Long: `Make a volume that begins as a snapshot and shares its data until it is written. No data is copied. The
clone of a volume begins as the volume is now, by a hidden snapshot that goes with its last clone. A clone may be larger than what
it began as, never smaller.`,
		Example: `  skerry clone golden@v1 vm1
  skerry clone golden@v1 vm2 --size 100G
  skerry clone vm1 vm1-test`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := a.ref(args[0])
			if err != nil {
				return err
			}
			name, err := a.volume(args[1])
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				v, err := s.cloneOf(ctx, from, name, size.bytes)
				if err != nil {
					return err
				}
				return a.made("cloned "+from.String()+" as", v)
			})
		},
	}
	c.Flags().VarP(&size, "size", "s", "size of the clone, if it is to be larger")
	return c
}

func (s *session) cloneOf(ctx context.Context, from catalog.Ref, name string, size int64) (control.Volume, error) {
	return viaHolder(ctx, s,
		func(ctx context.Context) (control.Volume, error) {
			i, err := s.pool.Clone(ctx, from, name, catalog.CloneOptions{Size: size})
			return viewVolume(i), err
		},
		func(ctx context.Context, c *control.Client) (control.Volume, error) {
			return c.Clone(ctx, from.Volume, name, size)
		})
}
