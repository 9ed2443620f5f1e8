package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/config"
	"skerry/cmd/internal/control"
	"skerry/cmd/internal/output"
	"skerry/volume/catalog"
)

func (a *app) createCommand() *cobra.Command {
	var size, chunkSize sizeFlag
	c := &cobra.Command{
		Use:     "create NAME --size SIZE",
		Aliases: []string{"new"},
		Short:   "Create an empty volume",
		Long: `Create a volume that reads as zeros and takes no space yet. The size is a multiple of 512 bytes. Chunks,
the unit in which data is stored, are 4M unless --chunk-size says otherwise: a power of two from 64K to 32M.`,
		Example: `  skerry create vm1 --size 20G
  skerry create db --size 1.5T --chunk-size 1M`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.volume(args[0])
			if err != nil {
				return err
			}
			if size.bytes <= 0 {
				return usage("create %s: want --size with a size above 0", name)
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				i, err := s.pool.Create(ctx, name, catalog.CreateOptions{Size: size.bytes, ChunkSize: chunkSize.bytes})
				if err != nil {
					return err
				}
				return a.made("created", viewVolume(i))
			})
		},
	}
	c.Flags().VarP(&size, "size", "s", "size of the volume, such as 20G")
	c.Flags().Var(&chunkSize, "chunk-size", "size of its chunks, such as 4M")
	return c
}

// made tells of a new volume.
func (a *app) made(verb string, v control.Volume) error {
	return a.print.Result(v, func(io.Writer) error {
		a.print.Note("%s %s, %s", verb, v.Name, output.Size(v.Size))
		return nil
	})
}

// sizeFlag is a flag with a size.
type sizeFlag struct{ bytes int64 }

// Set reads the flag.
func (f *sizeFlag) Set(s string) (err error) {
	f.bytes, err = config.ParseSize(s)
	if err == nil && f.bytes == 0 {
		err = fmt.Errorf("size %q: must be above 0", s)
	}
	return err
}

// String returns the default for the help text: none.
func (f *sizeFlag) String() string { return "" }

// Type names the value for the help text.
func (f *sizeFlag) Type() string { return "SIZE" }
