package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"skerry/cmd/internal/config"
	"skerry/cmd/internal/control"
	"skerry/cmd/internal/output"
	"skerry/volume/catalog"
)

// resized is what resize prints with --json.
type resized struct {
	control.Volume
	Freed int64 `json:"freed"`          // bytes given back
	Left  bool  `json:"left,omitempty"` // more comes back with gc
}

func (a *app) resizeCommand() *cobra.Command {
	var shrink bool
	c := &cobra.Command{
		Use:   "resize NAME SIZE|+SIZE|-SIZE",
		Short: "Make a volume larger or smaller",
		Long: `Give a volume another size, a multiple of 512 bytes; +10G and -10G are from the size that it has. What is added reads as zeros. A
volume that is served may become larger: clients see that when they connect again.

A volume becomes smaller only with --allow-shrink, and while it is not in use. What lies beyond the new end is lost, but for snapshots, and its space comes
back; it does not show again when the volume grows. Make the file system in it smaller first. If making it smaller is interrupted the size
may be the old one, and what follows the new end in the same chunk be lost already.`,
		Example: `  skerry resize vm1 100G
  skerry resize vm1 +10G
  skerry resize vm1 --allow-shrink -- -10G`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := a.volume(args[0])
			if err != nil {
				return err
			}
			size, err := parseNewSize(args[1])
			if err != nil {
				return usage("resize %s: %v", name, err)
			}
			size.Shrink = shrink
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				r, err := s.resize(ctx, name, size)
				if err != nil {
					return err
				}
				return a.print.Result(r, func(io.Writer) error {
					msg := fmt.Sprintf("resized %s to %s", r.Name, output.Size(r.Size))
					if r.Freed > 0 {
						msg += ", freed " + output.Size(r.Freed)
					}
					if r.Left {
						msg += fmt.Sprintf("; more space of %s comes back with skerry gc", r.Name)
					}
					a.print.Note("%s", msg)
					return nil
				})
			})
		},
	}
	c.Flags().BoolVar(&shrink, "allow-shrink", false, "the volume may become smaller; what lies beyond its end is lost")
	return c
}

// parseNewSize reads a size, or a change of it if it has a sign.
func parseNewSize(text string) (size control.NewSize, err error) {
	number := strings.TrimLeft(text, "+-")
	if len(text)-len(number) > 1 {
		return size, fmt.Errorf("size %q: want one sign", text)
	}
	if size.Size, err = config.ParseSize(number); err != nil {
		return size, err
	}
	size.By = number != text
	if text[0] == '-' {
		size.Size = -size.Size
	}
	if size.Size == 0 && !size.By {
		return size, fmt.Errorf("size %q: must be above 0", text)
	}
	return size, nil
}

// resize resizes a volume here, or has the process do it that holds it, and gives back space.
func (s *session) resize(ctx context.Context, name string, size control.NewSize) (r resized, err error) {
	before, err := s.pool.Info(ctx, name)
	if err != nil {
		return r, err
	}
	r.Volume, err = viaHolder(ctx, s,
		func(ctx context.Context) (control.Volume, error) {
			v, err := s.Resize(ctx, name, size)
			v.Holder = nil // this process was, and has released it
			return v, err
		},
		func(ctx context.Context, c *control.Client) (control.Volume, error) {
			v, err := c.Resize(ctx, name, size)
			if errors.Is(err, control.ErrGone) && size.By {
				// The holder may have done it before it ended: it is not to be done twice.
				size = control.NewSize{Size: before.Size + size.Size, Shrink: size.Shrink}
			}
			return v, err
		})
	if err != nil || r.Size >= before.Size {
		return r, err
	}
	freed := s.giveBack(ctx, name, removeTime)
	r.Freed, r.Left = freed.Bytes, freed.Left
	return r, nil
}

// Resize gives a volume that this process holds or can take another size.
func (s *session) Resize(ctx context.Context, volume string, size control.NewSize) (control.Volume, error) {
	if !catalog.ValidName(volume) {
		return control.Volume{}, usage("resize %q: bad name", volume)
	}
	i, err := s.pool.Resize(ctx, volume, catalog.ResizeOptions{Size: size.Size, By: size.By, Shrink: size.Shrink})
	return viewFull(i), err
}
